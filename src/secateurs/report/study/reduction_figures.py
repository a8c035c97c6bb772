"""Figures of what pruning did: confusion, scores per class, angles, cost, latency."""

from __future__ import annotations

import itertools

import plotly.graph_objects as go

from secateurs.report.common.canvas import (
    AFTER,
    BEFORE,
    FAINT,
    INK,
    SHADE,
    SURFACE,
    base,
    counts_axis,
    error_bars,
    rows_axis,
    safe,
)
from secateurs.report.common.formatting import count, degrees, milliseconds, share, shorten, size
from secateurs.report.common.heat_map import add_heat_map
from secateurs.report.common.latency import latency_name
from secateurs.report.common.sweep_rows import Record
from secateurs.report.study.evaluations import Evaluations

# With more classes than this the counts do not fit into the cells of two matrices side by side.
MANY_CLASSES = 14
MEASURES = ("precision", "recall", "specificity")
# What is compared before and after, with its name and its format.
COSTS = (
    ("num_parameters", "parameters", count),
    ("macs", "multiply-accumulates", count),
    ("activation_bytes", "memory of an image", size),
    ("file_bytes", "model file", size),
    ("onnx_bytes", "ONNX file", size),
)


def confusion(evaluation: Record, classes: list[str]) -> go.Figure:
    """Counts per true class (row) and predicted class (column), coloured by share of the row."""
    counts: list[list[int]] = evaluation["confusion"]
    totals = [sum(row) for row in counts]
    shares = [
        [value / total if total else 0.0 for value in row]
        for row, total in zip(counts, totals, strict=True)
    ]
    figure = base(
        130 + max(38 * min(len(classes), 10), 18 * len(classes)),
        x_title="predicted",
        y_title="true",
    )
    detail = [
        [
            [safe(true), safe(answer), value, total]
            for answer, value in zip(classes, row, strict=True)
        ]
        for true, row, total in zip(classes, counts, totals, strict=True)
    ]
    few = len(classes) <= MANY_CLASSES
    add_heat_map(
        figure,
        shares,
        [[str(value) if value else "" for value in row] for row in counts] if few else [],
        detail=detail,
        low=0,
        high=1,
        hover="true %{customdata[0]}<br>predicted %{customdata[1]}"
        "<br>%{customdata[2]} of %{customdata[3]} (%{z:.0%})",
        text_size=13,
    )
    rows_axis(figure, classes, limit=12)
    tick = {"color": INK, "size": 13 if len(classes) <= MANY_CLASSES else 10}
    figure.update_yaxes(tickfont=tick)
    figure.update_xaxes(
        range=[-0.5, len(classes) - 0.5],
        tickvals=list(range(len(classes))),
        ticktext=[safe(shorten(name, 12)) for name in classes],
        showgrid=False,
        tickfont=tick,
        # Upright names need more room than a column has once there are many classes.
        tickangle=-90 if len(classes) > 8 else None,
        ticklabeloverflow="allow",
    )
    figure.update_layout(meta="matrix" if len(classes) <= MANY_CLASSES else "large matrix")
    return figure


def class_scores(found: Evaluations, measure: str) -> go.Figure:
    """One measure per class before (circle) and after pruning (diamond), one row a class.

    A class without a value (nothing to divide by) has no mark.
    """
    names = [score["class"] for score in found.before["per_class"]]
    figure = base(76 + 28 * len(names), legend=found.after is not None)
    first_name = "before" if found.after else found.side
    evaluations = [(first_name, BEFORE, "circle", 12, found.before)]
    if found.after:
        pairs = zip(found.before["per_class"], found.after["per_class"], strict=True)
        joined = [(first[measure], then[measure]) for first, then in pairs]
        figure.add_scatter(
            x=[value for first, then in joined for value in (first, then, None)],
            y=[at for index in range(len(joined)) for at in (index, index, None)],
            mode="lines",
            line={"color": FAINT, "width": 3},
            hoverinfo="skip",
            showlegend=False,
        )
        evaluations.append(("after", AFTER, "diamond-open", 11, found.after))
    for name, colour, symbol, points, evaluation in evaluations:
        figure.add_scatter(
            name=name,
            mode="markers",
            x=[score[measure] for score in evaluation["per_class"]],
            y=list(range(len(names))),
            customdata=[safe(label) for label in names],
            marker={
                "color": colour,
                "symbol": symbol,
                "size": points,
                "line": {"width": 2, "color": colour},
            },
            hovertemplate=f"%{{customdata}}<br>{measure} {name} %{{x:.1%}}<extra></extra>",
            cliponaxis=False,  # a mark at 100% is whole on narrow paper, too
        )
    figure.update_xaxes(range=[-0.03, 1.04], tickformat=".2~%", tickvals=[0, 0.5, 1])
    rows_axis(figure, names, limit=14)
    return figure


