"""The model card of a pruned model that `secateurs prune` saved, in markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.report.common.baselines import balanced, majority
from secateurs.report.common.card_parts import (
    accuracy_words,
    cost_part,
    opening_part,
    save_card,
    use_part,
    versions_part,
)
from secateurs.report.common.direction import isolate_names
from secateurs.report.common.formatting import (
    integer,
    percent,
)
from secateurs.report.common.markdown import card_table, literal
from secateurs.report.network.page import cautions

Record = dict[str, Any]
NAME = "README.md"


def write_card(record: Record, directory: Path) -> Path:
    """Write the card of a pruning (what `pruning.json` holds) to `directory`/README.md.

    Raises InputError when the file cannot be written.
    """
    return save_card(directory / NAME, render_card(record))


def render_card(record: Record) -> str:
    """The card as text."""
    record = isolate_names(record)
    lines = [
        *opening_part(
            f"{literal(record['backbone'])} for {literal(record['data']['name'])}, pruned",
            record["classes"],
        ),
        "## Accuracy",
        "",
        *card_table(["", "unpruned", "this model"], _accuracy(record)),
        "Validation images, with 95% intervals. The test images were not used.",
        "",
        "## Pruning",
        "",
        *card_table(["layer or group", "units", "kept"], _groups(record)),
        *cost_part(record),
        "## Limitations",
        "",
        *(f"- {literal(text)}" for text in cautions(record)),
        "- Images of other objects also get one of these classes. The probabilities are not "
        "calibrated.",
        "",
        *use_part(record),
        *versions_part(record),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _accuracy(record: Record) -> list[list[str]]:
    before, after = record["before"], record["after"]
    return [
        ["accuracy", *(accuracy_words(one) for one in (before, after))],
        ["balanced accuracy", *(percent(balanced(one)) for one in (before, after))],
        ["majority-class baseline", *(percent(majority(one)) for one in (before, after))],
        ["images", *(integer(one["num_images"]) for one in (before, after))],
    ]


def _groups(record: Record) -> list[list[str]]:
    return [
        [row["name"], integer(row["num_units"]), integer(row["num_kept"])]
        for row in record["groups"]
    ]
