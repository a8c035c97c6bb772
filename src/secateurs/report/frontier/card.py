"""The model card of a study over several networks: what the recommended network is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.report.common.card_parts import (
    accuracy_part,
    accuracy_words,
    baseline_cells,
    class_scores,
    cost_part,
    data_part,
    limits_part,
    opening_part,
    save_card,
    use_part,
    versions_part,
)
from secateurs.report.common.direction import isolate_names
from secateurs.report.common.formatting import integer, percent, proper
from secateurs.report.common.markdown import card_table, literal
from secateurs.report.frontier import summary
from secateurs.report.frontier.int8 import int8_card
from secateurs.study.frontier.refit_words import measured_before, refit_sentence

NAME = "model/README.md"
Record = dict[str, Any]
KINDS = {
    "probe": "with its published weights, and a classifier on its features as the last layer",
    "fine-tuned": "fine-tuned",
    "pruned": "fine-tuned and pruned",
}


def write_frontier_card(results: Record, directory: Path) -> Path:
    """Write the card of the recommended network to `directory`/model/README.md.

    `results` has passed `check_frontier`. Raises InputError when the file cannot be written.
    """
    return save_card(directory / NAME, render_frontier_card(results))


def render_frontier_card(results: Record) -> str:
    """The card as text."""
    results = isolate_names(results)
    row, data = summary.recommended(results), results["data"]
    stock = row["backbone"].partition("+")[0]
    lines = [
        *opening_part(
            f"{literal(proper(stock))} for {literal(data['name'])}",
            data["classes"],
            f"{literal(str(row['backbone']))}, {KINDS[row['kind']]}; chosen on validation images "
            f"from {integer(len(summary.made_points(results)))} networks.",
        ),
        *_accuracy(results),
        *_cost(results),
        *int8_card(results),
        *data_part(results),
        *_limits(results),
        *use_part({"files": results["recommended"]["files"]}),
        *versions_part(results),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _accuracy(results: Record) -> list[str]:
    rows: list[list[str]] = []
    for name, found in (
        ("validation", summary.recommended(results)["val"]),
        ("test", results["recommended"]["test"]),
    ):
        rows.append([name, accuracy_words(found), *baseline_cells(found)])
    head = ["images", "accuracy", "balanced", "baseline", "number"]
    return [
        *accuracy_part(head, rows),
        *_refit(results["recommended"].get("refit")),
        *class_scores(results["recommended"]["test"]),
    ]


def _refit(refit: Record | None) -> list[str]:
    return [] if refit is None else [refit_sentence(refit), ""]


def _cost(results: Record) -> list[str]:
    final = results["recommended"]
    if final["name"] != final["unpruned"]:
        return cost_part(final)
    row = summary.recommended(results)
    rows = [
        ["parameters", integer(row["cost"]["num_parameters"])],
        ["multiply-accumulates", integer(row["cost"]["macs"])],
        ["model.safetensors", f"{row['mb']:.1f} MB"],
        [
            f"median latency, {results['latency']['device']}, batch "
            f"{integer(results['latency']['batch'])}",
            f"{row['ms']:.1f} ms",
        ],
    ]
    return ["## Cost", "", *card_table(["", "this model"], rows)]


def _limits(results: Record) -> list[str]:
    lines = summary.cautions(results)
    sure = _confidence(results)
    if sure:
        lines.append(sure)
    lines.append("Images of other objects also get one of these classes.")
    return limits_part(lines)


def _confidence(results: Record) -> str:
    trust = results.get("trust")
    if trust is None:
        return "The probabilities are not calibrated."
    networks = [one for one in trust["networks"].values() if one is not None]
    own = networks[-1]
    confidence, answered = own["confidence"], own["answered"]
    text = (
        f"Probabilities are calibrated with the temperature {confidence['temperature']:.2f}; the "
        f"expected calibration error on test images is {percent(own['calibrated']['error'])}."
    )
    text = " ".join([text, *measured_before(results)])
    if not confidence["threshold"] or answered is None:
        return text
    return (
        f"{text} Below a probability of {percent(confidence['threshold'], digits=0)} predict "
        f"answers that it does not know: {percent(answered['coverage'], digits=0)} of the test "
        f"images are answered, {percent(answered['accuracy'])} of them correctly."
    )
