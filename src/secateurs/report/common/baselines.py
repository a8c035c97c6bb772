"""Accuracies to compare with: the majority-class baseline and the balanced accuracy."""

from __future__ import annotations

from secateurs.report.common.sweep_rows import Record

FEW_IMAGES = 50


def majority(evaluation: Record) -> float | None:
    """The accuracy of always predicting the largest class of an evaluation, 0..1.

    >>> majority({"confusion": [[3, 1], [0, 1]]})
    0.8
    """
    if evaluation.get("majority_accuracy") is not None:
        return evaluation["majority_accuracy"]
    totals = [sum(row) for row in evaluation["confusion"]]
    return max(totals) / sum(totals) if sum(totals) else None


def balanced(evaluation: Record) -> float | None:
    """The mean recall of the classes that have images in an evaluation, 0..1.

    >>> balanced({"confusion": [[3, 1], [0, 1]]})
    0.875
    """
    if evaluation.get("balanced_accuracy") is not None:
        return evaluation["balanced_accuracy"]
    recalls = [row[at] / sum(row) for at, row in enumerate(evaluation["confusion"]) if sum(row)]
    return sum(recalls) / len(recalls) if recalls else None
