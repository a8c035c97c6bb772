"""The chosen trial of a study and its evaluations before and after pruning."""

from __future__ import annotations

from dataclasses import dataclass

from secateurs.report.common.sweep_rows import Record


@dataclass(frozen=True)
class Evaluations:
    """Evaluations of the chosen model before and after pruning, on one side of the split."""

    side: str  # "test", or "validation" when the test images were not evaluated
    before: Record
    after: Record | None


def shown_evaluations(results: Record) -> Evaluations | None:
    """The evaluations to show: on the test images if there are any, else on validation."""
    chosen, pruned = results["chosen"], results["pruned"]
    for key, side in (("test", "test"), ("val", "validation")):
        if chosen and chosen[key]:
            return Evaluations(side, chosen[key], pruned[key] if pruned else None)
    return None


def num_correct(evaluation: Record) -> int:
    """The number of correctly classified images: the confusion matrix's diagonal."""
    return sum(row[index] for index, row in enumerate(evaluation["confusion"]))


def chosen_trial(results: Record) -> Record | None:
    """The record of the trial that was chosen."""
    chosen = results["chosen"]
    if not chosen:
        return None
    return next((trial for trial in results["trials"] if trial["key"] == chosen["key"]), None)


def chosen_row(results: Record) -> Record | None:
    """The sweep's row that the chosen trial belongs to."""
    trial = chosen_trial(results)
    if trial is None:
        return None
    same = (trial["depth"], trial["pretrained"])
    rows = results["sweep"]
    return next((row for row in rows if (row["depth"], row["pretrained"]) == same), None)
