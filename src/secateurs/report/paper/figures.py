"""Figures of the paper beside ours: Table 1, the SPI measures, Table 3, films kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from secateurs.report.common.canvas import (
    AFTER,
    BEFORE,
    INK,
    MUTED,
    SURFACE,
    TEST,
    base,
    categories_axis,
    counts_axis,
    error_bars,
    fraction_range,
    rows_axis,
)
from secateurs.report.common.formatting import degrees, percent
from secateurs.report.common.sweep_rows import Record

MEASURES = ("precision", "recall", "specificity")
PUBLISHED: dict[str, Any] = {"symbol": "diamond-open", "color": AFTER, "line": {"width": 2}}
OURS: dict[str, Any] = {"symbol": "circle", "color": BEFORE, "line": {"color": SURFACE, "width": 1}}


def table1(rows: Sequence[Record]) -> go.Figure:
    """The paper's figure 1: test accuracy over frozen layers, runs and means, theirs and ours."""
    figure = base(400, x_title="frozen layers", y_title="test accuracy", legend=True)
    ticks = ["scratch" if not row["pretrained"] else str(row["depth"]) for row in rows]
    at = list(range(len(rows)))
    _mean(figure, "ours, mean and 95% interval", [k - 0.12 for k in at], rows, OURS)
    _runs(figure, "our runs", [(k - 0.24, row["runs"]) for k, row in enumerate(rows)], INK)
    known = [(k, row) for k, row in enumerate(rows) if row["published"] is not None]
    figure.add_scatter(
        name="published mean",
        mode="markers",
        x=[k + 0.12 for k, _ in known],
        y=[row["published"] for _, row in known],
        marker={"size": 12} | PUBLISHED,
        hovertemplate="published mean %{y:.1%}<extra></extra>",
    )
    pairs = [(k + 0.24, row["published_runs"]) for k, row in enumerate(rows)]
    _runs(figure, "published runs", pairs, AFTER)
    categories_axis(figure, ticks)
    values = [
        value
        for row in rows
        for value in (*row["runs"], *row["published_runs"], row["low"], row["high"])
        if value is not None
    ]
    values += [row["published"] for _, row in known]
    figure.update_yaxes(range=fraction_range(values), tickformat=".2~%")
    return figure


def _mean(
    figure: go.Figure, name: str, x: Sequence[float], rows: Sequence[Record], mark: Record
) -> None:
    spans = [(row["ours"], row["low"], row["high"]) for row in rows]
    figure.add_scatter(
        name=name,
        mode="markers",
        x=list(x),
        y=[ours for ours, _, _ in spans],
        error_y=error_bars(
            [ours for ours, _, _ in spans],
            [low for _, low, _ in spans],
            [high for _, _, high in spans],
            mark["color"],
        ),
        marker={"size": 11} | mark,
        hovertemplate="ours %{y:.1%}<extra></extra>",
    )


def _runs(
    figure: go.Figure, name: str, pairs: Sequence[tuple[float, Sequence[float]]], colour: str
) -> None:
    points = [(x, value) for x, runs in pairs for value in runs]
    figure.add_scatter(
        name=name,
        mode="markers",
        x=[x for x, _ in points],
        y=[value for _, value in points],
        marker={"size": 6, "symbol": "circle-open", "color": colour, "line": {"width": 1.2}},
        hovertemplate=f"{name} %{{y:.1%}}<extra></extra>",
    )


