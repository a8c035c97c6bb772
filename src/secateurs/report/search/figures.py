"""Figures of a search: from rung to rung, best so far, importance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from secateurs.report.common.canvas import (
    AFTER,
    BEFORE,
    INK,
    MUTED,
    base,
    counts_axis,
    fraction_range,
    rows_axis,
)
from secateurs.report.common.formatting import percent, percent_interval, plural
from secateurs.report.common.sweep_rows import Record
from secateurs.report.search.summary import NAMES, described

Point = tuple[float | None, float | None, str]
JITTER = 0.22  # of a rung's width: accuracies of few images coincide


def detail(row: Record, parameters: Record) -> str:
    """The hover text of a marker."""
    lines = [described(parameters | {"epochs": row["epochs"]}).replace(", ", "<br>")]
    if row["val_accuracy_mean"] is None:
        return f"{lines[0]}<br>diverged"
    bounds = (row["val_accuracy_mean"], row["val_accuracy_low"], row["val_accuracy_high"])
    return f"{lines[0]}<br>accuracy {percent_interval(*bounds)}"


def broken_lines(lines: Sequence[Sequence[Point]]) -> dict[str, Any]:
    """Lines of points (x, y, hover text) as one trace, which breaks between them."""
    points = [point for line in lines for point in (*line, (None, None, ""))]
    return {
        "x": [x for x, _, _ in points],
        "y": [y for _, y, _ in points],
        "customdata": [text for _, _, text in points],
    }


def rungs(search: Record) -> go.Figure:
    """Accuracy of every configuration from rung to rung: dropped, trained to the end, the best."""
    steps = search["rungs"]
    figure = base(420, x_title="", y_title="validation accuracy", legend=True)
    best = search["best"]["number"]
    last = set(steps[-1]["numbers"]) - {best}
    dropped = set(steps[0]["numbers"]) - last - {best}
    rows = {
        (row["number"], row["rung"]): row
        for row in search["trials"]
        if row["val_accuracy_mean"] is not None
    }
    for name, group, colour, width, symbol in (
        ("dropped", dropped, MUTED, 1.2, "circle-open"),
        ("trained to the end", last, BEFORE, 2.0, "circle"),
        ("best", {best}, AFTER, 3.0, "diamond"),
    ):
        lines: list[list[Point]] = []
        for number in sorted(group):
            found = [(at, rows[(number, at)]) for at in range(len(steps)) if (number, at) in rows]
            # Multiples of the golden ratio spread any count of them evenly.
            aside = JITTER * (number * 0.618034 % 1 - 0.5)
            lines.append(
                [
                    (at + aside, row["val_accuracy_mean"], detail(row, row["parameters"]))
                    for at, row in found
                ]
            )
        figure.add_scatter(
            **broken_lines(lines),
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": width},
            marker={"color": colour, "symbol": symbol, "size": 8 if width < 3 else 12},
            hovertemplate="%{customdata}<extra></extra>",
            visible=bool(group),
        )
    figure.update_xaxes(
        tickvals=list(range(len(steps))),
        ticktext=[
            f"{plural(step['epochs'], 'epoch')}<br>{len(step['numbers'])} trained" for step in steps
        ],
        range=[-0.4, len(steps) - 0.6],
        showgrid=False,
        tickfont={"color": INK},
    )
    values = [row["val_accuracy_mean"] for row in rows.values()]
    figure.update_yaxes(range=fraction_range(values), tickformat=".2~%")
    return figure


def history(search: Record) -> go.Figure:
    """Accuracy of each trial in order, random ones open, and the best so far."""
    figure = base(400, x_title="trial", y_title="validation accuracy", legend=True)
    known = [row for row in search["trials"] if row["val_accuracy_mean"] is not None]
    best: list[float] = []
    for row in known:
        best.append(max(row["val_accuracy_mean"], *best[-1:]) if best else row["val_accuracy_mean"])
    figure.add_scatter(
        name="best so far",
        mode="lines",
        x=[row["number"] + 1 for row in known],
        y=best,
        line={"color": AFTER, "width": 2.4, "shape": "hv"},
        hovertemplate="best of %{x} trials<br>%{y:.1%}<extra></extra>",
    )
    random = [row for row in known if row["number"] < search["startup"]]
    chosen = [row for row in known if row["number"] >= search["startup"]]
    for name, group, symbol in (
        ("random", random, "circle-open"),
        ("by the sampler", chosen, "circle"),
    ):
        figure.add_scatter(
            name=name,
            mode="markers",
            cliponaxis=False,
            x=[row["number"] + 1 for row in group],
            y=[row["val_accuracy_mean"] for row in group],
            customdata=[detail(row, row["parameters"]) for row in group],
            marker={"size": 10, "symbol": symbol, "color": BEFORE, "line": {"width": 1.6}},
            hovertemplate="%{customdata}<extra></extra>",
            visible=bool(group),
        )
    counts_axis(figure, "x", len(search["trials"]), from_zero=False)
    figure.update_xaxes(range=[0.4, len(search["trials"]) + 0.6], showgrid=False)
    values = [row["val_accuracy_mean"] for row in known]
    figure.update_yaxes(range=fraction_range(values), tickformat=".2~%")
    return figure


def importance(search: Record) -> go.Figure | None:
    """Bars of the importance of each parameter; None when it could not be computed."""
    parts: Sequence[Record] = search["importance"]["parts"]
    if not parts:
        return None
    figure = base(74 + 36 * len(parts), x_title="share of variance explained")
    figure.add_bar(
        orientation="h",
        x=[part["share"] for part in parts],
        y=list(range(len(parts))),
        text=[percent(part["share"], digits=0) for part in parts],
        textposition="outside",
        textfont={"color": INK},
        cliponaxis=False,
        marker={"color": BEFORE},
        hoverinfo="skip",
    )
    rows_axis(figure, [NAMES[part["name"]] for part in parts])
    most = max(part["share"] for part in parts)
    figure.update_xaxes(range=[0, max(0.1, 1.12 * most)], tickformat=".2~%")
    figure.update_layout(bargap=0.4)
    return figure
