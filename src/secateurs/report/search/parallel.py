"""Parallel coordinates of a search: one axis per parameter, one line per configuration.

Drawn as plain lines: Plotly's own kind needs WebGL, cannot be printed sharply and tells its lines
apart by colour alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import plotly.graph_objects as go

from secateurs.report.common.canvas import AFTER, BEFORE, FAINT, INK, MUTED, SURFACE, base
from secateurs.report.common.formatting import percent
from secateurs.report.common.sweep_rows import Record
from secateurs.report.search.figures import Point, broken_lines, detail
from secateurs.report.search.summary import NAMES, typed

UPPER = 0.25  # share of the lines that count as good
MAX_TICKS = 5
DIGIT_SPAN = 0.06  # of accuracy: below it whole percents would repeat
ROOM = 0.06  # above and below the ends of an axis


@dataclass(frozen=True)
class Axis:
    """A vertical axis: its title, and the places 0..1 of values on it."""

    name: str
    title: str
    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]

    def place(self, value: float) -> float:
        """Where a value lies, from 0 at the bottom to 1 at the top."""
        if self.high <= self.low:
            return 0.5
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return (math.log(max(value, self.low)) - low) / (high - low)
        return (value - self.low) / (self.high - self.low)


def lines_of(search: Record) -> list[tuple[Record, Record]]:
    """What has a line, as (row, its parameters): cells, or each configuration's longest training.

    The best configuration has that of its trainings which is the best.
    """
    if search["cells"] is not None:
        return [(cell, {"lr": cell["lr"], "epochs": cell["epochs"]}) for cell in search["cells"]]
    best = search["best"]
    longest = {
        row["number"]: row
        for row in search["trials"]
        if row["number"] != best["number"] or row["epochs"] <= best["epochs"]
    }
    halving = search["settings"]["method"] == "halving"
    return [
        (row, row["parameters"] | ({"epochs": row["epochs"]} if halving else {}))
        for row in longest.values()
    ]


def rank(row: Record) -> tuple[float, float, int]:
    """Order of rows, the best first: accuracy, loss, and of equals the shorter one."""
    if row["val_accuracy_mean"] is None:
        return (1.0, 0.0, row["epochs"])
    return (-row["val_accuracy_mean"], row["val_loss_mean"], row["epochs"])


def axes_of(search: Record) -> list[Axis]:
    """An axis for each parameter that varies, and validation accuracy as the last one."""
    lines = lines_of(search)
    space = {one["name"]: one for one in search["space"]}
    found: list[Axis] = []
    for name in lines[0][1]:
        values = sorted({parameters[name] for _, parameters in lines})
        if len(values) > 1:
            found.append(_axis(name, values, space.get(name)))
    known = [row["val_accuracy_mean"] for row, _ in lines if row["val_accuracy_mean"] is not None]
    low, high = min(known), max(known)
    digits = 0 if high - low >= DIGIT_SPAN else 1
    ticks = tuple((value, percent(value, digits=digits)) for value in _evenly(low, high))
    return [*found, Axis("val_accuracy", "accuracy", low, high, False, ticks)]


def _axis(name: str, values: list[float], dimension: Record | None) -> Axis:
    title = NAMES[name].replace(" ", "<br>", 1)
    if dimension is not None and dimension["log"]:
        low, high = dimension["low"], dimension["high"]
        powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        ticks = [(10.0**power, typed(10.0**power)) for power in powers] or [(low, typed(low))]
        if dimension["zero_below"]:
            ticks = [(low, "0"), *(tick for tick in ticks if tick[0] >= dimension["zero_below"])]
        return Axis(name, title, low, high, True, tuple(ticks))
    if dimension is not None and not dimension["choices"]:
        low, high = dimension["low"], dimension["high"]
        ticks = tuple((value, typed(round(value, 3))) for value in _evenly(low, high))
        return Axis(name, title, low, high, False, ticks)
    # Choices, learning rates and epochs of a grid, rungs: all that there are, up to a number.
    step = math.ceil(len(values) / MAX_TICKS)
    log = values[0] > 0 and name != "depth"
    return Axis(
        name, title, values[0], values[-1], log, tuple((v, typed(v)) for v in values[::step])
    )


def _evenly(low: float, high: float) -> list[float]:
    return [low + (high - low) * at / (MAX_TICKS - 1) for at in range(MAX_TICKS)]


def _groups(
    search: Record, lines: list[tuple[Record, Record]]
) -> dict[str, list[tuple[Record, Record]]]:
    """The lines by what they look like, those drawn last on top."""
    best = search["best"]
    known = [line for line in lines if line[0]["val_accuracy_mean"] is not None]
    order = sorted(known, key=lambda line: rank(line[0]))
    chosen = [
        line
        for line in order
        if line[0]["number"] == best["number"] and line[0]["epochs"] == best["epochs"]
    ]
    good = order[: math.ceil(UPPER * len(order))]
    return {
        "diverged": [line for line in lines if line not in known],
        "others": [line for line in order if line not in good and line not in chosen],
        "upper quartile": [line for line in good if line not in chosen],
        "best": chosen,
    }


def parallel(search: Record) -> go.Figure:
    """The lines as best, upper quartile and others, by colour, width and markers."""
    axes = axes_of(search)
    figure = base(440, legend=True)
    for at, axis in enumerate(axes):
        figure.add_shape(type="line", x0=at, x1=at, y0=0, y1=1, line={"color": FAINT, "width": 1.5})
        for value, text in axis.ticks if at > 0 else ():
            figure.add_annotation(
                x=at, y=axis.place(value), text=text, showarrow=False, xshift=-5,
                xanchor="right", font={"size": 11.5, "color": INK}, bgcolor=SURFACE, borderpad=1,
            )  # fmt: skip
    groups = _groups(search, lines_of(search))
    looks = {
        "diverged": (MUTED, 1.2, "dot", "x"),
        "others": (MUTED, 1.0, "solid", "circle-open"),
        "upper quartile": (BEFORE, 2.0, "solid", "circle"),
        "best": (AFTER, 3.5, "solid", "diamond"),
    }
    for name, group in groups.items():
        colour, width, dash, symbol = looks[name]
        lines: list[list[Point]] = []
        for row, parameters in group:
            values = parameters | {"val_accuracy": row["val_accuracy_mean"]}
            text = detail(row, row.get("parameters") or {"lr": row["lr"]})
            lines.append(
                [
                    (at, axis.place(values[axis.name]), text)
                    for at, axis in enumerate(axes)
                    if values[axis.name] is not None
                ]
            )
        figure.add_scatter(
            **broken_lines(lines),
            name=name,
            mode="lines+markers",
            cliponaxis=False,
            line={"color": colour, "width": width, "dash": dash},
            marker={"color": colour, "symbol": symbol, "size": 11 if name == "best" else 5},
            hovertemplate="%{customdata}<extra></extra>",
            visible=bool(group),
        )
    figure.update_xaxes(
        tickvals=list(range(len(axes))),
        ticktext=[axis.title for axis in axes],
        range=[-0.02 * len(axes), len(axes) - 1 + 0.06 * len(axes)],
        side="bottom",
        showgrid=False,
        showline=False,
        tickfont={"color": INK},
    )
    # The first axis has its names where the page makes room for them at any width.
    figure.update_yaxes(
        tickvals=[axes[0].place(value) for value, _ in axes[0].ticks],
        ticktext=[text for _, text in axes[0].ticks],
        tickfont={"color": INK, "size": 11.5},
        range=[-ROOM, 1 + ROOM],
        showgrid=False,
        showline=False,
    )
    return figure