def spi(per_class: Sequence[Record], beside: Sequence[Record], measure: str) -> go.Figure:
    """One SPI measure of each class with its interval, the published one where there is one."""
    names = [row["class"] for row in per_class]
    found = {row["what"]: row for row in beside}
    figure = base(90 + 30 * len(names), x_title=measure, legend=True)
    rows = [(k, found.get(f"{measure} of {name}")) for k, name in enumerate(names)]
    spans = [(row[measure], other) for row, (_, other) in zip(per_class, rows, strict=True)]
    figure.add_scatter(
        name="ours",
        mode="markers",
        x=[value for value, _ in spans],
        y=list(range(len(names))),
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [_gap(other, "high", value) for value, other in spans],
            "arrayminus": [_gap(other, "low", value) for value, other in spans],
            "color": BEFORE,
            "thickness": 2,
            "width": 5,
        },
        marker={"size": 10} | OURS,
        hovertemplate="ours %{x:.2f}<extra></extra>",
    )
    known = [(k, other) for k, other in rows if other is not None]
    figure.add_scatter(
        name="published",
        mode="markers",
        x=[other["published"] for _, other in known],
        y=[k for k, _ in known],
        marker={"size": 11} | PUBLISHED,
        hovertemplate="published %{x:.2f}<extra></extra>",
        visible=bool(known),
    )
    rows_axis(figure, names, limit=16)
    figure.update_xaxes(range=[-0.02, 1.02], tickformat=".1f")
    return figure


def _gap(other: Record | None, end: str, value: float | None) -> float:
    if other is None or value is None or other[end] is None:
        return 0.0
    return abs(other[end] - value)


def by_angle(ways: Record, published: Record, key: str, *, fraction: bool) -> go.Figure:
    """The paper's figure 3: the mean over norm thresholds at each angle, in every way.

    `key` is accuracy_mean or num_removed_mean; `published` the paper's Table 3.
    """
    y_title = "accuracy" if fraction else "units"
    figure = base(360, x_title="angle", y_title=y_title, legend=True)
    styles = (
        ("published", "program", "circle", BEFORE, "solid"),
        ("text", "text", "square", TEST, "dot"),
        ("least_squares", "least squares", "triangle-up", MUTED, "dash"),
    )
    form = ".1%" if fraction else ",.0f"
    values: list[float] = []
    angles: list[float] = []
    for way, name, symbol, colour, dash in styles:
        rows = [row for row in ways[way]["by_angle"] if row[key] is not None]
        values += [row[key] for row in rows]
        angles = angles or [row["low_deg"] for row in rows]
        figure.add_scatter(
            name=name,
            mode="lines+markers",
            x=[row["low_deg"] for row in rows],
            y=[row[key] for row in rows],
            line={"color": colour, "width": 2.2, "dash": dash},
            marker={"size": 9, "symbol": symbol, "color": colour},
            hovertemplate=f"{name}<br>%{{x}}° %{{y:{form}}}<extra></extra>",
        )
    theirs = published["mean_accuracy" if fraction else "mean_num_pruned"]
    theirs = [value / 100 if fraction else value for value in theirs]
    values += theirs
    figure.add_scatter(
        name="as published",
        mode="markers",
        x=published["angles_deg"],
        y=theirs,
        marker={"size": 12} | PUBLISHED,
        hovertemplate="published %{y}<extra></extra>",
    )
    ticks = sorted({*angles, *published["angles_deg"]})
    figure.update_xaxes(tickvals=ticks, ticktext=[degrees(a) for a in ticks], showgrid=False)
    if fraction:
        figure.update_yaxes(range=fraction_range(values), tickformat=".2~%")
    else:
        counts_axis(figure, "y", max(values), most=6)
    return figure


def apart(mixed: Sequence[Record], separate: Sequence[Record]) -> go.Figure:
    """Validation accuracy over frozen layers: films on both sides, and films kept apart."""
    figure = base(360, x_title="frozen layers", y_title="validation accuracy", legend=True)
    values: list[float] = []
    for name, rows, shift, mark in (
        ("films on both sides", mixed, -0.1, PUBLISHED),
        ("split by film", separate, 0.1, OURS),
    ):
        known = [r for r in rows if r["pretrained"] and r["val_accuracy_mean"] is not None]
        spans = [
            {
                "ours": row["val_accuracy_mean"],
                "low": row["val_accuracy_low"],
                "high": row["val_accuracy_high"],
            }
            for row in known
        ]
        _mean(figure, name, [row["depth"] + shift for row in known], spans, mark)
        values += [v for span in spans for v in span.values() if v is not None]
    depths = sorted({row["depth"] for row in mixed if row["pretrained"]})
    figure.update_xaxes(tickvals=depths, showgrid=False, tickfont={"color": INK})
    figure.update_yaxes(range=fraction_range(values), tickformat=".2~%")
    return figure


