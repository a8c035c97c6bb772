"""The same sweep with two splits: by group, and at random with groups ignored."""

from __future__ import annotations

import plotly.graph_objects as go

from secateurs.report.common.canvas import (
    AFTER,
    BEFORE,
    SURFACE,
    base,
    categories_axis,
    error_bars,
    fraction_range,
)
from secateurs.report.common.formatting import integer, interval, percent, share
from secateurs.report.common.panel import Table
from secateurs.report.common.sweep_rows import Record, is_scratch

APART, MIXED = "split by group", "split at random"


def paired_rows(results: Record) -> list[tuple[str, Record, Record]]:
    """Rows of both sweeps with the same depth, as (name, by group, at random)."""
    other = {(row["pretrained"], row["depth"]): row for row in results["ungrouped"]["sweep"]}
    pairs = [
        (
            "scratch" if is_scratch(row) else str(row["depth"]),
            row,
            other.get((row["pretrained"], row["depth"])),
        )
        for row in sorted(results["sweep"], key=lambda row: (is_scratch(row), row["depth"]))
    ]
    return [
        (name, apart, mixed)
        for name, apart, mixed in pairs
        if mixed is not None
        and apart["val_accuracy_mean"] is not None
        and mixed["val_accuracy_mean"] is not None
    ]


def splits_figure(results: Record) -> go.Figure:
    """Mean validation accuracy over depth with both splits, with 95% intervals over runs."""
    rows = paired_rows(results)
    figure = base(360, x_title="frozen layers", y_title="validation accuracy", legend=True)
    values: list[float] = []
    apart, mixed = [row for _, row, _ in rows], [row for _, _, row in rows]
    looks = (
        (apart, APART, BEFORE, "circle", -0.09),
        (mixed, MIXED, AFTER, "diamond", 0.09),
    )
    for shown, name, colour, symbol, aside in looks:
        means = [row["val_accuracy_mean"] for row in shown]
        highs = [_or(row["val_accuracy_high"], row["val_accuracy_mean"]) for row in shown]
        lows = [_or(row["val_accuracy_low"], row["val_accuracy_mean"]) for row in shown]
        values += [*means, *highs, *lows]
        figure.add_scatter(
            name=name,
            mode="markers",
            x=[at + aside for at in range(len(rows))],
            y=means,
            marker={"size": 11, "symbol": symbol, "color": colour, "line": {"color": SURFACE}},
            error_y=error_bars(means, lows, highs, colour),
            hovertemplate=f"{name}<br>mean %{{y:.1%}}<extra></extra>",
        )
    categories_axis(figure, [name for name, _, _ in rows])
    figure.update_yaxes(range=fraction_range(values), tickformat=".2~%")
    return figure


def splits_caption(results: Record) -> str:
    """The difference between the splits, with its standard error."""
    rows = [(name, a, b) for name, a, b in paired_rows(results) if name != "scratch"]
    if not rows:
        return "No depth has a result with both splits."
    wanted = str((results["recommendation"] or {}).get("depth"))
    name, apart, mixed = next((row for row in rows if row[0] == wanted), rows[-1])
    gap = mixed["val_accuracy_mean"] - apart["val_accuracy_mean"]
    leak = results["ungrouped"]["split"]["leakage"]
    shared = (leak["same_group"] or 0) / max(leak["num_test"], 1)
    than = "higher" if gap >= 0 else "lower"
    text = (
        f"At depth {name} the validation accuracy is {100 * abs(gap):.1f} points {than} when "
        f"groups are ignored; {share(shared)} of the test images then share a group with a "
        "training image. "
    )
    counts = results["split"]["counts"]["val"], results["ungrouped"]["split"]["counts"]["val"]
    error = 100 * sum(0.25 / num for num in counts if num) ** 0.5
    return (
        f"{text}The two validation sets have different images ({integer(counts[0])} and "
        f"{integer(counts[1])}), so the standard error of the difference is up to {error:.1f} "
        "points. The intervals in the figure are over runs."
    )


def splits_table(results: Record) -> Table:
    """Mean and interval of each depth with both splits, and the difference."""
    rows = [
        (
            name,
            *(_cell(row) for row in (apart, mixed)),
            f"{100 * (mixed['val_accuracy_mean'] - apart['val_accuracy_mean']):+.1f} points",
        )
        for name, apart, mixed in paired_rows(results)
    ]
    columns = ("frozen layers", APART, MIXED, "difference")
    return Table("Validation accuracy with both splits", columns, tuple(rows))


def _cell(row: Record) -> str:
    bounds = interval(row["val_accuracy_low"], row["val_accuracy_high"])
    mean = percent(row["val_accuracy_mean"])
    return f"{mean} ({bounds} over {row['num_runs']} runs)" if bounds else f"{mean} (1 run)"


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
