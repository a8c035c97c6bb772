"""The model card of a pruned model that `secateurs prune` saved, in markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.files import write_text
from secateurs.report.common.direction import isolate_names
from secateurs.report.common.evaluation import balanced, majority
from secateurs.report.common.formatting import (
    integer,
    milliseconds,
    percent,
    percent_interval,
    size,
)
from secateurs.report.common.latency import latency_name
from secateurs.report.common.markdown import card_table, literal
from secateurs.report.network.page import cautions

Record = dict[str, Any]
NAME = "README.md"
_COSTS: tuple[tuple[str, str, Any], ...] = (
    ("num_parameters", "parameters", integer),
    ("macs", "multiply-accumulates", integer),
    ("activation_bytes", "peak activation memory per image", size),
    ("file_bytes", "model.safetensors", size),
    ("onnx_bytes", "model.onnx", size),
)


def write_card(record: Record, directory: Path) -> Path:
    """Write the card of a pruning (what `pruning.json` holds) to `directory`/README.md.

    Raises InputError when the file cannot be written.
    """
    path = directory / NAME
    try:
        write_text(path, render_card(record))
    except OSError as error:
        raise InputError(f"{path}: the card cannot be written ({error.strerror})") from None
    return path


def render_card(record: Record) -> str:
    """The card as text."""
    record = isolate_names(record)
    classes = ", ".join(literal(name) for name in record["classes"])
    lines = [
        f"# {literal(record['backbone'])} for {literal(record['data']['name'])}, pruned",
        "",
        f"Classifies images into {integer(len(record['classes']))} classes: {classes}.",
        "",
        "## Accuracy",
        "",
        *card_table(["", "unpruned", "this model"], _accuracy(record)),
        "Validation images, with 95% Wilson intervals. The test images were not used.",
        "",
        "## Pruning",
        "",
        *card_table(["layer or group", "units", "kept"], _groups(record)),
        "## Cost",
        "",
        *card_table(["", "unpruned", "this model"], _cost(record)),
        literal(record["cost"]["sentence"]),
        "",
        "## Limitations",
        "",
        *(f"- {literal(text)}" for text in cautions(record)),
        "- Images of other objects also get one of these classes. The probabilities are not "
        "calibrated.",
        "",
        *_use(record),
        "## Versions",
        "",
        literal(", ".join(f"{name} {value}" for name, value in record["versions"].items()) + "."),
    ]
    return "\n".join(lines) + "\n"


def _accuracy(record: Record) -> list[list[str]]:
    before, after = record["before"], record["after"]
    return [
        ["accuracy", *(_interval(one) for one in (before, after))],
        ["balanced accuracy", *(percent(balanced(one)) for one in (before, after))],
        ["majority-class baseline", *(percent(majority(one)) for one in (before, after))],
        ["images", *(integer(one["num_images"]) for one in (before, after))],
    ]


def _interval(evaluation: Record) -> str:
    return percent_interval(
        evaluation["accuracy"], evaluation["accuracy_low"], evaluation["accuracy_high"]
    )


def _groups(record: Record) -> list[list[str]]:
    return [
        [row["name"], integer(row["num_units"]), integer(row["num_kept"])]
        for row in record["groups"]
    ]


def _cost(record: Record) -> list[list[str]]:
    cost = record["cost"]
    before, after = cost["before"], cost["after"]
    rows = [[name, text(before[key]), text(after[key])] for key, name, text in _COSTS]
    return rows + [
        [
            f"median latency, {latency_name(row)}, batch {integer(row['batch'])}",
            *(milliseconds(row[key]["median"]) for key in ("before_ms", "after_ms")),
        ]
        for row in cost["latency"]
    ]


def _use(record: Record) -> list[str]:
    ways = (
        ("model", "Secateurs: `secateurs predict` on this folder, or `secateurs.load` in Python"),
        ("onnx", "ONNX Runtime: classes and preprocessing are JSON in the metadata of the file"),
    )
    files = record["files"]
    return ["## Use", "", *(f"- `{files[key]}`: {text}." for key, text in ways if key in files), ""]
