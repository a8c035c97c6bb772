"""A model card in Markdown: what a pruned model is, how it was measured, how to use it."""

from __future__ import annotations

from pathlib import Path

from secateurs.errors import InputError
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
from secateurs.report.common.formatting import integer, proper
from secateurs.report.common.markdown import card_table, literal
from secateurs.report.common.sweep_rows import Record
from secateurs.report.study.cautions import warnings

NAME = "model/README.md"


def write_card(results: Record, directory: Path) -> Path:
    """Write the card of a study's pruned model to `directory`/model/README.md.

    `results` has passed `check_results`. Raises InputError for a study without a pruned model and
    when the file cannot be written.
    """
    return save_card(directory / NAME, render_card(results))


def render_card(results: Record) -> str:
    """The card as text; InputError for a study without a pruned model."""
    if not results["pruned"] or not results["chosen"]:
        raise InputError("model card: the study has no pruned model")
    results = isolate_names(results)
    config, data = results["config"], results["data"]
    lines = [
        *opening_part(
            f"{literal(proper(config.get('backbone', 'network')))} for {literal(data['name'])}",
            data["classes"],
            f"{literal(results['weights']['sentence'].rstrip('.'))}; fine-tuned "
            f"with {integer(results['chosen']['depth'])} frozen layers, then pruned.",
        ),
        *_measured(results),
        *_cut(results),
        *cost_part(results),
        *data_part(results),
        *_limits(results),
        *use_part(results),
        *versions_part(results),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _measured(results: Record) -> list[str]:
    rows: list[list[str]] = []
    for side, name in (("val", "validation"), ("test", "test")):
        before, after = results["chosen"][side], results["pruned"][side]
        if before and after:
            cells = [accuracy_words(before), accuracy_words(after)]
            rows.append([name, *cells, *baseline_cells(after)])
    head = ["images", "unpruned", "this model", "balanced", "baseline", "number"]
    measured = results["pruned"]["test"] or results["pruned"]["val"]
    if not measured:
        return accuracy_part(head, rows, explained=False)
    return [*accuracy_part(head, rows), *class_scores(measured)]


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


def _limits(results: Record) -> list[str]:
    lines = warnings(results)
    lines.append(
        "Images of other objects also get one of these classes. The probabilities are not "
        "calibrated."
    )
    return limits_part(lines)
