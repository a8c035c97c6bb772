"""Can the networks be trusted: calibration, "don't know", groups, rare classes, shifted images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateurs.data.corruptions import CORRUPTIONS, corrupt
from secateurs.fit.confidence import (
    answered_at,
    coverage_curve,
    fit_temperature,
    reliability,
    thinned,
    threshold_for,
)
from secateurs.fit.metrics import grouped_interval
from secateurs.fit.paired import paired_difference
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.saved.confidence import Confidence
from secateurs.study.saved.evaluation import side_logits
from secateurs.study.setup.trial_context import Dataset

TARGET = 0.95  # accuracy of what is answered, for the threshold
MOST_GROUPS = 40
Record = dict[str, Any]
Correct = NDArray[np.bool_]


def find_confidence(
    logits: torch.Tensor, labels: NDArray[np.int64], *, target: float = TARGET
) -> Confidence:
    """Temperature and threshold from validation images: logits (n, classes), labels (n,).

    Targets are smoothed by one image in n + 1 (Platt 1999): where every image is right, the
    temperature would be zero otherwise. The threshold answers as many images as it can while
    `target` of the answers are right with 95% confidence, or, where these are too few images to
    say so, it has the highest such bound. It is 0 where all images may be answered, and not the
    least confidence among them, which a new image may well have less of.
    """
    temperature = fit_temperature(logits, labels, smoothing=1 / (len(labels) + 1))
    found = threshold_for(coverage_curve(_probabilities(logits, temperature), labels), target)
    if found is None:
        return Confidence(temperature, None, target, None)
    point, bound = found
    threshold = 0.0 if point.coverage == 1 else point.threshold
    return Confidence(temperature, threshold, target, point.coverage, bound)


def trust_record(
    models: Mapping[str, torch.nn.Module],
    dataset: Dataset,
    groups: tuple[str, ...] | None,
    *,
    side: str = "test",
    target: float = TARGET,
    known: Mapping[str, Confidence] | None = None,
    device: torch.device,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Record:
    """Measure networks on a side; `models` are "before" and, where one was pruned, "after".

    Temperature and threshold come from the validation images, or are `known`, as those of a network
    that was trained on these must be. `groups` are those of the side's
    images, in order, where they are known. Every measure is of the same images for all networks.
    """
    images = dataset.sides[side]
    names = list(CORRUPTIONS)
    total = len(models) * (len(dataset.sides["val"]) + (1 + len(names)) * len(images))
    found: Record = {}
    clean: dict[str, Correct] = {}
    shifted: dict[str, dict[str, Correct]] = {}
    with progress.task("trust", total) as advance:
        for when, model in models.items():
            confidence = (known or {}).get(when)
            if confidence is None:
                val = side_logits(model, dataset, "val", device, advance=advance)
                confidence = find_confidence(val, dataset.sides["val"].labels, target=target)
            logits = side_logits(model, dataset, side, device, advance=advance)
            clean[when] = _correct(logits, images.labels)
            found[when] = _calibration(logits, images.labels, confidence)
            shifted[when] = {}
        for name in names:
            pixels = corrupt(images.eval_pixels, images.ids, name)
            other = replace(
                dataset, sides={**dataset.sides, side: replace(images, eval_pixels=pixels)}
            )
            for when, model in models.items():
                if stop is not None:
                    stop.check()
                logits = side_logits(model, other, side, device, advance=advance)
                shifted[when][name] = _correct(logits, images.labels)
    rare = _rare(dataset, side)
    return {
        "side": side,
        "num_images": len(images),
        "num_groups": None if groups is None else len(set(groups)),
        "target": target,
        "networks": found,
        "corruptions": [
            {"name": name} | _compared({w: shifted[w][name] for w in models}, groups)
            for name in names
        ],
        "clean": _compared(clean, groups),
        "rare": _parts(clean, groups, rare),
        "groups": _by_group(clean, groups),
    }


def _probabilities(logits: torch.Tensor, temperature: float) -> NDArray[np.float64]:
    return torch.softmax(logits.double() / temperature, 1).numpy()


def _correct(logits: torch.Tensor, labels: NDArray[np.int64]) -> Correct:
    return logits.argmax(1).numpy() == labels


def _calibration(logits: torch.Tensor, labels: NDArray[np.int64], confidence: Confidence) -> Record:
    calibrated = _probabilities(logits, confidence.temperature)
    curve = coverage_curve(calibrated, labels)
    answered = None
    if confidence.threshold is not None:
        answered = answered_at(calibrated, labels, confidence.threshold)
    return {
        "confidence": confidence.to_json(),
        "uncalibrated": reliability(_probabilities(logits, 1.0), labels).to_json(),
        "calibrated": reliability(calibrated, labels).to_json(),
        "coverage": [asdict(one) for one in thinned(curve)],
        "answered": None if answered is None else asdict(answered),
    }


def _compared(correct: Mapping[str, Correct], groups: tuple[str, ...] | None) -> Record:
    """Accuracy of each network with its interval, and of after less before, paired."""
    record: Record = {}
    for when, own in correct.items():
        low, high = grouped_interval(own, groups)
        record[when] = {"accuracy": float(own.mean()), "low": low, "high": high}
    record["difference"] = None
    if "after" in correct:
        found = paired_difference(correct["after"], correct["before"], groups)
        record["difference"] = {"mean": found.difference, "low": found.low, "high": found.high}
    return record


def _rare(dataset: Dataset, side: str) -> NDArray[np.bool_]:
    """Images of the classes that have fewer training images than the median class."""
    counts = np.bincount(dataset.sides["train"].labels, minlength=len(dataset.classes))
    return counts[dataset.sides[side].labels] < np.median(counts)


def _parts(
    correct: Mapping[str, Correct], groups: tuple[str, ...] | None, rare: NDArray[np.bool_]
) -> list[Record]:
    """The rarer classes and the others apart: does the cut hurt the rare ones first?"""
    parts: list[Record] = []
    for name, rows in (("rarer classes", rare), ("other classes", ~rare)):
        if not rows.any():
            continue
        own = None if groups is None else tuple(np.asarray(groups)[rows].tolist())
        some = {when: answers[rows] for when, answers in correct.items()}
        parts.append({"name": name, "num_images": int(rows.sum())} | _compared(some, own))
    return parts


def _by_group(correct: Mapping[str, Correct], groups: tuple[str, ...] | None) -> Record | None:
    """Accuracy of each group; the largest loss first, then the lowest accuracy."""
    if groups is None:
        return None
    names, own = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(own)
    right = {when: np.bincount(own, weights=answers) for when, answers in correct.items()}
    last = right["after"] if "after" in right else right["before"]
    loss = right["before"] - last
    order = np.lexsort((last / sizes, -loss))
    rows = [
        {"group": str(names[k]), "num_images": int(sizes[k])}
        | {when: int(counts[k]) for when, counts in right.items()}
        for k in order[:MOST_GROUPS].tolist()
    ]
    return {
        "num_groups": len(names),
        "num_worse": int((loss > 0).sum()),
        "num_better": int((loss < 0).sum()),
        "all_wrong": {when: int((counts == 0).sum()) for when, counts in right.items()},
        "rows": rows,
    }
