"""Figures of data and training: images per class, the depth sweep, learning curves."""

from __future__ import annotations

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
    TRAIN,
    VAL,
    base,
    categories_axis,
    counts_axis,
    epochs_axis,
    error_bars,
    fraction_range,
    rows_axis,
    safe,
)
from secateurs.report.common.formatting import percent, some
from secateurs.report.common.sweep_rows import (
    Record,
    depth_rows,
    is_scratch,
    random_frozen,
    scratch_row,
    trial_name,
)
from secateurs.report.study.evaluations import chosen_row, chosen_trial

RANDOM_LINE = {"color": BEFORE, "width": 3}
SIDES = (
    ("train", "training", TRAIN, ""),
    ("val", "validation", VAL, "/"),
    ("test", "test", TEST, "."),
)


def data_counts(results: Record) -> go.Figure:
    """Images per class on each side of the split, as stacked bars, one row per class."""
    classes: list[str] = results["data"]["classes"]
    figure = base(90 + 30 * len(classes), x_title="images", legend=True)
    for key, name, colour, pattern in SIDES:
        figure.add_bar(
            orientation="h",
            name=name,
            x=results["split"]["per_class"][key],
            y=list(range(len(classes))),
            customdata=[safe(label) for label in classes],
            marker={
                "color": colour,
                "line": {"color": SURFACE, "width": 1},
                "pattern": {
                    "shape": pattern,
                    "fgcolor": SURFACE,
                    "size": 7,
                    "solidity": 0.22,
                    "fillmode": "overlay",
                },
            },
            hovertemplate=f"%{{customdata}}: %{{x}} {name} images<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.35, legend_traceorder="normal")
    rows_axis(figure, classes)
    sides = results["split"]["per_class"]
    most = max((sum(counts) for counts in zip(*sides.values(), strict=True)), default=0)
    counts_axis(figure, "x", most, most=8)
    return figure


def depth_sweep(results: Record) -> go.Figure | None:
    """Validation accuracy over depth: runs, means, 95% intervals, baselines."""
    rows, scratch = depth_rows(results), scratch_row(results)
    if not results["sweep"]:
        return None
    places = {(row["depth"], True): float(at) for at, row in enumerate(rows)}
    labels = [str(row["depth"]) for row in rows]
    if scratch:
        places[(0, False)] = float(len(rows))
        labels.append("scratch")
    shown = [*rows, scratch] if scratch else rows

    def place(row: Record) -> float:
        return places[(0, False) if is_scratch(row) else (row["depth"], True)]

    figure = base(380, x_title="frozen layers", y_title="validation accuracy", legend=True)
    known = [row for row in shown if row["val_accuracy_mean"] is not None]
    bounded = [row for row in known if row["val_accuracy_low"] is not None]
    figure.add_scatter(
        name="95% interval",
        mode="markers",
        x=[place(row) for row in bounded],
        y=[row["val_accuracy_mean"] for row in bounded],
        marker={"size": 14, "symbol": "line-ns", "line": {"color": BEFORE, "width": 2}},
        error_y=error_bars(
            [row["val_accuracy_mean"] for row in bounded],
            [row["val_accuracy_low"] for row in bounded],
            [row["val_accuracy_high"] for row in bounded],
            BEFORE,
            width=7,
        ),
        hoverinfo="skip",
        visible=bool(bounded),
    )
    random = [row for row in known if random_frozen(results, row)]
    worse = [
        row
        for row in known
        if row not in random and not (row.get("to_best") or {}).get("indistinguishable", True)
    ]
    level = [row for row in known if row not in worse and row not in random]
    marks = {
        "mean": (level, {"symbol": "circle", "color": BEFORE, "line": {"color": SURFACE}}),
        "mean, significantly below the best": (worse, {"symbol": "square-open", "color": BEFORE}),
        "mean, random layers frozen": (random, {"symbol": "x-thin", "line": RANDOM_LINE}),
    }
    for name, (group, mark) in marks.items():
        figure.add_scatter(
            name=name,
            mode="markers",
            x=[place(row) for row in group],
            y=[row["val_accuracy_mean"] for row in group],
            customdata=[[row["num_runs"], _random_note(results, row)] for row in group],
            marker={"size": 11} | mark,
            hovertemplate="mean %{y:.1%}<br>runs: %{customdata[0]}%{customdata[1]}<extra></extra>",
            visible=bool(group),
        )
    runs = [
        trial
        for trial in results["trials"]
        if trial["val_accuracy"] is not None
        and ((0, False) if is_scratch(trial) else (trial["depth"], True)) in places
    ]
    figure.add_scatter(
        name="single run",
        mode="markers",
        x=[place(trial) + 0.14 for trial in runs],
        y=[trial["val_accuracy"] for trial in runs],
        customdata=[trial_name(trial) for trial in runs],
        marker={"size": 8, "symbol": "circle-open", "color": INK, "line": {"width": 1.4}},
        hovertemplate="%{customdata}<br>%{y:.1%}<extra></extra>",
    )
    chosen = chosen_trial(results)
    row = chosen_row(results)
    if chosen and row and chosen["val_accuracy"] is not None:
        figure.add_scatter(
            name="chosen",
            mode="markers",
            x=[place(row) + 0.14],
            y=[chosen["val_accuracy"]],
            marker={"size": 17, "symbol": "diamond-open", "color": AFTER, "line": {"width": 2.4}},
            hovertemplate=f"chosen: {trial_name(chosen)}<br>%{{y:.1%}}<extra></extra>",
        )
    counts = results["split"]["per_class"]["val"]
    levels = [max(counts) / sum(counts)] if sum(counts) else []
    mean = scratch["val_accuracy_mean"] if scratch and rows else None
    if mean is not None:
        below = bool(levels) and mean < levels[0]
        _level(figure, mean, f"from scratch {percent(mean)}", dash="dash", below=below)
    if levels:
        # The name of the lower of the two lines is below it: they may lie close together.
        below = mean is not None and levels[0] <= mean
        text = f"majority-class baseline {percent(levels[0])}"
        _level(figure, levels[0], text, dash="dot", below=below)
    categories_axis(figure, labels)
    keys = ("val_accuracy_low", "val_accuracy_mean", "val_accuracy_high")
    values = [row[key] for row in known for key in keys if row[key] is not None]
    values += [trial["val_accuracy"] for trial in runs] + levels
    figure.update_yaxes(range=fraction_range(values), tickformat=".2~%")
    return figure


def _random_note(results: Record, row: Record) -> str:
    names = random_frozen(results, row)
    return f"<br>freezes {safe(some(names))} with random weights" if names else ""


def _level(figure: go.Figure, y: float, text: str, *, dash: str, below: bool) -> None:
    """A horizontal line over the whole width with its name at the left end."""
    figure.add_hline(y=y, line={"color": MUTED, "width": 1.3, "dash": dash})
    figure.add_annotation(
        x=0, xref="paper", xanchor="left", y=y, yanchor="top" if below else "bottom",
        text=text, showarrow=False, font={"size": 11.5, "color": MUTED},
    )  # fmt: skip


def learning_curve(results: Record, measure: str) -> go.Figure | None:
    """Training and validation `measure` ("loss" or "accuracy") of the chosen trial by epoch.

    The validation curves of the other trials are hidden traces with the meta value "other"; a check
    box on the page shows them.
    """
    trial = chosen_trial(results)
    if trial is None or not trial["curve"]:
        return None
    figure = base(320, x_title="epoch", y_title=measure, legend=True)
    form = ".1%" if measure == "accuracy" else ".3f"
    for other in results["trials"]:
        if other["key"] != trial["key"] and other["curve"]:
            figure.add_scatter(
                **_line(other["curve"], f"val_{measure}"),
                name=trial_name(other),
                mode="lines",
                line={"color": FAINT, "width": 1.3},
                hovertemplate=f"{trial_name(other)}: %{{y:{form}}}<extra></extra>",
                showlegend=False,
                visible=False,
                meta="other",
            )
    for side, name, colour, dash, symbol in (
        ("train", "training", MUTED, "dash", "circle-open"),
        ("val", "validation", BEFORE, "solid", "circle"),
    ):
        figure.add_scatter(
            **_line(trial["curve"], f"{side}_{measure}"),
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 2.2, "dash": dash},
            marker={"size": 5, "symbol": symbol, "color": colour},
            hovertemplate=f"epoch %{{x}}<br>{name} {measure} %{{y:{form}}}<extra></extra>",
        )
    best = next((row for row in trial["curve"] if row["epoch"] == trial["best_epoch"]), None)
    if best and best[f"val_{measure}"] is not None:
        figure.add_vline(x=best["epoch"] + 1, line={"color": AFTER, "width": 1.3, "dash": "dot"})
        figure.add_scatter(
            name="best epoch",
            mode="markers",
            x=[best["epoch"] + 1],
            y=[best[f"val_{measure}"]],
            marker={"size": 13, "symbol": "diamond-open", "color": AFTER, "line": {"width": 2.2}},
            hovertemplate=f"best epoch, %{{x}}<br>%{{y:{form}}}<extra></extra>",
        )
    if measure == "accuracy":
        figure.update_yaxes(tickformat=".2~%", rangemode="tozero")
    else:
        figure.update_yaxes(rangemode="tozero")
    epochs_axis(figure, max(row["epoch"] for row in trial["curve"]) + 1)
    return figure


def _line(curve: list[Record], key: str) -> dict[str, Any]:
    """Epochs counted from one, as people count them, against one column of the curve."""
    return {"x": [row["epoch"] + 1 for row in curve], "y": [row[key] for row in curve]}
