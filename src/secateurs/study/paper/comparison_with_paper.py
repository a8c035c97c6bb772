"""Each published number beside ours: inside our interval, outside, or not comparable, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secateurs.fit.metrics import wilson_interval
from secateurs.study.paper.published_numbers import published
from secateurs.study.sweep.statistics import summarise

Record = dict[str, Any]
OTHER_IMAGES = "other images than the paper's 675 frames"
OTHER_NETWORK = "how many units are alike is a property of the network trained"


def beside(
    what: str,
    theirs: float,
    ours: float | None,
    interval: tuple[float | None, float | None],
    *,
    why_not: str,
    rounding: float = 5e-5,
) -> Record:
    """One comparison; all numbers on one scale. `why_not` non-empty means not comparable.

    `rounding` is half the last digit that the paper prints.

    >>> beside("mean", 0.47, 0.45, (0.43, 0.48), why_not="")["verdict"]
    'inside'
    """
    low, high = interval
    if why_not:
        verdict = "not comparable"
    elif ours is None or low is None or high is None:
        verdict, why_not = "not comparable", "no interval: a single run"
    else:
        verdict = "inside" if low - rounding <= theirs <= high + rounding else "outside"
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
    records: Sequence[Record],
    names: Sequence[str],
    fresh: Sequence[str],
    *,
    why: Sequence[str] = (),
) -> list[Record]:
    """Mean test accuracy of each depth and of scratch, beside the paper's, in ascending depth.

    `names` are the layers in order and `fresh` those that had no pretrained weights: a depth at
    which one of them is frozen is not what the paper ran, and one at which it is trained started
    from less. `why` says what makes all of it another experiment.
    """
    theirs = {row["depth"]: row for row in published()["table1"]}
    kinds = sorted({(not r["pretrained"], r["depth"]) for r in records})
    new = [name for name in names[:-1] if name in fresh]
    rows: list[Record] = []
    for scratch, depth in kinds:
        own = [r for r in records if r["depth"] == depth and r["pretrained"] != scratch]
        found = summarise([r["test"]["accuracy"] for r in own])
        mean = published()["scratch_mean"] if scratch else theirs[depth]["mean"]
        frozen = [name for name in names[:depth] if name in new and not scratch]
        trained = [name for name in new if name not in frozen and not scratch]
        reasons = [*why, *([f"{' and '.join(frozen)} frozen with random weights"] * bool(frozen))]
        row = beside(
            "no pretrained weights" if scratch else f"{depth} frozen layers",
            mean / 100,
            found.mean,
            (found.low, found.high),
            why_not="; ".join(reasons),
        )
        if row["verdict"] != "not comparable" and trained:
            row["why"] = f"{' and '.join(trained)} started from random weights"
        rows.append(
            row
            | {
                "published_runs": [] if scratch else [run / 100 for run in theirs[depth]["runs"]],
                "depth": depth,
                "pretrained": not scratch,
                "runs": [r["test"]["accuracy"] for r in own],
                "val_runs": [r["val_accuracy"] for r in own],
                "timing": {
                    "seconds_per_trial": sum(r["timing"]["seconds"] for r in own) / len(own)
                },
            }
        )
    return rows


def table2(test: Record, *, why: Sequence[str] = ()) -> list[Record]:
    """Accuracy and the SPI measures of the best network beside the paper's, Wilson's intervals."""
    theirs = published()["table2"]
    rows = [
        beside(
            "accuracy",
            theirs["accuracy"] / 100,
            test["accuracy"],
            (test["accuracy_low"], test["accuracy_high"]),
            why_not="; ".join(why),
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
                why_not="; ".join(why) or ("" if whole else "nothing to divide by"),
                rounding=0.005,
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


def table3(
    by_angle: Sequence[Record],
    cells: Sequence[Record],
    num_images: int,
    *,
    why: Sequence[str] = (),
) -> Record:
    """Means over the norm thresholds of each angle beside the paper's: accuracy, and units.

    A mean accuracy has Wilson's interval as if one network had it on all `num_images`; a mean
    number of units has the range over the thresholds, and is not comparable.
    """
    theirs = published()["table3"]
    accuracy: list[Record] = []
    units: list[Record] = []
    for row in by_angle:
        if row["low_deg"] not in theirs["angles_deg"] or row["accuracy_mean"] is None:
            continue
        at = theirs["angles_deg"].index(row["low_deg"])
        mean, what = row["accuracy_mean"], f"{row['low_deg']:g} degrees"
        interval = wilson_interval(round(mean * num_images), num_images)
        accuracy.append(
            beside(what, theirs["mean_accuracy"][at] / 100, mean, interval, why_not="; ".join(why))
        )
        removed = [c["num_removed"] for c in cells if c["low_deg"] == row["low_deg"]]
        units.append(
            beside(
                what,
                theirs["mean_num_pruned"][at],
                sum(removed) / len(removed),
                (min(removed), max(removed)),
                why_not="; ".join([*why, OTHER_NETWORK]),
            )
        )
    return {"accuracy": accuracy, "units": units}


def grid(cells: Sequence[Record], *, why: Sequence[str] = ()) -> list[Record]:
    """The accuracy of each cell beside the paper's grid, with the units that both removed."""
    theirs = published()["grid"]
    rows: list[Record] = []
    for cell in cells:
        low, std = cell["low_deg"], cell["norm_std"]
        if low not in theirs["angles_deg"] or std not in theirs["norm_stds"]:
            continue
        row, column = theirs["norm_stds"].index(std), theirs["angles_deg"].index(low)
        found = beside(
            f"{low:g} degrees, {std:g} deviations",
            theirs["accuracy"][row][column],
            cell["accuracy"],
            (cell["accuracy_low"], cell["accuracy_high"]),
            why_not="; ".join(why) or ("" if cell["accuracy"] is not None else "no unit left"),
        )
        rows.append(
            found
            | {
                "low_deg": low,
                "norm_std": std,
                "published_removed": theirs["num_pruned"][row][column],
                "removed": cell["num_removed"],
            }
        )
    return rows


def counted(rows: Sequence[Record]) -> dict[str, int]:
    """How many comparisons came out which way."""
    words = ("inside", "outside", "not comparable")
    return {word: sum(row["verdict"] == word for row in rows) for word in words}
