"""The panel of named layers: the sizes tried in the search within the allowed loss."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from secateurs.report.common.canvas import (
    AFTER,
    MUTED,
    SURFACE,
    VAL,
    Plot,
    base,
    counts_axis,
    fraction_range,
)
from secateurs.report.common.formatting import integer, percent, plural
from secateurs.report.common.panel import Panel, Table

Record = dict[str, Any]
_KEYS = {"low_deg": "angle in degrees", "keep_fraction": "fraction of the units"}


def search_panels(record: Record) -> list[Panel]:
    """Validation accuracy by units kept, for each size tried; nothing without a search."""
    tried = record["tried"]
    if not tried:
        return []
    key = next(name for name in _KEYS if name in tried[0])
    kept = sum(row["num_kept"] for row in record["groups"])
    caption = (
        f"{plural(len(tried), 'size')} {'was' if len(tried) == 1 else 'were'} tried on validation "
        f"images. The smallest one that costs at most {record['budget']['max_loss']:g} percentage "
        f"points was chosen: {integer(kept)} units."
    )
    table = Table(
        "Sizes tried",
        (_KEYS[key], "units kept", "validation accuracy"),
        tuple(
            (f"{row[key]:.4g}", integer(row["num_kept"]), percent(row["val_accuracy"]))
            for row in tried
        ),
    )
    plot = Plot(_figure(record, kept), "", f"Accuracy by number of units. {caption}")
    return [Panel("search", "Size against validation accuracy", caption, (plot,), (table,))]


def _figure(record: Record, kept: int) -> go.Figure:
    tried = sorted(record["tried"], key=lambda row: row["num_kept"])
    figure = base(340, x_title="units kept", y_title="validation accuracy", legend=True)
    figure.add_scatter(
        name="tried",
        mode="lines+markers",
        x=[row["num_kept"] for row in tried],
        y=[row["val_accuracy"] for row in tried],
        line={"color": VAL, "width": 2},
        marker={"size": 6},
        hovertemplate="%{x} units<br>%{y:.1%}<extra></extra>",
    )
    figure.add_scatter(
        name="chosen",
        mode="markers",
        x=[kept],
        y=[record["cut"]["accuracy"]],
        marker={
            "size": 12,
            "symbol": "diamond",
            "color": AFTER,
            "line": {"color": SURFACE, "width": 1},
        },
        hovertemplate="chosen: %{x} units<br>%{y:.1%}<extra></extra>",
    )
    ends = [min(kept, tried[0]["num_kept"]), max(kept, tried[-1]["num_kept"])]
    figure.add_scatter(
        name="unpruned",
        mode="lines",
        x=ends,
        y=[record["before"]["accuracy"]] * 2,
        line={"color": MUTED, "width": 1.6, "dash": "dash"},
        hovertemplate="unpruned %{y:.1%}<extra></extra>",
    )
    values = [row["val_accuracy"] for row in tried]
    values += [record["cut"]["accuracy"], record["before"]["accuracy"]]
    figure.update_yaxes(range=fraction_range(values), tickformat=".2~%")
    counts_axis(figure, "x", ends[1])
    figure.update_xaxes(showgrid=False)
    return figure
