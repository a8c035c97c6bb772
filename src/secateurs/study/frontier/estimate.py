"""Accuracy from the validation images, steadied by what cross-validation says of the probe.

A few validation images may happen to be easy. How easy they are is seen from the network's own
probe, a classifier on its frozen features: its accuracy is known on the validation images and, each
image left out with its group, on all training images too. The gap between both is what the draw of
the validation images did to the probe, and a network that is right and wrong on the same images
shares it. This is the method of control variates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from secateurs.errors import InputError
from secateurs.fit.paired import LEVEL, PairedDifference, paired_difference

Correct = NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """Which validation images a network answers correctly, (num_val,).

    `control` (num_train + num_val,) says which images its probe answers correctly: training images
    out of their group, then the validation images. None where there is no probe.
    """

    correct: Correct
    control: Correct | None = None

    def __post_init__(self) -> None:
        if self.control is not None and len(self.control) < len(self.correct):
            raise InputError(
                f"the control must have the {len(self.correct)} validation images last, got "
                f"{len(self.control)} images"
            )

    @property
    def share(self) -> float:
        """How much of the probe's gap the network shares, 0..1: their covariance over its variance.

        1 for the probe itself.
        """
        if self.control is None:
            return 0.0
        own, probe = self.correct.astype(float), self._control_val.astype(float)
        spread = float(probe.var())
        if spread == 0:
            return 0.0
        return min(
            1.0, max(0.0, float(np.mean((own - own.mean()) * (probe - probe.mean()))) / spread)
        )

    @property
    def accuracy(self) -> float:
        """The estimate, 0..1.

        >>> probe = np.array([True, False, True, True])
        >>> Judged(probe[2:], probe).accuracy
        1.0
        """
        return float(np.clip(self.correct.mean() + self._shift(), 0.0, 1.0))

    @property
    def _control_val(self) -> Correct:
        assert self.control is not None, "the caller has looked"
        return self.control[len(self.control) - len(self.correct) :]

    def _shift(self) -> float:
        if self.control is None:
            return 0.0
        return self.share * float(self.control.mean() - self._control_val.mean())

    def part(self) -> NDArray[np.float64] | None:
        """The control times its share, (num_train + num_val,)."""
        return None if self.control is None else self.share * self.control.astype(float)


def compare(
    one: Judged,
    other: Judged,
    groups: Sequence[str] | None = None,
    all_groups: Sequence[str] | None = None,
) -> PairedDifference:
    """The estimate of one network less that of another on the same images, with interval and p.

    `groups` are those of the validation images, `all_groups` of the training images, then of the
    validation images. Without controls, or where both have the same part in theirs, this is
    `paired_difference`. Else the difference is a weighted sum over images, of which groups (images
    where there are none) are what varies: Student's t with as many degrees of freedom as the
    validation images have groups, less one.
    """
    first, second = one.part(), other.part()
    if first is None or second is None or np.array_equal(first, second):
        return paired_difference(one.correct, other.correct, groups)
    num_val, num = len(one.correct), len(first)
    if len(second) != num or len(other.correct) != num_val:
        raise InputError("expected two networks that were judged on the same images")
    control = first - second
    gap = one.correct.astype(float) - other.correct.astype(float) - control[num - num_val :]
    mean = float(gap.mean() + control.mean())
    influence = (control - control.mean()) / num
    influence[num - num_val :] += (gap - gap.mean()) / num_val
    names = np.arange(num) if all_groups is None else np.unique(all_groups, return_inverse=True)[1]
    sums = np.bincount(names, weights=influence)
    count = len(sums)
    freedom = (num_val if groups is None else len(set(groups))) - 1
    if count < 2 or freedom < 1:
        return PairedDifference(mean, -1.0, 1.0, 1.0)
    error = float(np.sqrt((sums**2).sum() * count / (count - 1)))
    if error == 0:
        return PairedDifference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    half = float(stdtrit(freedom, 0.5 + LEVEL / 2)) * error
    p_value = float(2 * stdtr(freedom, -abs(mean) / error))
    return PairedDifference(mean, max(-1.0, mean - half), min(1.0, mean + half), p_value)
