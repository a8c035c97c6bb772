"""The common style of the figures: palette, layout, axes, text escaped for Plotly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from secateurs.report.common.formatting import shorten

# Okabe and Ito's palette, safe for the common kinds of colour blindness. Figures are built in
# the light colours; the page's script swaps them by this table where the reader prefers dark.
BEFORE = "#0072B2"
AFTER = "#D55E00"
TRAIN = "#0073B3"
VAL = "#CC79A7"
TEST = "#009E73"
INK = "#1F262D"
MUTED = "#5B6670"
FAINT = "#B9C1C9"
GRID = "#E4E7EA"
SURFACE = "#FFFFFF"
SHADE = "#EEF1F3"
SCALE = ("#F3F6F8", "#5FA3CF", "#004B7A")

DARK = {
    BEFORE: "#56B4E9",
    AFTER: "#E69F00",
    TRAIN: "#57B5EA",
    VAL: "#CC79A8",
    TEST: "#00B584",
    INK: "#E8ECEF",
    MUTED: "#A4AFB9",
    FAINT: "#4C5762",
    GRID: "#2B333B",
    SURFACE: "#1A1F24",
    SHADE: "#232A31",
    SCALE[0]: "#20272E",
    SCALE[1]: "#265F87",
    SCALE[2]: "#A5DAF7",
}

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


@dataclass(frozen=True)
class Plot:
    """A Plotly figure, a short title, and its text alternative."""

    figure: go.Figure
    title: str
    label: str


def safe(text: str) -> str:
    """`text` with Plotly's own markup switched off: it reads a few HTML tags in every label.

    >>> safe("<b>A&B</b>")
    '&lt;b&gt;A&amp;B&lt;/b&gt;'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def base(
    height_px: int, *, x_title: str = "", y_title: str = "", legend: bool = False
) -> go.Figure:
    """An empty figure on a transparent ground, its height fixed and its width left to the page."""
    title = {"color": MUTED, "size": 13}
    axis: dict[str, Any] = {
        "automargin": True,
        "gridcolor": GRID,
        "linecolor": FAINT,
        "zeroline": False,
        "tickfont": {"color": MUTED},
        "ticklabelstandoff": 6,
        "ticks": "",
    }
    # `update_layout` takes ten times as long as a layout given whole.
    layout: dict[str, Any] = {
        "template": "none",
        "height": height_px,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": INK},
        "margin": {"l": 8, "r": 20, "t": 40 if legend else 14, "b": 8},
        "showlegend": legend,
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "yref": "paper",
            "bgcolor": "rgba(0,0,0,0)",
            "font": {"color": INK},
        },
        "hoverlabel": {
            "bgcolor": SURFACE,
            "bordercolor": FAINT,
            "font": {"color": INK, "family": FONT},
            "align": "left",
        },
        "xaxis": {**axis, "title": {"text": x_title, "font": title, "standoff": 10}},
        "yaxis": {**axis, "title": {"text": y_title, "font": title, "standoff": 10}},
    }
    return go.Figure(layout=layout)


def rows_axis(figure: go.Figure, names: list[str], *, limit: int = 18) -> None:
    """Label the y axis with one row per name, the first on top; positions are 0..n-1.

    Positions rather than categories: Plotly would read names such as "1" or "2020-01-01" as
    numbers or dates, and would merge two names that are shortened to the same text.
    """
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[safe(shorten(name, limit)) for name in names],
        range=[len(names) - 0.5, -0.5],
        showgrid=False,
        tickfont={"color": INK},
    )


def fraction_range(values: list[float]) -> list[float]:
    """Axis bounds that hold the fractions with some room, never beyond -0.02..1.02.

    >>> fraction_range([0.5, 0.75])
    [0.45, 0.8]
    """
    if not values:
        return [0.0, 1.0]
    room = max(0.05, 0.1 * (max(values) - min(values)))
    return [max(-0.02, min(values) - room), min(1.02, max(values) + room)]


def count_step(largest: float, *, most: int = 10) -> int:
    """The step between ticks of whole numbers up to `largest`: 1, 2 or 5 times a power of ten.

    >>> [count_step(largest) for largest in (1, 10, 12, 48, 675)]
    [1, 1, 2, 5, 100]
    """
    step = 1
    while largest / step > most:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return step


def counts_axis(
    figure: go.Figure, axis: str, largest: float, *, from_zero: bool = True, most: int = 10
) -> None:
    """Ticks at whole numbers only on "x" or "y", as Plotly would label 0.5 as 0 or 1."""
    settings: dict[str, Any] = {
        "tick0": 0,
        "dtick": count_step(largest, most=most),
        # 2,000,000 is too long a label for a tick.
        "tickformat": ",d" if largest < 1e5 else "~s",
    }
    if from_zero:
        settings["rangemode"] = "tozero"
    figure.update_layout({f"{axis}axis": settings})


def epochs_axis(figure: go.Figure, last: int) -> None:
    """Whole epochs from 1 to `last` on the x axis, with half an epoch of room at both ends."""
    counts_axis(figure, "x", last, from_zero=False)
    figure.update_xaxes(showgrid=False, range=[0.5, last + 0.5] if last < 8 else [0, last + 1])


def categories_axis(figure: go.Figure, names: Sequence[str]) -> None:
    """Label the x axis with one column per name; positions are 0..n-1."""
    figure.update_xaxes(
        tickvals=list(range(len(names))),
        ticktext=list(names),
        range=[-0.5, len(names) - 0.5],
        showgrid=False,
        tickfont={"color": INK},
    )


def error_bars(
    middles: Sequence[float],
    lows: Sequence[float | None],
    highs: Sequence[float | None],
    colour: str,
    *,
    width: int = 6,
) -> dict[str, Any]:
    """Plotly's error bars from `lows` to `highs`; an unknown bound is the middle itself."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [
            0.0 if high is None else high - middle
            for middle, high in zip(middles, highs, strict=True)
        ],
        "arrayminus": [
            0.0 if low is None else middle - low for middle, low in zip(middles, lows, strict=True)
        ],
        "color": colour,
        "thickness": 2,
        "width": width,
    }
