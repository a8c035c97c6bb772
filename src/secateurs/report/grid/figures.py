"""Figures of a grid: heat maps of its cells, accuracy against removed units, means by angle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from secateurs.report.common.canvas import (
    INK,
    MUTED,
    SURFACE,
    base,
    categories_axis,
    counts_axis,
    fraction_range,
)
from secateurs.report.common.formatting import degrees, integer, percent, percent_interval
from secateurs.report.common.heat_map import add_heat_map
from secateurs.report.common.sweep_rows import Record

# From the smallest angle to the largest: teal, blue, purple; each with its own symbol as well.
RAMP = ((0x1B, 0x8A, 0x8A), (0x2F, 0x6D, 0xB5), (0x5B, 0x2A, 0x86))
DARK_RAMP = ((0x7F, 0xE0, 0xD8), (0x7F, 0xB2, 0xF0), (0xD0, 0xA5, 0xF5))
SYMBOLS = ("circle", "square", "diamond", "cross", "x", "star", "hexagon", "triangle-up")
SMALL_TEXT = 9  # columns beyond which a cell's text does not fit
LEAST_SPAN = 0.1  # of accuracy: a narrower scale would show noise as a pattern


def angle_colours(number: int) -> list[tuple[str, str]]:
    """A light and a dark scheme's colour for each of `number` angles, in order.

    >>> angle_colours(3)[0]
    ('#1B8A8A', '#7FE0D8')
    """
    places = [k / max(1, number - 1) for k in range(number)]
    return [(_between(RAMP, at), _between(DARK_RAMP, at)) for at in places]


def _between(ramp: Sequence[tuple[int, int, int]], at: float) -> str:
    scaled = at * (len(ramp) - 1)
    first = min(int(scaled), len(ramp) - 2)
    share = scaled - first
    mixed = [round(a + (b - a) * share) for a, b in zip(ramp[first], ramp[first + 1], strict=True)]
    return "#" + "".join(f"{channel:02X}" for channel in mixed)


def rows_of(grid: Record) -> list[list[Record]]:
    """The cells, one list per norm threshold, one cell per angle."""
    width = len(grid["settings"]["angles_deg"])
    cells: list[Record] = grid["cells"]
    return [cells[at : at + width] for at in range(0, len(cells), width)]


def accuracy_map(grid: Record) -> go.Figure:
    """Accuracy of each cell; the scale runs from the lowest to the highest, unpruned included."""
    known = [cell["accuracy"] for cell in grid["cells"] if cell["accuracy"] is not None]
    highest = max([*known, grid["unpruned"]["accuracy"]])
    lowest = min([*known, highest - LEAST_SPAN])
    return _heat_map(grid, "accuracy", lowest, highest, lambda cell: percent(cell["accuracy"]))


def removed_map(grid: Record) -> go.Figure:
    """Units that each cell removes."""
    most = max(cell["num_removed"] for cell in grid["cells"])
    return _heat_map(grid, "num_removed", 0, most, lambda cell: integer(cell["num_removed"]))


def _heat_map(
    grid: Record, key: str, lowest: float, highest: float, text: Callable[[Record], str]
) -> go.Figure:
    rows = rows_of(grid)
    angles, stds = grid["settings"]["angles_deg"], grid["settings"]["norm_stds"]
    figure = base(
        96 + max(34 * len(stds), 68),
        x_title="angle",
        y_title="norm threshold, deviations",
    )
    few = len(angles) <= SMALL_TEXT
    cells = [
        [text(cell) if cell["accuracy"] is not None else "all removed" for cell in row]
        for row in rows
    ]
    add_heat_map(
        figure,
        [[cell[key] for cell in row] for row in rows],
        cells if few else [],
        detail=[[_detail(cell) for cell in row] for row in rows],
        low=lowest,
        high=highest,
    )
    categories_axis(figure, [degrees(angle) for angle in angles])
    figure.update_yaxes(
        tickvals=list(range(len(stds))),
        ticktext=[f"{std:g}" for std in stds],
        range=[len(stds) - 0.5, -0.5],
        showgrid=False,
        tickfont={"color": INK},
    )
    return figure


def _detail(cell: Record) -> str:
    """The hover text of a cell."""
    if cell["accuracy"] is None:
        answer = "all units removed"
    else:
        bounds = (cell["accuracy"], cell["accuracy_low"], cell["accuracy_high"])
        answer = f"accuracy {percent_interval(*bounds)}"
    return (
        f"{degrees(cell['low_deg'])}, norm threshold {cell['norm_std']:g}<br>{answer}<br>"
        f"{integer(cell['num_removed'])} units removed, {integer(cell['num_kept'])} kept"
    )


def trade_off(grid: Record) -> go.Figure:
    """Accuracy against units removed, one marker per cell, one symbol and colour per angle."""
    figure = base(420, x_title="units removed", y_title="accuracy", legend=True)
    angles: list[float] = grid["settings"]["angles_deg"]
    for k, (angle, (colour, _)) in enumerate(zip(angles, angle_colours(len(angles)), strict=True)):
        mine = [c for c in grid["cells"] if c["low_deg"] == angle and c["accuracy"] is not None]
        figure.add_scatter(
            name=degrees(angle),
            mode="markers",
            cliponaxis=False,
            x=[cell["num_removed"] for cell in mine],
            y=[cell["accuracy"] for cell in mine],
            customdata=[_detail(cell) for cell in mine],
            hovertemplate="%{customdata}<extra></extra>",
            marker={
                "size": 11,
                "color": colour,
                "symbol": SYMBOLS[k % len(SYMBOLS)],
                "line": {"color": SURFACE, "width": 1},
            },
        )
    values = [cell["accuracy"] for cell in grid["cells"] if cell["accuracy"] is not None]
    _unpruned(figure, grid, [0, *(cell["num_removed"] for cell in grid["cells"])])
    counts_axis(figure, "x", max(cell["num_removed"] for cell in grid["cells"]))
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(
        range=fraction_range([*values, grid["unpruned"]["accuracy"]]), tickformat=".2~%"
    )
    return figure


def _unpruned(figure: go.Figure, grid: Record, x: Sequence[float]) -> None:
    """A dashed line at the accuracy before pruning, named in the legend."""
    level = grid["unpruned"]["accuracy"]
    figure.add_scatter(
        name="unpruned",
        mode="lines",
        x=[min(x, default=0), max(x, default=1)],
        y=[level, level],
        line={"color": MUTED, "width": 1.6, "dash": "dash"},
        hovertemplate=f"before pruning {percent(level)}<extra></extra>",
    )


def means(grid: Record, key: str, mean: str, *, fraction: bool) -> go.Figure:
    """The paper's figure 3: the mean over the norm thresholds at each angle, cells behind it.

    `key` is a cell's value and `mean` its mean's name.
    """
    angles: list[float] = grid["settings"]["angles_deg"]
    y_title = "accuracy" if fraction else "units"
    figure = base(340, x_title="angle", y_title=y_title, legend=True)
    form = ".1%" if fraction else ",.0f"
    known = [cell for cell in grid["cells"] if cell[key] is not None]
    figure.add_scatter(
        name="one cell",
        mode="markers",
        x=[cell["low_deg"] for cell in known],
        y=[cell[key] for cell in known],
        marker={"size": 7, "symbol": "circle-open", "color": MUTED},
        customdata=[_detail(cell) for cell in known],
        hovertemplate="%{customdata}<extra></extra>",
    )
    order = sorted(grid["by_angle"], key=lambda row: row["low_deg"])
    line: dict[str, Any] = {"color": angle_colours(3)[1][0], "width": 2.4}
    figure.add_scatter(
        name="mean",
        mode="lines+markers",
        x=[row["low_deg"] for row in order],
        y=[row[mean] for row in order],
        line=line,
        marker={"size": 10, "symbol": "diamond", "color": line["color"]},
        hovertemplate=f"%{{x}}°<br>mean %{{y:{form}}}<extra></extra>",
    )
    figure.update_xaxes(tickvals=angles, ticktext=[degrees(a) for a in angles], showgrid=False)
    if fraction:
        _unpruned(figure, grid, angles)
        values = [cell[key] for cell in known] + [grid["unpruned"]["accuracy"]]
        figure.update_yaxes(range=fraction_range(values), tickformat=".2~%")
    else:
        counts_axis(figure, "y", max((cell[key] for cell in known), default=0), most=6)
    return figure
