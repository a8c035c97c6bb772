"""Two networks compared on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtri, stdtr, stdtrit

from secateurs.errors import InputError

LEVEL = 0.95


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of one network less that of another, on the same images; fractions of one.

    `low` and `high` bound it with 95%; `p_value` is two-sided, that there is no difference.
    """

    difference: float
    low: float
    high: float
    p_value: float


def paired_difference(
    correct: NDArray[np.bool_], other: NDArray[np.bool_], groups: Sequence[str] | None = None
) -> PairedDifference:
    """Compare two networks by which of the same images, (n,) each, they answer correctly.

    Without groups: McNemar's exact test, and the interval of Agresti and Min (2005), which adds a
    half to each of the four counts. With `groups`, whose images resemble each other: differences
    are summed by group, and groups are what varies (Student's t over groups).

    >>> both = np.array([True] * 80 + [False] * 20)
    >>> paired_difference(both, both).p_value
    1.0
    """
    if correct.shape != other.shape or correct.ndim != 1 or not len(correct):
        raise InputError(f"expected two equal rows of answers, got {correct.shape}, {other.shape}")
    gap = correct.astype(np.int64) - other.astype(np.int64)
    if groups is not None and len(set(groups)) > 1:
        return _by_group(gap, groups)
    n, better, worse = len(gap), int((gap > 0).sum()), int((gap < 0).sum())
    mean = (better - worse) / n
    # Agresti and Min: Wald's interval with two images more, spread over the four cells.
    middle = (better - worse) / (n + 2)
    variance = (better + worse + 1 - (better - worse) ** 2 / (n + 2)) / (n + 2) ** 2
    half = float(ndtri(0.5 + LEVEL / 2)) * variance**0.5
    discordant = better + worse
    p_value = min(1.0, 2 * float(bdtr(min(better, worse), discordant, 0.5))) if discordant else 1.0
    return PairedDifference(mean, max(-1.0, middle - half), min(1.0, middle + half), p_value)


def _by_group(gap: NDArray[np.int64], groups: Sequence[str]) -> PairedDifference:
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(place)
    sums = np.bincount(place, weights=gap)
    mean = float(gap.mean())
    # The ratio estimator's standard error: a group's sum less what its size would give.
    rest = sums - mean * sizes
    freedom = len(names) - 1
    error = float(np.sqrt((rest**2).sum() * len(names) / freedom)) / len(gap)
    if error == 0:
        return PairedDifference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    half = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * error
    p_value = float(2 * stdtr(freedom, -abs(mean) / error))
    return PairedDifference(mean, max(-1.0, mean - half), min(1.0, mean + half), p_value)
