"""What a reader must know before believing the numbers: leakage, silent classes, no speed-up."""

from __future__ import annotations

from secateurs.report.common.evaluation import FEW_IMAGES, majority
from secateurs.report.common.formatting import integer, listed, percent, plural, share
from secateurs.report.common.latency import speed_warnings
from secateurs.report.common.sweep_rows import Record
from secateurs.report.study.evaluations import Evaluations, shown_evaluations


def warnings(results: Record) -> list[str]:
    """All that a reader must know before believing the numbers, most serious first."""
    found = leakage_warnings(results)
    side = shown_evaluations(results)
    if side and side.side != "test":
        found.append(
            "The test images were not evaluated: the accuracies are those of the validation "
            "images, on which the model was chosen, and are too high."
        )
    found += accuracy_warnings(side, results)
    if results["weights"]["source"] != "none" and not results["weights"]["loaded"]:
        found.append("No pretrained weights were loaded.")
    found += (
        _trial_warnings(results)
        + _class_warnings(results)
        + speed_warnings((results["cost"] and results["cost"]["latency"]) or [])
    )
    if results["data"]["findings"]:
        number = len(results["data"]["findings"])
        found.append(
            f"The audit of the images found {plural(number, 'thing')} to look at: "
            + " ".join(text.rstrip(".") + "." for text in results["data"]["findings"][:3])
            + (" More under Data." if number > 3 else "")
        )
    return found


def reassurance(results: Record) -> str:
    """What was looked at and found in order, for a study without warnings."""
    found, cost = shown_evaluations(results), results["cost"]
    groups = results["split"]["leakage"]["same_group"] is not None
    parts = ["no leakage" if groups else "no test image is a copy of a training image"]
    parts.append("no finding in the audit of the files")
    if found:
        parts.append("every class is predicted")
    if cost and any(row["after_ms"] for row in cost["latency"] or []):
        parts.append("pruning made every measurement faster")
    text = listed(parts)
    return f"{text[0].upper()}{text[1:]}."


def accuracy_warnings(found: Evaluations | None, results: Record) -> list[str]:
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


def leakage_warnings(results: Record) -> list[str]:
    """One sentence a kind of leakage that is there."""
    leakage = results["split"]["leakage"]
    kinds = (
        (
            "same_group",
            "shares a group with a training image",
            "share a group with training images",
        ),
        ("duplicate", "is a copy of a training image", "are copies of training images"),
        ("near_duplicate", "is nearly a training image", "are nearly training images"),
    )
    return [
        f"Leakage: {integer(leakage[key])} of {plural(leakage['num_test'], 'test image')} "
        f"{one if leakage[key] == 1 else more}; the test accuracy is too high by an unknown amount."
        for key, one, more in kinds
        if leakage[key]
    ]


def leakage_lines(results: Record) -> list[tuple[str, str, bool | None]]:
    """Each kind of leakage as (what, finding, fine); fine is None where it cannot be known."""
    leakage = results["split"]["leakage"]
    total = leakage["num_test"]
    kinds = (
        ("same_group", "Same group", "shares a group (a person, a film, a session) with"),
        ("duplicate", "Same picture", "has exactly the pixels of"),
        ("near_duplicate", "Nearly the same picture", "is nearly the same picture as"),
    )
    lines: list[tuple[str, str, bool | None]] = []
    for key, what, verb in kinds:
        value = leakage[key]
        if value is None:
            text = (
                "Not known: no groups were given. If several images show one person, place or "
                "session, give groups and split by them."
            )
        elif value == 0:
            text = f"None of the {plural(total, 'test image')} {verb} a training image."
        else:
            part = share(value / total) if total else "all"
            found = f"{integer(value)} of {integer(total)} test images ({part})"
            text = f"{found}: each {verb} a training image."
        lines.append((what, text, None if value is None else value == 0))
    return lines


def _trial_warnings(results: Record) -> list[str]:
    failed = [trial for trial in results["trials"] if trial["val_accuracy"] is None]
    broken = [trial for trial in results["trials"] if "finite" in (trial["stopped"] or "")]
    number = len({id(trial) for trial in failed + broken})
    if not number:
        return []
    were = "was" if number == 1 else "were"
    return [f"{plural(number, 'trial')} {were} stopped because the loss was not finite."]


def _class_warnings(results: Record) -> list[str]:
    found, texts = shown_evaluations(results), list[str]()
    for when, evaluation in (("before", found and found.before), ("after", found and found.after)):
        if not evaluation:
            continue
        scores = evaluation["per_class"]
        silent = [score["class"] for score in scores if score["num_predicted"] == 0]
        empty = [score["class"] for score in scores if score["num_true"] == 0]
        if silent:
            texts.append(f"Never predicted {when} pruning: {listed(silent)}.")
        if empty and when == "before" and found:
            texts.append(f"No {found.side} image of {listed(empty)}: nothing can be said of it.")
    return texts
