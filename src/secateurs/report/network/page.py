"""The page of a network pruned as a whole: the answer first, then what was cut and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.report.common.canvas import Plot
from secateurs.report.common.evaluation import FEW_IMAGES, balanced, majority
from secateurs.report.common.formatting import (
    count,
    integer,
    listed,
    milliseconds,
    percent,
    percent_interval,
    plural,
    seconds,
    size,
)
from secateurs.report.common.latency import speed_warnings
from secateurs.report.common.panel import Panel, Table
from secateurs.report.common.render import render_page, write_page
from secateurs.report.network import figures

Record = dict[str, Any]
NAME = "pruning.html"


def write_network_page(record: Record, directory: Path) -> Path:
    """Write the page of a pruning (what `pruning.json` holds) to `directory`/pruning.html.

    The file is written whole or not at all and loads nothing from anywhere. Raises InputError when
    it cannot be written.
    """
    return write_page(directory / NAME, render_network(record))


def render_network(record: Record) -> str:
    """The page as text."""
    panels = [_groups(record), _way(record)]
    if _recovered(record):
        panels.append(_recovery(record))
    return render_page(
        "network.html.j2",
        panels,
        {
            "record": record,
            "headline": headline(record),
            "tiles": _tiles(record),
            "panels": panels,
            "cost": _cost_table(record),
            "cautions": cautions(record),
        },
    )


def headline(record: Record) -> str:
    """What came, in a sentence."""
    before, after = record["cost"]["before"], record["cost"]["after"]
    times = before["num_parameters"] / after["num_parameters"]
    change = 100 * (record["after"]["accuracy"] - record["before"]["accuracy"])
    lost = (
        "with the same validation accuracy"
        if abs(change) < 0.05
        else f"{abs(change):.1f} points of validation accuracy {'up' if change > 0 else 'down'}"
    )
    return f"{times:.3g} times fewer parameters, {lost}."


def cautions(record: Record) -> list[str]:
    """What a reader has to know before relying on the numbers."""
    found = [_chosen_on_validation(record)]
    outcome = record.get("outcome")  # pruned by an older version: not compared
    if outcome is not None and outcome["alarm"]:
        found.append(
            f"The cut changed the outputs on validation images by {outcome['measured']:.3g} (mean "
            f"squared; {percent(outcome['relative'])} of their variance), "
            f"{outcome['predicted']:.3g} was predicted. Cut less, or recover for more epochs."
        )
    num_images = record["after"].get("num_images")
    if num_images is not None and num_images < FEW_IMAGES:
        found.append(
            f"Only {plural(num_images, 'validation image')}: the accuracy could be anything "
            f"from {percent(record['after']['accuracy_low'], digits=0)} to "
            f"{percent(record['after']['accuracy_high'], digits=0)}."
        )
    if record["note"]:
        found.append(
            f"Only chains of layers were looked at: {record['note']}. Other units were left alone."
        )
    return found + speed_warnings(record["cost"]["latency"])


def _chosen_on_validation(record: Record) -> str:
    """What the validation images decided, and so flatter."""
    chosen: list[str] = []
    if record["budget"]["max_loss"] is not None:
        chosen.append("the size of the cut")
    if _recovered(record):
        chosen.append("the epoch of the recovery")
    starts = record["starts"]
    if len(starts) > 1:
        chosen.append(
            f"one of {len(starts)} starts of the merging, which reached {percent(min(starts))} to "
            f"{percent(max(starts))} before any recovery"
        )
    outcome = record.get("outcome")
    if outcome is not None and len(outcome["norms_tried"]) > 1:
        chosen.append("the statistics of batch norm, without their labels")
    if not chosen:
        return (
            "Validation images had no part in this cut, but chose the unpruned network, and may "
            "flatter it; the test images were not looked at."
        )
    return (
        f"Validation images chose {listed(chosen)}. They flatter what they chose; the test "
        "images were not looked at: secateurs evaluate does."
    )


def _baseline(record: Record) -> str:
    if "confusion" not in record["after"]:
        return ""
    return (
        f"; balanced {percent(balanced(record['after']))}; always answering the largest class "
        f"gives {percent(majority(record['after']))}"
    )


def _recovered(record: Record) -> bool:
    return record["recovery"] is not None and bool(record["recovery"]["curve"])


def _tiles(record: Record) -> list[tuple[str, str, str]]:
    before, after = record["cost"]["before"], record["cost"]["after"]
    after_cut = ""
    if _recovered(record):
        after_cut = f", {percent(record['cut']['accuracy'])} just after the cut"
    tiles = [
        (
            "Parameters",
            count(after["num_parameters"]),
            f"of {count(before['num_parameters'])}",
        ),
        (
            "Multiply-accumulates",
            count(after["macs"]),
            f"of {count(before['macs'])}",
        ),
        (
            "Validation accuracy",
            percent(record["after"]["accuracy"]),
            f"{percent(record['before']['accuracy'])} unpruned{after_cut}{_baseline(record)}",
        ),
    ]
    tiles += [
        (
            f"Latency, batch {row['batch']}",
            milliseconds(row["after_ms"]["median"]),
            f"{milliseconds(row['before_ms']['median'])} unpruned, on {row['device']}",
        )
        for row in record["cost"]["latency"]
    ]
    return tiles


def _groups(record: Record) -> Panel:
    rows = record["groups"]
    cut = sum(row["num_kept"] < row["num_units"] for row in rows)
    caption = (
        f"{cut} of {len(rows)} groups were cut; units were taken where they cost the least loss "
        "for what they save."
    )
    table = Table(
        "Groups",
        ("group", "units", "kept", "weights", "loss foreseen", "layers"),
        tuple(
            (
                row["name"],
                integer(row["num_units"]),
                integer(row["num_kept"]),
                row["how"].replace("_", " "),
                f"{row['loss']:.3g}",
                ", ".join(layer["path"] for layer in row["layers"]),
            )
            for row in rows
        ),
    )
    left = tuple((one["name"], one["reason"]) for one in record["not_pruned"])
    tables = (table, Table("Left whole", ("group", "why"), left)) if left else (table,)
    plot = Plot(figures.groups(record), "", f"Bars, one a group. {caption}")
    return Panel("groups", "What stays of every group", caption, (plot,), tables)


def _way(record: Record) -> Panel:
    chosen = record["chosen"]
    caption = (
        f"Cut to {percent(chosen['macs'])} of the multiply-accumulates and "
        f"{percent(chosen['params'])} of the parameters; the loss is the mean squared change of "
        "the answers, foreseen from the training images before any recovery."
    )
    thinned = record["trajectory"][:: max(1, len(record["trajectory"]) // 40)]
    table = Table(
        "Size against predicted loss",
        ("multiply-accumulates", "parameters", "loss foreseen"),
        tuple(
            (percent(step["macs"]), percent(step["params"]), f"{step['loss']:.3g}")
            for step in thinned
        ),
    )
    plot = Plot(figures.trajectory(record), "", f"Line chart of loss against size. {caption}")
    tables = (*_outcome_table(record), table)
    return Panel("trajectory", "Size against predicted loss", caption, (plot,), tables)


def _recovery(record: Record) -> Panel:
    curve = record["recovery"]["curve"]
    best = record["recovery"]["best_epoch"] + 1
    caption = (
        f"{len(curve)} epochs in {seconds(record['recovery']['seconds'])}, from a learning "
        f"rate of {record['recovery']['lr']:g} down; epoch {best} is the best on validation, and "
        "shipped."
    )
    table = Table(
        "Recovery",
        ("epoch", "training loss", "training accuracy", "validation accuracy"),
        tuple(
            (
                str(row["epoch"] + 1),
                f"{row['train_loss']:.3f}",
                percent(row["train_accuracy"]),
                percent(row["val_accuracy"]),
            )
            for row in curve
        ),
    )
    plot = Plot(figures.recovery(record), "", f"Learning curve. {caption}")
    return Panel("recovery", "Recovery", caption, (plot,), (table,))


def _outcome_table(record: Record) -> list[Table]:
    """What was tried after the cut, and how far each moved the outputs."""
    outcome = record.get("outcome")
    if outcome is None:
        return []
    rows = [("predicted from the training images", f"{outcome['predicted']:.3g}", "")]
    for key, title in (("norms_tried", "batch norm statistics"), ("tried", "weights")):
        taken = outcome["norms" if key == "norms_tried" else "weights"]
        if len(outcome[key]) > 1 or key == "tried":
            rows += [
                (f"{title} {name}", f"{change:.3g}", "taken" if name == taken else "")
                for name, change in outcome[key].items()
            ]
    head = ("", "mean squared change of the outputs", "")
    return [Table("Change of the outputs by the cut, on validation images", head, tuple(rows))]


def _cost_table(record: Record) -> Table:
    before, after = record["cost"]["before"], record["cost"]["after"]
    rows = [
        ("parameters", integer(before["num_parameters"]), integer(after["num_parameters"])),
        ("multiply-accumulates", integer(before["macs"]), integer(after["macs"])),
        (
            "activation memory of an image, at its peak",
            size(before["activation_bytes"]),
            size(after["activation_bytes"]),
        ),
        *(
            (
                f"{row['runtime']}, {row['device']}, batch {row['batch']}",
                milliseconds(row["before_ms"]["median"]),
                milliseconds(row["after_ms"]["median"]),
            )
            for row in record["cost"]["latency"]
        ),
        *(
            (
                f"validation accuracy{', just after the cut' if key == 'cut' else ''}",
                percent_interval(
                    record["before"]["accuracy"],
                    record["before"]["accuracy_low"],
                    record["before"]["accuracy_high"],
                ),
                percent_interval(
                    record[key]["accuracy"],
                    record[key]["accuracy_low"],
                    record[key]["accuracy_high"],
                ),
            )
            for key in (("cut", "after") if _recovered(record) else ("after",))
        ),
    ]
    return Table("Before and after", ("", "unpruned", "pruned"), tuple(rows))
