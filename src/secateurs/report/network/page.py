"""The page of a pruned network: the result, its cost, and how it was pruned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.report.common.baselines import FEW_IMAGES, balanced, majority
from secateurs.report.common.canvas import Plot
from secateurs.report.common.direction import isolate_names
from secateurs.report.common.formatting import (
    count,
    integer,
    listed,
    milliseconds,
    percent,
    percent_interval,
    plain,
    plural,
    seconds,
    size,
)
from secateurs.report.common.latency import latency_name, speed_warnings, verdict
from secateurs.report.common.next_steps import Step, page_values, shown_data, shown_path, step
from secateurs.report.common.panel import Panel, Table
from secateurs.report.common.render import render_page, write_page
from secateurs.report.network import figures
from secateurs.report.network.measured_on import calibration, reconstruction
from secateurs.report.network.named_layers import search_panels

Record = dict[str, Any]
NAME = "pruning.html"


def write_network_page(
    record: Record, directory: Path, *, model: Path | None = None, data: str | None = None
) -> Path:
    """Write the page of a pruning (what `pruning.json` holds) to `directory`/pruning.html.

    `model` and `data` are the unpruned model and its images, for the commands on the page. The file
    is written whole or not at all and loads nothing from anywhere. Raises InputError when it cannot
    be written.
    """
    text = render_network(record, directory, model=model, data=data)
    return write_page(directory / NAME, text)


def render_network(
    record: Record,
    directory: Path | None = None,
    *,
    model: Path | None = None,
    data: str | None = None,
) -> str:
    """The page as text."""
    record = isolate_names(record)
    panels = [_groups(record)]
    panels += [_trajectory(record)] if record["trajectory"] else search_panels(record)
    if _recovered(record):
        panels.append(_recovery(record))
    return render_page(
        "network.html.j2",
        panels,
        {
            "record": record,
            "headline": headline(record),
            "standfirst": record["cost"]["sentence"],
            "tiles": _tiles(record),
            "panels": panels,
            "cost": _cost_table(record),
            "cautions": cautions(record),
            "record_groups": _record(record),
            **page_values(next_steps(record, directory, model, data), record, directory),
        },
    )


def next_steps(
    record: Record, directory: Path | None, model: Path | None, data: str | None
) -> list[Step]:
    """Commands that use the pruned network, measure it on test images, or prune again."""
    out = "DIR" if directory is None else shown_path(directory)
    images = shown_data(data)
    steps = [
        step("Measure it on the test images, once:", "evaluate", out, images),
        step("Classify images with it:", "predict", out, "IMAGE"),
    ]
    if "onnx" not in record.get("files", {}):
        steps.append(
            step("Export it to ONNX:", "export", out, "IMAGE", "--out", f"{out}/model.onnx")
        )
    if record["trajectory"] and not _recovered(record):
        again = "MODEL" if model is None else shown_path(model)
        words = ["prune", again, images]
        for name in ("params", "macs", "latency", "max_loss"):
            if record["budget"][name] is not None:
                words += ["--layers", "all"] if name == "max_loss" else []
                words += [f"--{name.replace('_', '-')}", f"{record['budget'][name]:g}"]
        recovered = f"{out}-recovered"
        steps.append(
            step(
                "Prune again and train the pruned network for ten epochs:",
                *words, "--recovery-epochs", "10", "--out", recovered,
            )
        )  # fmt: skip
    return steps


def _record(record: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    """Budget and settings of the pruning."""
    names = {
        "params": "parameters", "macs": "multiply-accumulates", "latency": "latency",
        "max_loss": "largest loss of accuracy, points",
    }  # fmt: skip
    budget = [
        (text, f"{record['budget'][name]:g}")
        for name, text in names.items()
        if record["budget"][name] is not None
    ]
    rule = [
        (name.replace("_", " "), plain(value))
        for name, value in (record.get("rule") or {}).items()
        if value is not None
    ]
    found = (("Budget", budget), ("Rule", rule))
    return [(title, rows) for title, rows in found if rows]


def headline(record: Record) -> str:
    """The result in one sentence."""
    before, after = record["cost"]["before"], record["cost"]["after"]
    times = before["num_parameters"] / after["num_parameters"]
    change = 100 * (record["after"]["accuracy"] - record["before"]["accuracy"])
    lost = (
        "at the same validation accuracy"
        if abs(change) < 0.05
        else f"validation accuracy {'+' if change > 0 else '−'}{abs(change):.1f} points"
    )
    return f"{times:.3g} times fewer parameters, {lost}"


def cautions(record: Record) -> list[str]:
    """The limitations of the results."""
    found = [_chosen_on_validation(record)]
    outcome = record.get("outcome")  # pruned by an older version: not compared
    if outcome is not None and outcome["alarm"]:
        found.append(
            f"Pruning changed the outputs on validation images by {outcome['measured']:.3g} (mean "
            f"squared; {percent(outcome['relative'])} of their variance); the prediction was "
            f"{outcome['predicted']:.3g}. Prune less, or use more epochs of recovery."
        )
    num_images = record["after"].get("num_images")
    if num_images is not None and num_images < FEW_IMAGES:
        found.append(
            f"Only {plural(num_images, 'validation image')}: the 95% interval of the accuracy is "
            f"{percent(record['after']['accuracy_low'], digits=0)} to "
            f"{percent(record['after']['accuracy_high'], digits=0)}."
        )
    if record["note"]:
        found.append(
            f"Only chains of layers were pruned: {record['note']}. Other units were not pruned."
        )
    note = record["cost"].get("onnx_note")
    return [*found, *([note] if note else []), *speed_warnings(record["cost"]["latency"])]


def _chosen_on_validation(record: Record) -> str:
    """Which choices were made on the validation images."""
    chosen: list[str] = []
    if record["budget"]["max_loss"] is not None:
        chosen.append("the size of the pruned network")
    if _recovered(record):
        chosen.append("the epoch of the recovery")
    starts = record["starts"]
    if len(starts) > 1:
        chosen.append(
            f"one of {len(starts)} initialisations of the merging ({percent(min(starts))} to "
            f"{percent(max(starts))} before recovery)"
        )
    outcome = record.get("outcome")
    if outcome is not None and len(outcome["norms_tried"]) > 1:
        chosen.append("the batch norm statistics (without labels)")
    if record.get("reconstruction") is not None:
        chosen.append("how far each block is tuned (without labels)")
    if not chosen:
        return (
            "The validation images were not used for pruning, but the unpruned network was chosen "
            "on them, so its accuracy may be too optimistic. The test images were not used."
        )
    return (
        f"Validation images were used to choose {listed(chosen)}, so their accuracy is too "
        "optimistic. The test images were not used."
    )


def _baseline(record: Record) -> str:
    if "confusion" not in record["after"]:
        return ""
    return (
        f"; balanced {percent(balanced(record['after']))}; majority-class baseline "
        f"{percent(majority(record['after']))}"
    )


def _recovered(record: Record) -> bool:
    return record["recovery"] is not None and bool(record["recovery"]["curve"])


def _tiles(record: Record) -> list[tuple[str, str, str]]:
    before, after = record["cost"]["before"], record["cost"]["after"]
    after_cut = ""
    if _recovered(record):
        after_cut = f", {percent(record['cut']['accuracy'])} before recovery"
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
        *(
            (title, size(after[key], beside=before[key]), f"of {size(before[key])}")
            for title, key in (("Model file", "file_bytes"), ("ONNX file", "onnx_bytes"))
            if after.get(key) is not None  # pruned by an older version: not measured
        ),
        (
            "Validation accuracy",
            percent(record["after"]["accuracy"]),
            f"{percent(record['before']['accuracy'])} unpruned{after_cut}{_baseline(record)}",
        ),
    ]
    tiles += [
        (
            f"Latency, {latency_name(row)}, batch {row['batch']}",
            milliseconds(row["after_ms"]["median"]),
            f"{milliseconds(row['before_ms']['median'])} unpruned: {verdict(row) or 'not known'}",
        )
        for row in record["cost"]["latency"]
    ]
    return tiles


def _groups(record: Record) -> Panel:
    rows = record["groups"]
    cut = sum(row["num_kept"] < row["num_units"] for row in rows)
    caption = (
        f"Units were removed from {cut} of {len(rows)} groups, in the order of predicted loss per "
        "saving."
        if record["trajectory"]
        else f"Units of {plural(cut, 'layer')} were merged or removed, by the rule "
        f"{record['rule']['rule']}."
    )
    table = Table(
        "Groups",
        ("group", "units", "kept", "compensation", "predicted loss", "layers"),
        tuple(
            (
                row["name"],
                integer(row["num_units"]),
                integer(row["num_kept"]),
                row["how"].replace("_", " "),
                "–" if row["loss"] is None else f"{row['loss']:.3g}",
                ", ".join(layer["path"] for layer in row["layers"]),
            )
            for row in rows
        ),
    )
    left = tuple((one["name"], one["reason"]) for one in record["not_pruned"])
    tables = (table, Table("Not pruned", ("group", "reason"), left)) if left else (table,)
    plot = Plot(figures.groups(record), "", f"Bars, one per group. {caption}")
    return Panel("groups", "Units kept in each group", caption, (plot,), tables)


def _trajectory(record: Record) -> Panel:
    chosen = record["chosen"]
    caption = (
        f"The chosen network has {percent(chosen['macs'])} of the multiply-accumulates and "
        f"{percent(chosen['params'])} of the parameters. The predicted loss is the mean squared "
        "change of the outputs on the training images, without recovery."
        f"{calibration(record)}{reconstruction(record)}"
    )
    thinned = record["trajectory"][:: max(1, len(record["trajectory"]) // 40)]
    table = Table(
        "Size against predicted loss",
        ("multiply-accumulates", "parameters", "predicted loss"),
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
        f"{plural(len(curve), 'epoch')} in {seconds(record['recovery']['seconds'])}, with an "
        f"initial learning rate of {record['recovery']['lr']:g}. Epoch {best} is the best on "
        "validation images and was saved."
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
    """Which weights and batch norm statistics were tried, and the change of the outputs."""
    outcome = record.get("outcome")
    if outcome is None:
        return []
    rows = [("predicted from the training images", f"{outcome['predicted']:.3g}", "")]
    for key, title in (("norms_tried", "batch norm statistics"), ("tried", "weights")):
        taken = outcome["norms" if key == "norms_tried" else "weights"]
        if len(outcome[key]) > 1 or key == "tried":
            rows += [
                (f"{title} {name}", f"{change:.3g}", "chosen" if name == taken else "")
                for name, change in outcome[key].items()
            ]
    head = ("", "mean squared change of the outputs", "")
    return [Table("Change of the outputs by pruning, on validation images", head, tuple(rows))]


def _cost_table(record: Record) -> Table:
    before, after = record["cost"]["before"], record["cost"]["after"]
    rows = [
        ("parameters", integer(before["num_parameters"]), integer(after["num_parameters"])),
        ("multiply-accumulates", integer(before["macs"]), integer(after["macs"])),
        (
            "peak activation memory per image",
            size(before["activation_bytes"]),
            size(after["activation_bytes"], beside=before["activation_bytes"]),
        ),
        *(
            (name, size(before[key]), size(after[key], beside=before[key]))
            for name, key in (("model.safetensors", "file_bytes"), ("model.onnx", "onnx_bytes"))
            if after.get(key) is not None
        ),
        *(
            (
                f"latency, {latency_name(row)}, batch {row['batch']}",
                milliseconds(row["before_ms"]["median"]),
                milliseconds(row["after_ms"]["median"]),
            )
            for row in record["cost"]["latency"]
        ),
        *(
            (
                f"validation accuracy{', before recovery' if key == 'cut' else ''}",
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
