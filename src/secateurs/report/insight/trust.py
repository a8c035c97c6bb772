"""The section about trust: calibration, "don't know", shifted images, rare classes and groups."""

from __future__ import annotations

import plotly.graph_objects as go

from secateurs.report.common.canvas import (
    AFTER,
    BEFORE,
    FAINT,
    Plot,
    base,
    error_bars,
    fraction_range,
    rows_axis,
)
from secateurs.report.common.formatting import integer, interval, percent, percent_interval, plural
from secateurs.report.common.panel import Panel, Table
from secateurs.report.common.sweep_rows import Record

COLOURS = {"before": BEFORE, "after": AFTER}
IMAGES_WITH = {
    "blur": "blurred images",
    "noise": "images with noise",
    "dark": "darkened images",
    "bright": "brightened images",
    "jpeg": "strongly compressed images",
    "crop": "cropped images",
}
SYMBOLS = {"before": "circle", "after": "diamond"}


def names_of(record: Record) -> dict[str, str]:
    """What the networks are called: before and after pruning, or the model where there is one."""
    if "after" in record["networks"]:
        return {"before": "before pruning", "after": "after pruning"}
    return {"before": "the model"}


def trust_panels(record: Record, *, source: str = "") -> list[Panel]:
    """The panels of what `trust_record` measured, in order of importance."""
    panels = [
        _corruptions(record, source),
        _coverage(record, source),
        _reliability(record, source),
    ]
    if len(record["rare"]) > 1:
        panels.append(_rare(record, source))
    if record["groups"] is not None:
        panels.append(_groups(record, source))
    return panels


def trust_words(record: Record) -> list[str]:
    """The findings as sentences."""
    sentences: list[str] = []
    for when, name in names_of(record).items():
        own = record["networks"][when]
        confidence, answered = own["confidence"], own["answered"]
        text = (
            f"{name[:1].upper()}{name[1:]}: expected calibration error "
            f"{percent(own['calibrated']['error'])} ({percent(own['uncalibrated']['error'])} "
            f"before temperature scaling, temperature {confidence['temperature']:.2f})"
        )
        if own["calibrated"]["error"] > own["uncalibrated"]["error"]:
            text += ", so the temperature of the validation images does not fit these"
        if confidence["threshold"] is None:
            text += f"; no threshold reaches {percent(confidence['target'], digits=0)} accuracy"
        elif confidence["threshold"] == 0:
            text += (
                f"; no threshold is needed for {percent(confidence['target'], digits=0)} accuracy "
                "on validation"
            )
        elif answered is None:
            text += "; the threshold answers none of these images"
        else:
            text += (
                f"; {percent(answered['coverage'], digits=0)} of the images have a confidence of "
                f"at least {percent(confidence['threshold'], digits=0)}, and "
                f"{percent_interval(answered['accuracy'], answered['low'], answered['high'])} of "
                "these are correct"
            )
            bound = confidence.get("bound")
            if bound is not None and bound < confidence["target"]:
                target = percent(confidence["target"], digits=0)
                text += (
                    f"; the validation images are too few to show {target} with confidence, they "
                    f"show {percent(bound)}"
                )
        sentences.append(f"{text}.")
    worst = worst_change(record)
    if worst is not None:
        name, found, significant = worst
        sentences.append(
            f"Pruning costs most on {name}: {_points(found)}"
            f"{'' if significant else ', not significant'}; on clean images "
            f"{_points(record['clean']['difference'])}."
        )
    return sentences


def worst_change(record: Record) -> tuple[str, Record, bool] | None:
    """Where pruning costs most accuracy: a corruption or the rarer classes; None for one network.

    The last value says whether the interval of the change excludes zero.
    """
    if "after" not in record["networks"]:
        return None
    rows = [(IMAGES_WITH[row["name"]], row["difference"]) for row in record["corruptions"]]
    rows += [
        (f"the {part['name']}", part["difference"])
        for part in record["rare"]
        if part["name"] == "rarer classes"
    ]
    name, found = min(rows, key=lambda row: row[1]["mean"])
    return name, found, found["high"] < 0 or found["low"] > 0


def _points(difference: Record) -> str:
    return (
        f"{100 * difference['mean']:+.1f} points "
        f"({100 * difference['low']:+.1f} to {100 * difference['high']:+.1f})"
    )


