"""Parts of a model card in Markdown: accuracy, cost, data, files, versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.files import write_text
from secateurs.report.common.baselines import balanced, majority
from secateurs.report.common.formatting import (
    integer,
    milliseconds,
    percent,
    percent_interval,
    share,
    size,
)
from secateurs.report.common.latency import is_faster, latency_name, part_words
from secateurs.report.common.markdown import card_table, literal
from secateurs.report.common.sweep_rows import Record

_COSTS: tuple[tuple[str, str, Any], ...] = (
    ("num_parameters", "parameters", integer),
    ("macs", "multiply-accumulates", integer),
    ("activation_bytes", "peak activation memory per image", size),
    ("file_bytes", "model.safetensors", size),
    ("onnx_bytes", "model.onnx", size),
)


def save_card(path: Path, text: str) -> Path:
    """Write a card; InputError when the file cannot be written."""
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(f"{path}: the card cannot be written ({error.strerror})") from None
    return path


def opening_part(title: str, classes: Sequence[str], made: str = "") -> list[str]:
    """The heading, the classes, and a sentence on how the model was made."""
    names = ", ".join(literal(name) for name in classes)
    text = f"Classifies images into {integer(len(classes))} classes: {names}."
    return [f"# {title}", "", f"{text} {made}".rstrip(), ""]


def accuracy_part(head: list[str], rows: list[list[str]], *, explained: bool = True) -> list[str]:
    """The table of accuracies, and what they are unless nothing was measured."""
    lines = ["## Accuracy", "", *card_table(head, rows)]
    if not explained:
        return lines
    words = (
        "Accuracies have 95% intervals. The model was chosen on the validation images; the "
        "test images were used once, after the choice. Balanced: mean recall of the classes. "
        "Baseline: the accuracy of always predicting the largest class."
    )
    return [*lines, words, ""]


def baseline_cells(evaluation: Record) -> list[str]:
    """The balanced accuracy, the baseline and the number of images."""
    found = (percent(of(evaluation)) for of in (balanced, majority))
    return [*found, integer(evaluation["num_images"])]


def limits_part(lines: Sequence[str]) -> list[str]:
    """What limits the use of the model, one sentence a line."""
    return ["## Limitations", "", *(f"- {literal(text)}" for text in lines), ""]


def class_scores(evaluation: Record) -> list[str]:
    """A table with a row for each class."""
    scores = [
        [
            score["class"],
            *(percent(score[name]) for name in ("precision", "recall", "specificity")),
            integer(score["num_true"]),
        ]
        for score in evaluation["per_class"]
    ]
    return card_table(["class", "precision", "recall", "specificity", "images"], scores)


def accuracy_words(evaluation: Record) -> str:
    """An accuracy with its interval."""
    return percent_interval(
        evaluation["accuracy"], evaluation["accuracy_low"], evaluation["accuracy_high"]
    )


def cost_part(results: Record) -> list[str]:
    """What the model costs before and after pruning; nothing where it was not measured."""
    cost = results["cost"]
    if not cost or not cost["after"]:
        return []
    before, after = cost["before"], cost["after"]
    rows = [
        [name, text(before[key]), text(after[key]), _part(before[key], after[key])]
        for key, name, text in _COSTS
    ]
    timed = [row for row in cost["latency"] or [] if row["after_ms"]]
    for row in timed:
        name = f"median latency, {latency_name(row)}, batch {integer(row['batch'])}"
        times = (milliseconds(row[key]["median"]) for key in ("before_ms", "after_ms"))
        rows.append([name, *times, part_words(row)])
    lines = ["## Cost", "", *card_table(["", "unpruned", "this model", "share"], rows)]
    if any(row.get("ratio_p25") is not None for row in timed):
        lines += ["Shares of a latency are the median over alternating runs, with quartiles.", ""]
    same = [
        f"{latency_name(row)}, batch {integer(row['batch'])}"
        for row in timed
        if is_faster(row) is False
    ]
    return [*lines, *([f"Not measurably faster: {'; '.join(same)}.", ""] if same else [])]


def _part(before: float | None, after: float | None) -> str:
    return share(after / before if before and after is not None else None)


def data_part(results: Record) -> list[str]:
    """The images and how they were split."""
    data, split = results["data"], results["split"]
    rows = [
        [name, *(integer(split["per_class"][side][at]) for side in ("train", "val", "test"))]
        for at, name in enumerate(data["classes"])
    ]
    seed = "" if split["seed"] is None else f", seed {split['seed']}"
    groups = f", {integer(split['num_groups'])} groups" if split["num_groups"] else ""
    return [
        "## Data",
        "",
        f"{integer(data['num_images'])} images of {literal(data['name'])}; split "
        f"{literal(split['rule'])}{seed}"
        f"{groups}.",
        "",
        *card_table(["class", "training", "validation", "test"], rows),
    ]


def use_part(results: Record) -> list[str]:
    """How each of the files is used."""
    files = results["files"] or {}
    ways = (
        ("model", "for `secateurs predict` on this folder, and `secateurs.load` in Python"),
        ("onnx", "for ONNX Runtime; classes and preprocessing are JSON in the file's metadata"),
        ("int8", "for ONNX Runtime, with weights and activations of 8 bits; else as `model.onnx`"),
        ("program", "for `torch.export.load`; classes and preprocessing in its `secateurs.json`"),
    )
    shown = [f"- `{Path(files[key]).name}`, {text}." for key, text in ways if key in files]
    return ["## Use", "", *shown, ""] if shown else []


def versions_part(results: Record) -> list[str]:
    """The versions of what made the model."""
    words = ", ".join(f"{name} {value}" for name, value in results["versions"].items())
    return ["## Versions", "", f"{literal(words)}.", ""]
