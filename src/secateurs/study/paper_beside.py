"""Each published number beside ours: inside our interval, outside, or not comparable, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secateurs.fit.metrics import wilson_interval
from secateurs.study.published import published
from secateurs.study.stats import summarise

Record = dict[str, Any]
OTHER_IMAGES = "other images than the paper's 675 frames"


def beside(
    what: str,
    theirs: float,
    ours: float | None,
    interval: tuple[float | None, float | None],
    *,
    why_not: str,
) -> Record:
    """One comparison; all numbers on one scale. `why_not` non-empty means not comparable.

    >>> beside("mean", 0.47, 0.45, (0.43, 0.48), why_not="")["verdict"]
    'inside'
    """
    low, high = interval
    if why_not:
        verdict = "not comparable"
    elif ours is None or low is None or high is None:
        verdict, why_not = "not comparable", "no interval: a single run"
    else:
        verdict = "inside" if low - 5e-4 <= theirs <= high + 5e-4 else "outside"
    return {
        "what": what,
        "published": theirs,
        "ours": ours,
        "low": low,
        "high": high,
        "verdict": verdict,
        "why": why_not,
    }


def table1(
    records: list[Record], names: Sequence[str], fresh: Sequence[str], *, sfew: bool
) -> list[Record]:
    """Mean test accuracy of each depth and of scratch, beside the paper's, in ascending depth.

    `names` are the layers in order and `fresh` those that had no pretrained weights: a depth at
    which one of them is frozen is not what the paper ran.
    """
    theirs = {row["depth"]: row for row in published()["table1"]}
    kinds = sorted({(not r["pretrained"], r["depth"]) for r in records})
    rows: list[Record] = []
    for scratch, depth in kinds:
        own = [r for r in records if r["depth"] == depth and r["pretrained"] != scratch]
        found = summarise([r["test"]["accuracy"] for r in own])
        mean = published()["scratch_mean"] if scratch else theirs.get(depth, {}).get("mean")
        bare = [name for name in names[:depth] if name in fresh and not scratch]
        why = f"{' and '.join(bare)} frozen with random weights" if bare else ""
        why = why if sfew else "; ".join(filter(None, (OTHER_IMAGES, why)))
        row = beside(
            "no pretrained weights" if scratch else f"{depth} frozen layers",
            (mean or 0.0) / 100,
            found.mean,
            (found.low, found.high),
            why_not=why if mean is not None else "the paper has no such depth",
        )
        rows.append(
            row
            | {
                "published": None if mean is None else mean / 100,
                "published_runs": []
                if scratch or depth not in theirs
                else [run / 100 for run in theirs[depth]["runs"]],
                "depth": depth,
                "pretrained": not scratch,
                "runs": [r["test"]["accuracy"] for r in own],
                "val_runs": [r["val_accuracy"] for r in own],
                "seconds": sum(r["timing"]["seconds"] for r in own) / len(own),
            }
        )
    return rows


def table2(test: Record, *, sfew: bool) -> list[Record]:
    """Accuracy and the SPI measures of the best network beside the paper's."""
    theirs = published()["table2"]
    why = "" if sfew else OTHER_IMAGES
    rows = [
        beside(
            "accuracy",
            theirs["accuracy"] / 100,
            test["accuracy"],
            (test["accuracy_low"], test["accuracy_high"]),
            why_not=why,
        )
    ]
    names = [name.lower() for name in published()["images"]["classes"]]
    for place, own in enumerate(test["per_class"]):
        if own["class"].lower() not in names:
            continue
        at = names.index(own["class"].lower())
        for measure, (right, whole) in _counts(test["confusion"], place).items():
            interval = wilson_interval(right, whole) if whole else (None, None)
            row = beside(
                f"{measure} of {own['class']}",
                theirs[measure][at],
                own[measure],
                interval,
                why_not=why or ("" if whole else "nothing to divide by"),
            )
            rows.append(row)
    return rows


def _counts(confusion: Sequence[Sequence[int]], place: int) -> dict[str, tuple[int, int]]:
    """Right and all answers behind each measure of a class."""
    total = sum(map(sum, confusion))
    hit, true = confusion[place][place], sum(confusion[place])
    said = sum(row[place] for row in confusion)
    others = total - true
    return {
        "precision": (hit, said),
        "recall": (hit, true),
        "specificity": (others - (said - hit), others),
    }


def table3(by_angle: list[Record], cells: list[Record], num_images: int, *, sfew: bool) -> Record:
    """Means over the norm thresholds of each angle beside the paper's: accuracy, and units."""
    theirs = published()["table3"]
    why = "" if sfew else OTHER_IMAGES
    accuracy: list[Record] = []
    units: list[Record] = []
    for row in by_angle:
        if row["low_deg"] not in theirs["angles_deg"] or row["accuracy_mean"] is None:
            continue
        at = theirs["angles_deg"].index(row["low_deg"])
        mean = row["accuracy_mean"]
        accuracy.append(
            beside(
                f"{row['low_deg']:g} degrees",
                theirs["mean_accuracy"][at] / 100,
                mean,
                wilson_interval(round(mean * num_images), num_images),
                why_not=why,
            )
        )
        removed = [c["num_removed"] for c in cells if c["low_deg"] == row["low_deg"]]
        units.append(
            beside(
                f"{row['low_deg']:g} degrees",
                theirs["mean_num_pruned"][at],
                sum(removed) / len(removed),
                (min(removed), max(removed)),
                why_not=why or "how many units are similar is a property of the network trained",
            )
        )
    return {"accuracy": accuracy, "units": units}


def counted(rows: Sequence[Record]) -> dict[str, int]:
    """How many comparisons came out which way."""
    words = ("inside", "outside", "not comparable")
    return {word: sum(row["verdict"] == word for row in rows) for word in words}
