"""A model card in Markdown: what a pruned model is, how it was measured, how to use it."""

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
    proper,
    size,
)
from secateurs.report.common.latency import latency_name
from secateurs.report.common.markdown import card_table, literal
from secateurs.report.common.sweep_rows import Record
from secateurs.report.study.cautions import warnings

NAME = "model/README.md"


def write_card(results: Record, directory: Path) -> Path:
    """Write the card of a study's pruned model to `directory`/model/README.md.

    `results` has passed `check_results`. Raises InputError for a study without a pruned model and
    when the file cannot be written.
    """
    path = directory / NAME
    try:
        write_text(path, render_card(results))
    except OSError as error:
        raise InputError(f"{path}: the card cannot be written ({error.strerror})") from None
    return path


def render_card(results: Record) -> str:
    """The card as text; InputError for a study without a pruned model."""
    if not results["pruned"] or not results["chosen"]:
        raise InputError("model card: the study has no pruned model")
    results = isolate_names(results)
    config, data = results["config"], results["data"]
    lines = [
        f"# {literal(proper(str(config.get('backbone', 'network'))))} for {literal(data['name'])}",
        "",
        f"Classifies images into {integer(len(data['classes']))} classes: "
        f"{', '.join(literal(name) for name in data['classes'])}. "
        f"{literal(results['weights']['sentence'].rstrip('.'))}; fine-tuned "
        f"with {integer(results['chosen']['depth'])} frozen layers, then pruned.",
        "",
        *_measured(results),
        *_cut(results),
        *_cost(results),
        *_data(results),
        *_limits(results),
        *_use(results),
        *_versions(results),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _measured(results: Record) -> list[str]:
    rows: list[list[str]] = []
    for side, name in (("val", "validation"), ("test", "test")):
        before, after = results["chosen"][side], results["pruned"][side]
        if before and after:
            cells = [_accuracy(before), _accuracy(after), percent(balanced(after))]
            rows.append([name, *cells, percent(majority(after)), integer(after["num_images"])])
    head = ["images", "before pruning", "this model", "balanced", "baseline", "number"]
    lines = ["## Accuracy", "", *card_table(head, rows)]
    measured = results["pruned"]["test"] or results["pruned"]["val"]
    if not measured:
        return lines
    scores = [
        [
            score["class"],
            *(percent(score[name]) for name in ("precision", "recall", "specificity")),
            integer(score["num_true"]),
        ]
        for score in measured["per_class"]
    ]
    head = ["class", "precision", "recall", "specificity", "images"]
    words = (
        "Accuracies have 95% Wilson intervals. The model was chosen on the validation images; the "
        "test images were used once, after the choice. Balanced: mean recall of the classes. "
        "Baseline: the accuracy of always predicting the largest class."
    )
    return [*lines, words, "", *card_table(head, scores)]


def _accuracy(evaluation: Record) -> str:
    return percent_interval(
        evaluation["accuracy"], evaluation["accuracy_low"], evaluation["accuracy_high"]
    )


def _cut(results: Record) -> list[str]:
    pruned = results["pruned"]
    rows = [
        [layer["layer"], integer(layer["num_units"]), integer(layer["num_kept"])]
        for layer in pruned["layers"]
    ]
    how = f"Rule {pruned['rule']}"
    if pruned["compensation"]:
        how += f", compensation {pruned['compensation'].replace('_', ' ')}"
    return [
        "## Pruning",
        "",
        f"{literal(how)}.",
        "",
        *card_table(["layer", "units", "kept"], rows),
    ]


def _cost(results: Record) -> list[str]:
    cost = results["cost"]
    if not cost or not cost["after"]:
        return []
    before, after = cost["before"], cost["after"]
    kinds: tuple[tuple[str, str, Any], ...] = (
        ("num_parameters", "parameters", integer),
        ("macs", "multiply-accumulates", integer),
        ("activation_bytes", "peak activation memory per image", size),
        ("file_bytes", "model.safetensors", size),
        ("onnx_bytes", "model.onnx", size),
    )
    rows = [[name, text(before[key]), text(after[key])] for key, name, text in kinds]
    for row in cost["latency"] or []:
        if row["after_ms"]:
            name = f"median latency, {latency_name(row)}, batch {integer(row['batch'])}"
            times = (milliseconds(row[key]["median"]) for key in ("before_ms", "after_ms"))
            rows.append([name, *times])
    said = [literal(cost["sentence"]), ""] if cost["sentence"] else []
    return ["## Cost", "", *card_table(["", "before pruning", "this model"], rows), *said]


def _data(results: Record) -> list[str]:
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


def _limits(results: Record) -> list[str]:
    lines = warnings(results)
    lines.append(
        "Images of other objects also get one of these classes. The probabilities are not "
        "calibrated."
    )
    return ["## Limitations", "", *(f"- {literal(text)}" for text in lines), ""]


def _use(results: Record) -> list[str]:
    files = results["files"] or {}
    ways = (
        ("model", "Secateurs: `secateurs predict` on this folder, or `secateurs.load` in Python"),
        ("onnx", "ONNX Runtime: classes and preprocessing are JSON in the metadata of the file"),
        (
            "program",
            "PyTorch, with `torch.export.load`: classes and preprocessing in its `secateurs.json`",
        ),
    )
    shown = [f"- `{Path(files[key]).name}`: {text}." for key, text in ways if key in files]
    return ["## Use", "", *shown, ""] if shown else []


def _versions(results: Record) -> list[str]:
    words = ", ".join(f"{name} {value}" for name, value in results["versions"].items())
    return ["## Versions", "", f"{literal(words)}.", ""]
