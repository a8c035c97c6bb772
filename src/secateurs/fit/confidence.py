"""How far a network's probabilities can be believed, and from which on it should answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betaincinv
from torch import Tensor
from torch.nn import functional

from secateurs.errors import InputError
from secateurs.fit.metrics import wilson_interval

NUM_BINS = 10
CURVE_POINTS = 50
LEVEL = 0.95  # confidence in a threshold


def fit_temperature(scores: Tensor, labels: NDArray[np.int64], *, smoothing: float = 0.0) -> float:
    """The temperature T > 0 for which softmax(scores / T) is most likely (Guo et al. 2017).

    `scores` (images, classes). The cross-entropy is convex in 1 / T, which is found by Newton's
    method; between 1/1000 and 1000 of the scores' standard deviation. `smoothing` is the share of
    each target that is spread over all classes: without it, scores that classify every image
    correctly have no finite temperature (Platt 1999).

    >>> scores = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    >>> round(fit_temperature(scores, np.array([0, 1, 1])), 3)
    2.885
    """
    scores = scores.double()
    spread = float(scores.std(unbiased=False)) or 1.0
    z = scores / spread
    own = z.gather(1, torch.from_numpy(np.asarray(labels))[:, None])[:, 0]
    own = (1 - smoothing) * own + smoothing * z.mean(1)
    low, high = 1e-3, 1e3
    slope = 1.0  # 1 / T, in units of the spread
    for _ in range(100):
        p = functional.softmax(slope * z, 1)
        mean = (p * z).sum(1)
        gradient = float((mean - own).mean())
        low, high = (slope, high) if gradient < 0 else (low, slope)
        curvature = float(((p * z.square()).sum(1) - mean.square()).mean())
        following = slope - gradient / curvature if curvature > 1e-12 else 0.0
        if not low < following < high:
            following = (low * high) ** 0.5
        if abs(following / slope - 1) < 1e-10:
            break
        slope = following
    return spread / slope


@dataclass(frozen=True)
class Bin:
    """Images whose confidence is in `low`..`high`: their number, mean confidence and accuracy."""

    low: float
    high: float
    num_images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram, and the expected calibration error, 0..1."""

    bins: tuple[Bin, ...]
    error: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"error": self.error, "bins": [asdict(one) for one in self.bins]}


def reliability(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], *, num_bins: int = NUM_BINS
) -> Reliability:
    """Confidence against accuracy in bins of equal width (Guo et al. 2017, equation 3).

    `probabilities` (images, classes), `labels` (images,). The confidence is the largest
    probability; the expected calibration error is the mean of |accuracy - confidence| over bins,
    weighted by their images. A confidence on the border of two bins is in the lower one.

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.65, 0.35], [0.4, 0.6]])
    >>> round(reliability(p, np.array([0, 1, 0, 1]), num_bins=2).error, 4)
    0.0125
    """
    _check(probabilities, labels)
    confidence, correct = _answers(probabilities, labels)
    places = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    counts = np.bincount(places, minlength=num_bins)
    confident = np.bincount(places, weights=confidence, minlength=num_bins)
    right = np.bincount(places, weights=correct, minlength=num_bins)
    bins = tuple(
        Bin(
            k / num_bins,
            (k + 1) / num_bins,
            int(counts[k]),
            float(confident[k] / counts[k]) if counts[k] else None,
            float(right[k] / counts[k]) if counts[k] else None,
        )
        for k in range(num_bins)
    )
    return Reliability(bins, float(np.abs(right - confident).sum() / len(labels)))


@dataclass(frozen=True)
class Answered:
    """What is left when only images with a confidence of at least `threshold` are answered.

    `coverage` is their share and `accuracy` theirs, with its 95% Wilson interval; all in 0..1.
    """

    threshold: float
    coverage: float
    num_images: int
    accuracy: float
    low: float
    high: float


def coverage_curve(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[Answered, ...]:
    """Accuracy against coverage at every threshold that answers another number of images.

    The largest coverage first.

    >>> p = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    >>> [(one.num_images, one.accuracy) for one in coverage_curve(p, np.array([0, 0, 1]))][1:]
    [(2, 1.0), (1, 1.0)]
    """
    _check(probabilities, labels)
    confidence, correct = _answers(probabilities, labels)
    order = np.argsort(-confidence, kind="stable")
    ranked, right = confidence[order], np.cumsum(correct[order])
    last = np.flatnonzero(np.diff(ranked, append=-1.0))  # images of the same confidence go together
    found: list[Answered] = []
    for place in last[::-1].tolist():
        num = place + 1
        low, high = wilson_interval(int(right[place]), num)
        found.append(
            Answered(
                float(ranked[place]), num / len(labels), num, float(right[place] / num), low, high
            )
        )
    return tuple(found)


def thinned(curve: tuple[Answered, ...], num: int = CURVE_POINTS) -> tuple[Answered, ...]:
    """At most `num` points of a curve, the first and the last among them."""
    if len(curve) <= num:
        return curve
    places = np.unique(np.linspace(0, len(curve) - 1, num).round().astype(int))
    return tuple(curve[place] for place in places)


def least_accuracy(num_right: int, num: int, level: float = LEVEL) -> float:
    """The accuracy that is exceeded with confidence `level` when `num_right` of `num` are right.

    The one-sided bound of Clopper and Pearson (1934).

    >>> round(least_accuracy(58, 58), 4), round(least_accuracy(59, 59), 4)
    (0.9497, 0.9505)
    """
    if num_right == 0:
        return 0.0
    return float(betaincinv(num_right, num - num_right + 1, 1 - level))


def threshold_for(curve: tuple[Answered, ...], target: float) -> tuple[Answered, float] | None:
    """The point of largest coverage that is `target` accurate with confidence, and its bound.

    The bound is `least_accuracy`. Where no point has `target`, as happens on few images, it is the
    point with the highest bound; None when nothing is right.

    >>> p = np.tile([[0.9, 0.1]], (60, 1))
    >>> found, bound = threshold_for(coverage_curve(p, np.zeros(60, int)), 0.95)
    >>> found.num_images, round(bound, 3)
    (60, 0.951)
    """
    rows = [
        (one, least_accuracy(round(one.accuracy * one.num_images), one.num_images)) for one in curve
    ]
    sure = next((row for row in rows if row[1] >= target), None)
    if sure is not None or not any(one.accuracy for one in curve):
        return sure
    return max(rows, key=lambda row: row[1])


def answered_at(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], threshold: float
) -> Answered | None:
    """What is answered at a threshold that was found on other images; None when nothing is."""
    _check(probabilities, labels)
    confidence, correct = _answers(probabilities, labels)
    kept = confidence >= threshold
    num = int(kept.sum())
    if not num:
        return None
    right = int(correct[kept].sum())
    return Answered(threshold, num / len(labels), num, right / num, *wilson_interval(right, num))


def _answers(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return probabilities.max(1), probabilities.argmax(1) == labels


def _check(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
    if probabilities.ndim != 2 or len(probabilities) != len(labels) or len(labels) == 0:
        raise InputError(
            f"probabilities must be ({len(labels)} images, classes), got {probabilities.shape}"
        )
