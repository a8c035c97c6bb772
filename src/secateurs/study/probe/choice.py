"""Which networks, and which of their depths, are worth fine-tuning: what the probe says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.fit.paired import paired_difference
from secateurs.study.probe.network import NetworkProbe, Record

HALF = 0.5  # of the way from the majority class to the network's best depth


@dataclass(frozen=True)
class Suggestion:
    """A network to fine-tune: its best probed depth, and the depths to freeze, likeliest first.

    `difference` is the accuracy of its best depth less that of the best network, on the same
    images (training images out of their group, and validation images), with its 95% interval.
    """

    backbone: str
    best_depth: int
    accuracy: float
    difference: float
    low: float
    high: float
    freeze: tuple[int, ...]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "freeze": list(self.freeze)}


def everything(record: Record) -> bool:
    """The predicate that admits every network."""
    return True


def suggest(
    probes: Sequence[NetworkProbe],
    labels: NDArray[np.int64],
    groups: Sequence[str] | None,
    *,
    num: int = 3,
    allowed: Callable[[Record], bool] = everything,
) -> tuple[Suggestion, ...]:
    """The `num` networks to fine-tune, best first; the test images decide nothing.

    `labels` and `groups` are those of the training images, then of the validation images, on which
    networks are compared image by image. `allowed` gets a network's record and says whether the
    constraints admit it. First comes the best network, then the smallest that is not significantly
    worse, then the others by accuracy. Empty when none is allowed.

    The first depth to freeze is the first that knows half of what the network's best depth does
    beyond the majority class: its features serve the images, and what comes after is left to learn.
    Then come the probed depths around it. Layers with random weights are never frozen.
    """
    usable = [one for one in probes if allowed(one.record)]
    if not usable:
        return ()
    majority = float(np.bincount(labels).max()) / len(labels)
    depth = {one.name: best_depth(one, labels) for one in usable}
    correct = {one.name: one.correct(depth[one.name], labels) for one in usable}
    ranked = sorted(usable, key=lambda one: -float(correct[one.name].mean()))
    best = ranked[0]
    against = {
        one.name: paired_difference(correct[one.name], correct[best.name], groups) for one in ranked
    }
    level = [one for one in ranked if against[one.name].high >= 0 or one is best]
    smallest = min(level, key=lambda one: one.record["num_parameters"])
    order = [best, *([smallest] if smallest is not best else [])]
    order += [one for one in ranked if one not in order]
    found: list[Suggestion] = []
    for one in order[:num]:
        difference = against[one.name]
        found.append(
            Suggestion(
                backbone=one.name,
                best_depth=depth[one.name],
                accuracy=float(correct[one.name].mean()),
                difference=difference.difference,
                low=difference.low,
                high=difference.high,
                freeze=_freeze(one, labels, majority),
                reason=_reason(one, best=best, smallest=smallest, level=level),
            )
        )
    return tuple(found)


def best_depth(found: NetworkProbe, labels: NDArray[np.int64]) -> int:
    """The depth that classifies most images correctly; of several the deepest."""
    depths = [row["depth"] for row in found.record["depths"]]
    return max(depths, key=lambda depth: (int(found.correct(depth, labels).sum()), depth))


def _freeze(found: NetworkProbe, labels: NDArray[np.int64], majority: float) -> tuple[int, ...]:
    rows = [row for row in found.record["depths"] if not row["random_frozen"]]
    depths = [row["depth"] for row in rows]
    if not depths:
        return (0,)
    known = [float(found.correct(depth, labels).mean()) for depth in depths]
    wanted = majority + HALF * (max(known) - majority)
    first = next(place for place, share in enumerate(known) if share >= wanted)
    around = sorted(range(len(depths)), key=lambda place: (abs(place - first), place))
    return tuple(depths[place] for place in around)


def _reason(
    one: NetworkProbe,
    *,
    best: NetworkProbe,
    smallest: NetworkProbe,
    level: Sequence[NetworkProbe],
) -> str:
    if one is best:
        return "the best of the networks probed"
    if one is smallest:
        return "the smallest that is not significantly worse than the best"
    if one in level:
        return "not significantly worse than the best"
    return "significantly worse than the best"