def _corruptions(record: Record, source: str) -> Panel:
    rows: list[Record] = [{"name": "clean", **record["clean"]}, *record["corruptions"]]
    names = [row["name"] for row in rows]
    figure = base(60 + 34 * len(rows), x_title="accuracy", legend=len(names_of(record)) > 1)
    shift = 0.12 if len(names_of(record)) > 1 else 0.0
    for place, (when, name) in enumerate(names_of(record).items()):
        values = [row[when]["accuracy"] for row in rows]
        bars = error_bars(
            values,
            [row[when]["low"] for row in rows],
            [row[when]["high"] for row in rows],
            COLOURS[when],
            width=0,
        )
        figure.add_scatter(
            x=values,
            y=[k + (shift if place else -shift) for k in range(len(rows))],
            mode="markers",
            name=name,
            marker={"color": COLOURS[when], "symbol": SYMBOLS[when], "size": 10},
            error_x=bars,
            customdata=[
                percent_interval(row[when]["accuracy"], row[when]["low"], row[when]["high"])
                for row in rows
            ],
            hovertemplate=f"{name}, %{{customdata}}<extra></extra>",
        )
    rows_axis(figure, names)
    bounds = [
        row[when][key] for row in rows for when in names_of(record) for key in ("low", "high")
    ]
    figure.update_xaxes(range=fraction_range(bounds), tickformat=".0%")
    caption = (
        "Accuracy on clean images and on the same images blurred, with noise, at half and at 1.6 "
        "times the light, as JPEG of quality 15, and cropped to 70% of the side; 95% intervals."
    )
    return Panel(
        "corruptions",
        "Shifted images",
        caption,
        (Plot(figure, "", f"Points with intervals, one row per corruption. {caption}"),),
        (_compared_table("Accuracy under corruptions", "images", rows, record),),
        source=source,
    )


def _compared_table(caption: str, first: str, rows: list[Record], record: Record) -> Table:
    names = names_of(record)
    columns = (first, *names.values(), *(("difference, points",) if len(names) > 1 else ()))
    lines: list[tuple[str, ...]] = []
    for row in rows:
        cells = [
            percent_interval(row[when]["accuracy"], row[when]["low"], row[when]["high"])
            for when in names
        ]
        if len(names) > 1:
            found = row["difference"]
            cells.append(
                f"{100 * found['mean']:+.1f} "
                f"({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"
            )
        lines.append((row["name"], *cells))
    return Table(caption, columns, tuple(lines))


def _coverage(record: Record, source: str) -> Panel:
    figure = base(300, x_title="share of the images answered", y_title="accuracy", legend=True)
    values: list[float] = []
    for when, name in names_of(record).items():
        own = record["networks"][when]
        curve = own["coverage"]
        values += [one["accuracy"] for one in curve if one["num_images"] >= 5]
        figure.add_scatter(
            x=[one["coverage"] for one in curve],
            y=[one["accuracy"] for one in curve],
            mode="lines",
            name=name,
            line={"color": COLOURS[when], "width": 2.5},
            customdata=[f"from {percent(one['threshold'], digits=0)}" for one in curve],
            hovertemplate="%{x:.0%} answered, %{y:.1%} correct, %{customdata}<extra></extra>",
        )
        answered = own["answered"]
        if answered is not None:
            figure.add_scatter(
                x=[answered["coverage"]],
                y=[answered["accuracy"]],
                mode="markers",
                name=f"{name}, threshold",
                showlegend=False,
                marker={"color": COLOURS[when], "symbol": SYMBOLS[when], "size": 12},
                hovertemplate="threshold: %{x:.0%} answered, %{y:.1%} correct<extra></extra>",
            )
    figure.update_xaxes(range=[0, 1.02], tickformat=".0%")
    figure.update_yaxes(range=fraction_range(values), tickformat=".0%")
    caption = (
        "Accuracy of the answers when the least confident images are not answered. The marker is "
        f"the threshold: by the validation images {percent(record['target'], digits=0)} of the "
        "answers are correct with 95% confidence, or as many as so few images can show."
    )
    rows: list[tuple[str, ...]] = []
    for when, name in names_of(record).items():
        own = record["networks"][when]
        confidence, answered = own["confidence"], own["answered"]
        cells = ("none", "", "")
        if confidence["threshold"] is not None and answered is not None:
            right = percent_interval(answered["accuracy"], answered["low"], answered["high"])
            cells = (percent(confidence["threshold"]), percent(answered["coverage"]), right)
        rows.append((name, f"{confidence['temperature']:.2f}", *cells))
    columns = ("network", "temperature", "threshold", "answered", "of them correct")
    table = Table("Answering only when confident", columns, tuple(rows))
    plot = Plot(figure, "", f"Lines of accuracy against coverage. {caption}")
    return Panel("coverage", "When it does not know", caption, (plot,), (table,), source=source)