def unfiltered(grid: Record) -> go.Figure:
    """Accuracy over units kept, on a logarithmic scale, of four rules and the unpruned network."""
    rows = [row for row in grid["unfiltered"] if row["num_kept"] > 0]
    figure = base(380, x_title="units kept", y_title="test accuracy", legend=True)
    level = grid["unpruned"]["accuracy"]
    kept = [row["num_kept"] for row in rows]
    ways = (
        ("angles, refitted", "circle", BEFORE, "solid", lambda row: row["refitted"]["accuracy"]),
        ("random, refitted", "diamond", TEST, "dash", lambda row: row["random_refitted"]),
        ("angles, added", "square", AFTER, "dot", lambda row: row["added"]["accuracy"]),
        ("random, dropped", "x", MUTED, "dashdot", lambda row: row["random_dropped"]),
    )
    values = [level]
    for name, symbol, colour, dash, pick in ways:
        known = [(row["num_kept"], pick(row), row["low_deg"]) for row in rows]
        values += [value for _, value, _ in known]
        figure.add_scatter(
            name=name,
            mode="lines+markers",
            x=[x for x, _, _ in known],
            y=[value for _, value, _ in known],
            customdata=[degrees(low) for _, _, low in known],
            line={"color": colour, "width": 2.2, "dash": dash},
            marker={"size": 9, "symbol": symbol, "color": colour},
            hovertemplate=f"{name}<br>%{{x:,d}} kept at %{{customdata}}: %{{y:.1%}}<extra></extra>",
        )
    figure.add_scatter(
        name="unpruned",
        mode="lines",
        x=[min(kept, default=1), grid["num_units"]],
        y=[level, level],
        line={"color": MUTED, "width": 1.6, "dash": "dash"},
        hovertemplate=f"before pruning {percent(level)}<extra></extra>",
    )
    ticks = [mark * 10**power for power in range(6) for mark in (1, 3)]
    figure.update_xaxes(
        type="log", tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks], showgrid=False
    )
    figure.update_yaxes(range=fraction_range(values), tickformat=".2~%")
    return figure


def smallest(rows: Sequence[Record]) -> go.Figure:
    """Share of the parameters that is left, one bar per network."""
    figure = base(70 + 46 * len(rows), x_title="parameters kept")
    figure.add_bar(
        orientation="h",
        x=[row["fraction"] for row in rows],
        y=list(range(len(rows))),
        marker={"color": [MUTED, *[BEFORE] * (len(rows) - 1)]},
        text=[percent(row["fraction"]) for row in rows],
        textposition="auto",
        hovertemplate="%{text} of the parameters<extra></extra>",
    )
    rows_axis(figure, [row["what"] for row in rows], limit=24)
    figure.update_xaxes(tickformat=".2~%", range=[0, 1.02])
    return figure


def smallest_accuracy(rows: Sequence[Record]) -> go.Figure:
    """Accuracy of each network on validation, which chose how far to go, and on test."""
    figure = base(100 + 46 * len(rows), x_title="accuracy", legend=True)
    values: list[float] = []
    for side, name, shift, mark in (
        ("val", "validation", -0.13, PUBLISHED),
        ("test", "test", 0.13, OURS),
    ):
        found = [row[side] for row in rows]
        values += [one[key] for one in found for key in ("accuracy_low", "accuracy_high")]
        figure.add_scatter(
            name=name,
            mode="markers",
            x=[one["accuracy"] for one in found],
            y=[k + shift for k in range(len(rows))],
            error_x=error_bars(
                [one["accuracy"] for one in found],
                [one["accuracy_low"] for one in found],
                [one["accuracy_high"] for one in found],
                mark["color"],
                width=5,
            ),
            marker={"size": 10} | mark,
            hovertemplate=f"{name} %{{x:.1%}}<extra></extra>",
        )
    rows_axis(figure, [row["what"] for row in rows], limit=24)
    figure.update_xaxes(tickformat=".2~%", range=fraction_range(values))
    return figure
