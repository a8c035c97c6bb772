"""Figures of a pruned network: units by group, predicted loss against size, recovery."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from secateurs.report.common.canvas import (
    AFTER,
    BEFORE,
    FAINT,
    MUTED,
    SURFACE,
    TRAIN,
    VAL,
    base,
    epochs_axis,
    fraction_range,
    rows_axis,
    safe,
)
from secateurs.report.common.formatting import integer, percent

Record = dict[str, Any]
MOST_ROWS = 60


def groups(record: Record) -> go.Figure:
    """Share of the units kept in each group, in the order of the layers."""
    rows = record["groups"][:MOST_ROWS]
    figure = base(max(130, 70 + 22 * len(rows)), x_title="share of the units kept")
    parts = [row["num_kept"] / row["num_units"] for row in rows]
    figure.add_bar(
        orientation="h",
        x=parts,
        y=list(range(len(rows))),
        marker={"color": AFTER},
        customdata=[
            f"{safe(row['name'])}<br>{integer(row['num_kept'])} of {integer(row['num_units'])} kept"
            for row in rows
        ],
        hovertemplate="%{customdata}<extra></extra>",
        text=[f"{row['num_kept']} of {row['num_units']}" for row in rows],
        textposition="outside",
        cliponaxis=False,
    )
    rows_axis(figure, [row["name"] for row in rows], limit=28)
    figure.update_xaxes(range=[0, 1.18], tickformat=".2~%", tickvals=[0, 0.25, 0.5, 0.75, 1])
    return figure


def trajectory(record: Record) -> go.Figure:
    """Predicted loss against size, every step of the trajectory; the chosen step is marked."""
    steps = record["trajectory"]
    figure = base(
        340, x_title="size relative to the unpruned network", y_title="predicted loss", legend=True
    )
    named = (("macs", "multiply-accumulates", BEFORE), ("params", "parameters", MUTED))
    for key, name, colour in named:
        figure.add_scatter(
            name=name,
            mode="lines",
            x=[step[key] for step in steps],
            y=[step["loss"] for step in steps],
            line={"color": colour, "width": 2.2, "dash": "solid" if key == "macs" else "dot"},
            hovertemplate=f"%{{x:.1%}} of the {name}<br>loss %{{y:.3g}}<extra></extra>",
        )
        figure.add_scatter(
            name="chosen" if key == "macs" else "",
            showlegend=key == "macs",
            mode="markers",
            x=[record["chosen"][key]],
            y=[record["chosen"]["loss"]],
            marker={
                "size": 12,
                "symbol": "diamond",
                "color": AFTER,
                "line": {"color": SURFACE, "width": 1},
            },
            hovertemplate=f"chosen: %{{x:.1%}} of the {name}<extra></extra>",
        )
    figure.update_xaxes(tickformat=".2~%", range=[1.02, 0], showgrid=False)
    figure.update_yaxes(rangemode="tozero")
    return figure


def recovery(record: Record) -> go.Figure:
    """Accuracy by epoch of recovery, with those of the unpruned and the pruned network."""
    curve = record["recovery"]["curve"]
    figure = base(340, x_title="epoch of recovery", y_title="accuracy", legend=True)
    epochs = [row["epoch"] + 1 for row in curve]
    for key, name, colour, dash in (
        ("train_accuracy", "training", TRAIN, "dot"),
        ("val_accuracy", "validation", VAL, "solid"),
    ):
        figure.add_scatter(
            name=name,
            mode="lines+markers",
            x=epochs,
            y=[row[key] for row in curve],
            line={"color": colour, "width": 2, "dash": dash},
            marker={"size": 6},
            hovertemplate=f"epoch %{{x}}<br>{name} %{{y:.1%}}<extra></extra>",
        )
    for name, level, colour in (
        ("unpruned", record["before"]["accuracy"], MUTED),
        ("pruned, before recovery", record["cut"]["accuracy"], FAINT),
    ):
        figure.add_scatter(
            name=name,
            mode="lines",
            x=[epochs[0], epochs[-1]],
            y=[level, level],
            line={"color": colour, "width": 1.6, "dash": "dash"},
            hovertemplate=f"{name}, validation {percent(level)}<extra></extra>",
        )
    epochs_axis(figure, epochs[-1])
    values = [row[key] for row in curve for key in ("train_accuracy", "val_accuracy")]
    values += [record["before"]["accuracy"], record["cut"]["accuracy"]]
    figure.update_yaxes(
        range=fraction_range([value for value in values if value is not None]), tickformat=".2~%"
    )
    return figure