def _reliability(record: Record, source: str) -> Panel:
    plots: list[Plot] = []
    tables: list[Table] = []
    kinds: tuple[tuple[str, str], ...] = (
        ("uncalibrated", "As trained"),
        ("calibrated", "With temperature scaling"),
    )
    for key, title in kinds:
        figure = _diagram(record, key)
        errors = ", ".join(
            f"{name} {percent(record['networks'][when][key]['error'])}"
            for when, name in names_of(record).items()
        )
        label = f"Reliability diagram, {title.lower()}: calibration error {errors}."
        plots.append(Plot(figure, title, label))
        tables.append(_bins_table(record, key, title))
    caption = (
        "Accuracy against confidence in ten bins; on the diagonal confidence equals accuracy. "
        "The temperature is fitted on validation images."
    )
    return Panel(
        "reliability", "Calibration", caption, tuple(plots), tuple(tables), wide=False,
        source=source,
    )  # fmt: skip


def _diagram(record: Record, key: str) -> go.Figure:
    figure = base(300, x_title="confidence", y_title="accuracy", legend=len(names_of(record)) > 1)
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": FAINT, "dash": "dot"},
        hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    for when, name in names_of(record).items():
        bins = [one for one in record["networks"][when][key]["bins"] if one["num_images"]]
        most = max(one["num_images"] for one in bins)
        figure.add_scatter(
            x=[one["confidence"] for one in bins],
            y=[one["accuracy"] for one in bins],
            mode="lines+markers",
            name=name,
            line={"color": COLOURS[when], "width": 1.5},
            marker={
                "color": COLOURS[when],
                "symbol": SYMBOLS[when],
                "size": [6 + 10 * (one["num_images"] / most) ** 0.5 for one in bins],
            },
            customdata=[plural(one["num_images"], "image") for one in bins],
            hovertemplate="confidence %{x:.0%}, accuracy %{y:.0%}, %{customdata}<extra></extra>",
        )
    figure.update_xaxes(range=[0, 1.04], tickformat=".0%")
    figure.update_yaxes(range=[-0.04, 1.06], tickformat=".0%")
    return figure


def _known(value: float | None) -> str:
    return "" if value is None else percent(value)


def _bins_table(record: Record, key: str, title: str) -> Table:
    names = names_of(record)
    rows: list[tuple[str, ...]] = []
    for place, first in enumerate(record["networks"]["before"][key]["bins"]):
        cells: list[str] = []
        for when in names:
            one = record["networks"][when][key]["bins"][place]
            cells += [
                integer(one["num_images"]),
                *map(_known, (one["confidence"], one["accuracy"])),
            ]
        rows.append((f"{interval(first['low'], first['high'])}%", *cells))
    parts = ("images", "confidence", "accuracy")
    columns = tuple(
        f"{part}, {name}" if len(names) > 1 else part for name in names.values() for part in parts
    )
    return Table(f"{title}: images by confidence", ("bin", *columns), tuple(rows))


def _rare(record: Record, source: str) -> Panel:
    rows = [
        {**part, "name": f"{part['name']} ({integer(part['num_images'])})"}
        for part in record["rare"]
    ]
    caption = (
        "Classes with fewer training images than the median class against the others, on the same "
        "networks."
    )
    table = _compared_table("Rarer and other classes", "images", rows, record)
    return Panel("rare", "Rare classes", caption, (), (table,), open_tables=True, source=source)


def _groups(record: Record, source: str) -> Panel:
    found, names = record["groups"], names_of(record)
    text = f"{plural(found['num_groups'], 'group')}"
    if len(names) > 1:
        text += (
            f": after pruning {integer(found['num_worse'])} have fewer correct images and "
            f"{integer(found['num_better'])} more"
        )
    wrong = ", ".join(
        integer(found["all_wrong"][when]) + (f" {name}" if len(names) > 1 else "")
        for when, name in names.items()
    )
    caption = f"{text}. Groups without a correct image: {wrong}."
    rows = [
        (
            row["group"],
            integer(row["num_images"]),
            *(integer(row[when]) for when in names),
        )
        for row in found["rows"]
    ]
    columns = ("group", "images", *(f"correct, {name}" for name in names.values()))
    title = "Groups, the largest loss first" if len(names) > 1 else "Groups, the worst first"
    table = Table(title, columns, tuple(rows))
    return Panel("groups", "Accuracy by group", caption, (), (table,), source=source)
