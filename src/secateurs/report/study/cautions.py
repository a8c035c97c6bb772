"""Limitations of a study's results: leakage, small test sets, missing classes, no speed-up."""

from __future__ import annotations

from secateurs.report.common.baselines import FEW_IMAGES, majority
from secateurs.report.common.formatting import integer, listed, percent, plural, share
from secateurs.report.common.latency import speed_warnings
from secateurs.report.common.sweep_rows import Record
from secateurs.report.study.evaluations import Evaluations, shown_evaluations


def warnings(results: Record) -> list[str]:
    """The limitations of the results, most serious first."""
    found = leakage_warnings(results)
    side = shown_evaluations(results)
    if side and side.side != "test":
        found.append(
            "The test images were not evaluated. The accuracies are on the validation images, on "
            "which the model was chosen, and are too optimistic."
        )
    found += accuracy_warnings(side, results)
    if results["weights"]["source"] != "none" and not results["weights"]["loaded"]:
        found.append("No pretrained weights were loaded.")
    found += (
        _trial_warnings(results)
        + _class_warnings(results)
        + speed_warnings((results["cost"] and results["cost"]["latency"]) or [])
    )
    return found + audit_warning(results)


def audit_warning(results: Record) -> list[str]:
    """One sentence with the first findings of the audit; none where it has none."""
    findings = results["data"]["findings"]
    if not findings:
        return []
    number = len(findings)
    return [
        f"The audit of the images has {plural(number, 'finding')}: "
        + " ".join(text.rstrip(".") + "." for text in findings[:3])
        + (" More under Data." if number > 3 else "")
    ]


def reassurance(results: Record) -> str:
    """What was checked without a finding, for a study without warnings."""
    found, cost = shown_evaluations(results), results["cost"]
    groups = results["split"]["leakage"]["same_group"] is not None
    parts = ["no leakage" if groups else "no test image is a duplicate of a training image"]
    parts.append("no finding in the audit of the image files")
    if found:
        parts.append("every class is predicted")
    if cost and any(row["after_ms"] for row in cost["latency"] or []):
        parts.append("the pruned network is faster in every latency measurement")
    text = listed(parts)
    return f"{text[0].upper()}{text[1:]}."


def accuracy_warnings(found: Evaluations | None, results: Record) -> list[str]:
    """Limitations of the accuracy: few images, near the majority-class baseline, no groups."""
    if found is None:
        return []
    texts: list[str] = []
    last = found.after or found.before
    low, high, base = last["accuracy_low"], last["accuracy_high"], majority(last)
    if last["num_images"] < FEW_IMAGES and low is not None and high is not None:
        images = plural(last["num_images"], f"{found.side} image")
        texts.append(
            f"Only {images}: the 95% interval of the accuracy is {percent(low, digits=0)} to "
            f"{percent(high, digits=0)}."
        )
    if low is not None and base is not None and low <= base:
        totals = [sum(row) for row in last["confusion"]]
        names = [
            name
            for name, total in zip(results["data"]["classes"], totals, strict=True)
            if total == max(totals)
        ]
        largest = names[0] if len(names) == 1 else f"one of {listed(names)}"
        texts.append(
            f"The accuracy is not significantly above the majority-class baseline of "
            f"{percent(base)} (always {largest})."
        )
    ungrouped = results["split"]["leakage"]["same_group"] is None
    if ungrouped and results["config"].get("split") not in ("folders", "paper"):
        texts.append(
            "No groups were given. If several images show one person, place or session, the "
            f"{found.side} accuracy is too optimistic; give --group-by."
        )
    return texts


def leakage_warnings(results: Record) -> list[str]:
    """One sentence per kind of leakage that was found."""
    leakage = results["split"]["leakage"]
    kinds = (
        (
            "same_group",
            "shares a group with a training image",
            "share a group with training images",
        ),
        ("duplicate", "is a duplicate of a training image", "are duplicates of training images"),
        (
            "near_duplicate",
            "is a near duplicate of a training image",
            "are near duplicates of training images",
        ),
    )
    return [
        f"Leakage: {integer(leakage[key])} of {plural(leakage['num_test'], 'test image')} "
        f"{one if leakage[key] == 1 else more}; the test accuracy is too optimistic by an unknown "
        "amount."
        for key, one, more in kinds
        if leakage[key]
    ]


def leakage_lines(results: Record) -> list[tuple[str, str, bool | None]]:
    """Each kind of leakage as (name, finding, fine); fine is None where it is not known."""
    leakage = results["split"]["leakage"]
    total = leakage["num_test"]
    kinds = (
        ("same_group", "Same group", "shares a group (person, film, session) with"),
        ("duplicate", "Exact duplicates", "has exactly the same pixels as"),
        ("near_duplicate", "Near duplicates", "is a near duplicate of"),
    )
    lines: list[tuple[str, str, bool | None]] = []
    for key, what, verb in kinds:
        value = leakage[key]
        if value is None:
            text = (
                "Not known: no groups were given. If several images show one person, place or "
                "session, give --group-by."
            )
        elif value == 0:
            text = f"None of the {plural(total, 'test image')} {verb} a training image."
        else:
            part = share(value / total) if total else "all"
            found = f"{integer(value)} of {integer(total)} test images ({part})"
            text = f"{found}: each of them {verb} a training image."
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
            texts.append(f"No {found.side} images of {listed(empty)}.")
    return texts