def angle_histogram(results: Record, index: int) -> go.Figure | None:
    """Angles between all pairs of units of one pruned layer, with the thresholds of the rule."""
    pruned = results["pruned"]
    layer = pruned["layers"][index]
    histogram = layer["angle_deg_histogram"]
    if not histogram or not histogram["counts"]:
        return None
    edges, counts = histogram["edges"], histogram["counts"]
    figure = base(320, x_title="angle between two units, degrees", y_title="pairs of units")
    pairs = list(itertools.pairwise(edges))
    figure.add_bar(
        x=[(low + high) / 2 for low, high in pairs],
        y=counts,
        width=[high - low for low, high in pairs],
        customdata=[f"{degrees(low)} to {degrees(high)}" for low, high in pairs],
        marker={"color": BEFORE, "line": {"color": SURFACE, "width": 1}},
        hovertemplate="%{customdata}<br>%{y:,} pairs<extra></extra>",
    )
    bounds = ((pruned["low_deg"], edges[0], "left"), (pruned["high_deg"], edges[-1], "right"))
    for threshold, end, side in bounds:
        if threshold is None:
            continue
        figure.add_vrect(
            x0=min(threshold, end), x1=max(threshold, end),
            fillcolor=SHADE, line_width=0, layer="below",
        )  # fmt: skip
        figure.add_vline(x=threshold, line={"color": AFTER, "width": 1.8, "dash": "dash"})
        figure.add_annotation(
            x=threshold, y=1, yref="paper", yanchor="top", showarrow=False,
            # On the side that has room: inwards from either end of the axis.
            xanchor=side, xshift=6 if side == "left" else -6,
            text=f"threshold {degrees(threshold)}", font={"size": 11.5, "color": INK},
        )  # fmt: skip
    figure.update_xaxes(
        showgrid=False,
        range=[edges[0], edges[-1]],
        ticksuffix="°",
        dtick=30,
        ticklabeloverflow="allow",
    )
    counts_axis(figure, "y", max(counts), most=6)
    # Room above the bars for the names of the thresholds.
    figure.update_yaxes(range=[0, 1.18 * max(counts) or 1])
    return figure


def cost_ratios(results: Record) -> go.Figure | None:
    """Each cost after pruning relative to before, with both values."""
    cost = results["cost"]
    if not cost or not cost["after"]:
        return None
    before, after = cost["before"], cost["after"]
    rows = [
        (name, text(before[key]), text(after[key]), after[key] / before[key])
        for key, name, text in COSTS
        if before[key] and after[key] is not None
    ]
    if not rows:
        return None
    ends = [max(1.0, ratio) for *_, ratio in rows]
    figure = base(60 + 50 * len(rows), x_title="relative to before pruning")
    places = list(range(len(rows)))
    figure.add_bar(
        orientation="h",
        x=[1.0] * len(rows),
        y=places,
        marker={"color": SHADE, "line": {"color": FAINT, "width": 1}},
        hoverinfo="skip",
    )
    figure.add_bar(
        orientation="h",
        x=[ratio for *_, ratio in rows],
        y=places,
        marker={"color": AFTER},
        customdata=[[name, first, then] for name, first, then, _ in rows],
        hovertemplate="%{customdata[0]}<br>%{customdata[1]} before, %{customdata[2]} after"
        "<extra></extra>",
    )
    figure.add_scatter(
        mode="text",
        x=ends,
        y=places,
        text=[f"  {share(ratio)}" for *_, ratio in rows],
        textposition="middle right",
        textfont={"color": INK},
        cliponaxis=False,
        hoverinfo="skip",
    )
    figure.update_layout(barmode="overlay", bargap=0.55)
    rows_axis(figure, [""] * len(rows))
    figure.update_yaxes(
        ticktext=[f"<b>{name}</b><br>{first} → {then}" for name, first, then, _ in rows]
    )
    # The shares stand right of the bars, in the margin.
    figure.update_layout(margin_r=64)
    figure.update_xaxes(range=[0, 1.01 * max(ends)], tickformat=".2~%", dtick=0.5, tickangle=0)
    return figure


def latency(rows: list[Record]) -> go.Figure:
    """Median time of one batch size, with the middle half as a bar, before and after pruning."""
    names = [latency_name(row) for row in rows]
    figure = base(110 + 84 * len(rows), x_title="milliseconds", legend=True)
    sides = (
        ("before", "before_ms", BEFORE, "circle", -0.14),
        ("after", "after_ms", AFTER, "diamond-open", 0.14),
    )
    ends = [0.0]
    for name, key, colour, symbol, shift in sides:
        known = [(at, row[key]) for at, row in enumerate(rows) if row[key]]
        known = [(at, times) for at, times in known if times["median"] is not None]
        if not known:
            continue
        upper = [_or(times["p75"], times["median"]) for _, times in known]
        lower = [_or(times["p25"], times["median"]) for _, times in known]
        medians = [times["median"] for _, times in known]
        ends += upper
        figure.add_scatter(
            name=name,
            mode="markers+text",
            x=medians,
            y=[at + shift for at, _ in known],
            text=[milliseconds(value) for value in medians],
            textposition="top center" if shift < 0 else "bottom center",
            textfont={"size": 11.5, "color": INK},
            customdata=[
                [safe(names[at]), milliseconds(low), milliseconds(high)]
                for (at, _), low, high in zip(known, lower, upper, strict=True)
            ],
            marker={
                "color": colour,
                "symbol": symbol,
                "size": 11,
                "line": {"width": 2, "color": colour},
            },
            error_x=error_bars(medians, lower, upper, colour),
            hovertemplate=f"%{{customdata[0]}}<br>median {name} %{{text}}, middle half "
            "%{customdata[1]} to %{customdata[2]}<extra></extra>",
        )
    rows_axis(figure, names, limit=24)
    figure.update_yaxes(range=[len(names) - 0.4, -0.6])
    figure.update_xaxes(range=[0, 1.2 * max(ends) or 1])
    figure.update_yaxes(ticktext=[safe(name).replace(", ", "<br>") for name in names])
    figure.update_traces(cliponaxis=False)
    return figure


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
