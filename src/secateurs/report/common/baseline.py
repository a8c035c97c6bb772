"""What an accuracy must be compared with: the largest class always answered, and balance."""

from __future__ import annotations

from secateurs.report.common.summary_values import Outcome, Record
from secateurs.report.common.words import listed, percent, plural

FEW_IMAGES = 50


def majority(evaluation: Record) -> float | None:
    """The accuracy of always answering the largest class here, 0..1.

    >>> majority({"confusion": [[3, 1], [0, 1]]})
    0.8
    """
    if evaluation.get("majority_accuracy") is not None:
        return evaluation["majority_accuracy"]
    totals = [sum(row) for row in evaluation["confusion"]]
    return max(totals) / sum(totals) if sum(totals) else None


def balanced(evaluation: Record) -> float | None:
    """The mean recall of the classes that have images here, 0..1.

    >>> balanced({"confusion": [[3, 1], [0, 1]]})
    0.875
    """
    if evaluation.get("balanced_accuracy") is not None:
        return evaluation["balanced_accuracy"]
    recalls = [row[at] / sum(row) for at, row in enumerate(evaluation["confusion"]) if sum(row)]
    return sum(recalls) / len(recalls) if recalls else None


def baseline_note(found: Outcome) -> str:
    """Balanced accuracy before and after, and what answering the largest class gives.

    >>> baseline_note(Outcome("test", {"confusion": [[3, 1], [0, 1]]}, None))
    'Balanced accuracy 87.5%; always answering the largest class gives 80.0%'
    """
    shown = [percent(balanced(one)) for one in (found.before, found.after) if one]
    return (
        f"Balanced accuracy {' → '.join(shown)}; always answering the largest class gives "
        f"{percent(majority(found.before))}"
    )


def accuracy_warnings(found: Outcome | None, results: Record) -> list[str]:
    """Why the accuracy may say less than it seems to: few images, one large class, no groups."""
    if found is None:
        return []
    texts: list[str] = []
    last = found.after or found.before
    low, high, base = last["accuracy_low"], last["accuracy_high"], majority(last)
    if last["num_images"] < FEW_IMAGES and low is not None and high is not None:
        images = plural(last["num_images"], f"{found.side} image")
        texts.append(
            f"Only {images}: the accuracy could be anything from {percent(low, digits=0)} to "
            f"{percent(high, digits=0)}."
        )
    if low is not None and base is not None and low <= base:
        totals = [sum(row) for row in last["confusion"]]
        names = [
            name
            for name, total in zip(results["data"]["classes"], totals, strict=True)
            if total == max(totals)
        ]
        texts.append(
            f"The accuracy is not significantly above {percent(base)}, which always answering "
            f"{names[0] if len(names) == 1 else f'one of {listed(names)}'} gives."
        )
    ungrouped = results["split"]["leakage"]["same_group"] is None
    if ungrouped and results["config"].get("split") not in ("folders", "paper"):
        texts.append(
            "No groups were given: if several images show one person, place or session, the "
            f"{found.side} accuracy is too optimistic; give --group-by."
        )
    return texts
