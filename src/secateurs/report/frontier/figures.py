"""The figures of a study over several networks: the frontier, and what each depth knows."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go

from secateurs.report.common.canvas import (
    AFTER,
    BEFORE,
    FAINT,
    INK,
    MUTED,
    SURFACE,
    TEST,
    VAL,
    base,
    error_bars,
    fraction_range,
    safe,
)
from secateurs.report.common.formatting import percent_interval
from secateurs.report.frontier.int8 import int8_rows

Record = dict[str, Any]
KINDS = (
    ("probe", "frozen, head only", "square-open", MUTED),
    ("fine-tuned", "fine-tuned", "circle", BEFORE),
    ("pruned", "fine-tuned and pruned", "diamond", VAL),
)
COST = {"mb": "weights, MB", "ms": "time, ms"}


def made_points(results: Record) -> list[Record]:
    """The points that have a network, with their size in MB and their time in ms."""
    times = results["latency"]["ms"]
    return [
        row | {"mb": row["cost"]["file_bytes"] / 1e6, "ms": times[row["name"]]["median"]}
        for row in results["points"]
        if not row.get("reason")
    ]


def frontier(results: Record, cost: str) -> go.Figure:
    """Validation accuracy with 95% intervals against `cost`, "mb" or "ms", on a log scale."""
    points = made_points(results)
    limit = results["options"][f"max_{cost}"]
    figure = base(400, x_title=COST[cost], y_title="validation accuracy", legend=True)
    _paths(figure, points, cost)
    for kind, name, symbol, colour in KINDS:
        rows = [row for row in points if row["kind"] == kind]
        figure.add_scatter(
            name=name,
            mode="markers",
            x=[row[cost] for row in rows],
            y=[row["val"]["accuracy"] for row in rows],
            customdata=[[safe(row["name"]), _words(row)] for row in rows],
            marker={
                "size": 11,
                "symbol": symbol,
                "color": colour,
                "line": {"color": SURFACE if "open" not in symbol else colour, "width": 1.4},
            },
            error_y=error_bars(
                [row["val"]["accuracy"] for row in rows],
                [row["val"]["accuracy_low"] for row in rows],
                [row["val"]["accuracy_high"] for row in rows],
                colour,
                width=4,
            ),
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}<extra></extra>",
            cliponaxis=False,
            visible=bool(rows),
        )
    if cost == "mb":  # their time is that of another runtime
        _int8_marks(figure, results)
    chosen = next(row for row in points if row["name"] == results["answer"]["name"])
    figure.add_scatter(
        name="recommended",
        mode="markers",
        x=[chosen[cost]],
        y=[chosen["val"]["accuracy"]],
        marker={"size": 21, "symbol": "circle-open", "color": AFTER, "line": {"width": 3}},
        cliponaxis=False,
        hoverinfo="skip",
    )
    majority = chosen["val"].get("majority_accuracy")
    shown = [row["val"]["accuracy"] for row in points]
    bounds: list[float] = [
        row["val"][key] for row in points for key in ("accuracy_low", "accuracy_high")
    ]
    low: float = min(bounds if majority is None else [*bounds, majority])
    figure.update_yaxes(tickformat=".0%", range=fraction_range([low, *bounds, *shown]))
    if majority is not None:
        figure.add_hline(
            y=majority,
            line={"color": MUTED, "width": 1, "dash": "dot"},
            annotation={
                "text": "largest class",
                "font": {"color": MUTED, "size": 12},
                "xanchor": "right",
            },
        )
    if limit is not None:
        figure.add_vline(x=limit, line={"color": TEST, "width": 1.5, "dash": "dash"})
    small = [row["num_bytes"] / 1e6 for row in int8_rows(results)] if cost == "mb" else []
    given = [] if limit is None else [limit]
    _log_axis(figure, [row[cost] for row in points] + small + given)
    return figure


def _paths(figure: go.Figure, points: list[Record], cost: str) -> None:
    """A line through the sizes of each fine-tuned network."""
    for backbone in dict.fromkeys(row["backbone"] for row in points):
        rows = [row for row in points if row["backbone"] == backbone and row["kind"] != "probe"]
        rows.sort(key=lambda row: row[cost])
        if len(rows) > 1:
            figure.add_scatter(
                mode="lines",
                x=[row[cost] for row in rows],
                y=[row["val"]["accuracy"] for row in rows],
                line={"color": FAINT, "width": 2},
                hoverinfo="skip",
                showlegend=False,
            )


def _int8_marks(figure: go.Figure, results: Record) -> None:
    """The int8 files, where there are any."""
    rows = int8_rows(results)
    if not rows:
        return
    vals = [row["val"] for row in rows]
    figure.add_scatter(
        name="int8 file",
        mode="markers",
        x=[row["num_bytes"] / 1e6 for row in rows],
        y=[val["accuracy"] for val in vals],
        customdata=[
            [
                safe(row["name"]),
                percent_interval(val["accuracy"], val["accuracy_low"], val["accuracy_high"])
                + f", {row['num_bytes'] / 1e6:.1f} MB",
            ]
            for row, val in zip(rows, vals, strict=True)
        ],
        marker={"size": 12, "symbol": "star", "color": TEST},
        error_y=error_bars(
            [val["accuracy"] for val in vals],
            [val["accuracy_low"] for val in vals],
            [val["accuracy_high"] for val in vals],
            TEST,
            width=4,
        ),
        hovertemplate="%{customdata[0]}<br>%{customdata[1]}<extra></extra>",
        cliponaxis=False,
    )


def _words(row: Record) -> str:
    val = row["val"]
    accuracy = percent_interval(val["accuracy"], val["accuracy_low"], val["accuracy_high"])
    return f"{accuracy}, {row['mb']:.1f} MB, {row['ms']:.1f} ms"


def _log_axis(figure: go.Figure, values: list[float]) -> None:
    """A logarithmic x axis with plain numbers at 1, 2 and 5 times powers of ten."""
    low, high = min(values) / 1.25, max(values) * 1.25
    ticks = [m * 10.0**e for e in range(-4, 7) for m in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    figure.update_xaxes(
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickvals=ticks,
        ticktext=[f"{tick:g}" for tick in ticks],
        tickfont={"color": INK},
    )
