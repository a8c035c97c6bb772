"""Figures of a search by a grid: heat maps of its cells, learning curves."""

from __future__ import annotations

import plotly.graph_objects as go

from secateurs.report.common.canvas import (
    AFTER,
    INK,
    base,
    epochs_axis,
    rows_axis,
)
from secateurs.report.common.formatting import percent
from secateurs.report.common.heat_map import add_heat_map
from secateurs.report.common.sweep_rows import Record
from secateurs.report.grid.figures import LEAST_SPAN, SYMBOLS, angle_colours
from secateurs.report.search.figures import detail
from secateurs.report.search.summary import typed

SMALL_TEXT = 6  # columns beyond which a cell's text has room for two digits only
WIDE_LOSS = 8  # times the smallest loss: beyond it the axis is logarithmic


def cell_map(search: Record, key: str) -> go.Figure:
    """Accuracy `key` of each cell, learning rates by epochs; the best cell framed."""
    lrs, epochs = search["settings"]["lr"], search["settings"]["epochs"]
    width, cells = len(epochs), search["cells"]
    rows = [cells[at : at + width] for at in range(0, len(cells), width)]
    # One scale for both maps: the colours of one can be compared with those of the other.
    known = [
        cell[name]
        for cell in cells
        for name in ("val_accuracy_mean", "last_epoch_accuracy_mean")
        if cell[name] is not None
    ]
    highest = max(known)
    lowest = min(min(known), highest - LEAST_SPAN)
    figure = base(96 + max(38 * len(lrs), 76), x_title="epochs", y_title="learning rate")
    add_heat_map(
        figure,
        [[cell[key] for cell in row] for row in rows],
        [[_cell_text(cell[key], width) for cell in row] for row in rows],
        detail=[[detail(cell, {"lr": cell["lr"]}) for cell in row] for row in rows],
        low=lowest,
        high=highest,
    )
    best = search["best"]
    if best["epochs"] in epochs:
        at = (epochs.index(best["epochs"]), lrs.index(best["parameters"]["lr"]))
        figure.add_shape(
            type="rect", x0=at[0] - 0.49, x1=at[0] + 0.49, y0=at[1] - 0.48, y1=at[1] + 0.48,
            line={"color": AFTER, "width": 3},
        )  # fmt: skip
    figure.update_xaxes(
        tickvals=list(range(width)),
        ticktext=[str(count) for count in epochs],
        range=[-0.52, width - 0.48],
        showgrid=False,
        tickfont={"color": INK},
    )
    rows_axis(figure, [typed(lr) for lr in lrs])
    return figure


def _cell_text(value: float | None, columns: int) -> str:
    if value is None:
        return "–"
    return percent(value) if columns <= SMALL_TEXT else f"{100 * value:.0f}"


def curves(search: Record, key: str) -> go.Figure:
    """`val_accuracy` or `val_loss` by epoch, one line per learning rate, markers at the cells."""
    is_accuracy = key == "val_accuracy"
    figure = base(360, x_title="epoch", y_title="accuracy" if is_accuracy else "loss", legend=True)
    epochs: list[int] = search["settings"]["epochs"]
    rows = search["trials"]
    form = ".1%" if is_accuracy else ".3f"
    for k, (row, (colour, _)) in enumerate(zip(rows, angle_colours(len(rows)), strict=True)):
        mean = _mean_curve(row, key)
        name = typed(row["parameters"]["lr"])
        shared = {"legendgroup": name, "hovertemplate": f"{name}, epoch %{{x}}<br>%{{y:{form}}}"}
        shared["hovertemplate"] += "<extra></extra>"
        marked = [epoch for epoch in epochs if epoch <= len(mean)]
        figure.add_scatter(
            x=list(range(1, len(mean) + 1)), y=mean, mode="lines", showlegend=False,
            line={"color": colour, "width": 2}, **shared,
        )  # fmt: skip
        figure.add_scatter(
            name=name,
            x=marked,
            y=[mean[epoch - 1] for epoch in marked],
            mode="lines+markers" if len(marked) == len(mean) else "markers",
            line={"color": colour, "width": 2},
            marker={"size": 9, "color": colour, "symbol": SYMBOLS[k % len(SYMBOLS)]},
            **shared,
        )
        for run in row["runs"] if len(row["runs"]) > 1 else ():
            figure.add_scatter(
                x=[entry["epoch"] + 1 for entry in run["curve"]],
                y=[entry[key] for entry in run["curve"]],
                mode="lines",
                line={"color": colour, "width": 1, "dash": "dot"},
                hovertemplate=f"{name}, run {run['run'] + 1}<br>%{{y:{form}}}<extra></extra>",
                showlegend=False,
                visible=False,
                meta="other",
            )
    epochs_axis(figure, max(len(run["curve"]) for row in rows for run in row["runs"]))
    values = [entry[key] for row in rows for run in row["runs"] for entry in run["curve"]]
    if not is_accuracy and max(values) > WIDE_LOSS * min(values) > 0:
        marks = [m * 10.0**power for power in range(-4, 7) for m in (1, 2, 5)]
        figure.update_yaxes(type="log", tickvals=marks, ticktext=[f"{mark:g}" for mark in marks])
    else:
        figure.update_yaxes(rangemode="tozero", tickformat=".2~%" if is_accuracy else "")
    return figure


def _mean_curve(row: Record, key: str) -> list[float]:
    """The mean over the runs that reached each epoch."""
    found: list[float] = []
    for at in range(max(len(run["curve"]) for run in row["runs"])):
        values = [run["curve"][at][key] for run in row["runs"] if len(run["curve"]) > at]
        found.append(sum(values) / len(values))
    return found
