"""The network to use, by rules that are written down.

1. Networks that are larger or slower than asked for are left out.
2. Of the rest, the best has the highest accuracy on validation, adjusted by the cross-validation of
   its probe where there is one (see `estimate`); of equals the smallest file, and of files of one
   size the network that was made first.
3. Another one is as good when its difference to the best, paired by image, is not significant at 5%
   and at most the allowed loss.
4. Recommended is the smallest file of those that are as good; of files of one size the network with
   the highest of these accuracies, and of equals the one that was made first.

Between networks of one size time decides nothing: they have the same layers, and a clock would
choose another one in every run.

When no network is small and fast enough, the one that misses by the least is shown, and that it
misses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.fit.paired import PairedDifference
from secateurs.study.frontier.estimate import Judged, compare

ALPHA = 0.05


@dataclass(frozen=True)
class Network:
    """A saved network: its name, 10**6 bytes of weights, milliseconds, answers on validation.

    `control` is what its probe answers correctly of training and validation images, in this order.
    """

    name: str
    mb: float
    ms: float
    correct: NDArray[np.bool_]
    control: NDArray[np.bool_] | None = None

    @cached_property
    def judged(self) -> Judged:
        """Its answers with the control."""
        return Judged(self.correct, self.control)

    @property
    def accuracy(self) -> float:
        """The estimate of its accuracy; without a control that on the validation images."""
        return self.judged.accuracy

    @property
    def words(self) -> str:
        """Its accuracy on validation, and the estimate where that is another."""
        text = f"{float(self.correct.mean()):.1%} on validation"
        if self.control is None:
            return text
        return f"{text} ({self.accuracy:.1%} adjusted by cross-validation)"


@dataclass(frozen=True)
class Limits:
    """What a network may have at most; `max_loss` in points of validation accuracy."""

    max_mb: float | None
    max_ms: float | None
    max_loss: float

    def excess(self, network: Network) -> float:
        """How far a network is beyond the limits: 0 within them, 0.5 when half as much again."""
        over = [0.0]
        if self.max_mb is not None:
            over.append(network.mb / self.max_mb - 1)
        if self.max_ms is not None:
            over.append(network.ms / self.max_ms - 1)
        return max(over)


@dataclass(frozen=True)
class Answer:
    """The recommended network, the best that is allowed, and how each compares with that best.

    `meets` says whether the recommended one is within the limits; `as_good` are those between which
    size decided, `accuracy` the estimates. `sentences` say it in words.
    """

    name: str
    best: str
    meets: bool
    as_good: tuple[str, ...]
    accuracy: Mapping[str, float]
    to_best: Mapping[str, PairedDifference]
    sentences: tuple[str, ...]


def recommend_network(
    networks: Sequence[Network],
    limits: Limits,
    groups: Sequence[str] | None = None,
    all_groups: Sequence[str] | None = None,
) -> Answer:
    """Recommend one of several networks by the rules at the head of this file.

    `groups` name the group of each validation image, where images of one resemble each other, and
    `all_groups` those of the training images, then of the validation images.

    >>> right = np.array([True] * 90 + [False] * 10)
    >>> large, small = Network("large", 9.0, 5.0, right), Network("small", 3.0, 2.0, right)
    >>> recommend_network([large, small], Limits(None, None, 1.0)).name
    'small'
    """
    if not networks:
        raise InputError("no network was made: nothing to recommend")
    allowed = [network for network in networks if limits.excess(network) <= 0]
    meets = bool(allowed)
    if not meets:
        allowed = [min(networks, key=lambda one: (limits.excess(one), -one.accuracy))]
    best = min(allowed, key=lambda one: (-one.accuracy, one.mb))
    to_best = {one.name: compare(one.judged, best.judged, groups, all_groups) for one in networks}
    good = [one for one in allowed if one is best or as_good(to_best[one.name], limits.max_loss)]
    chosen = min(good, key=lambda one: (one.mb, -one.accuracy))
    sentences = _sentences(chosen, best, good, networks, limits, to_best, meets=meets)
    return Answer(
        name=chosen.name,
        best=best.name,
        meets=meets,
        as_good=tuple(one.name for one in good),
        accuracy={one.name: one.accuracy for one in networks},
        to_best=to_best,
        sentences=sentences,
    )


def as_good(gap: PairedDifference, max_loss: float) -> bool:
    """Rule 3: whether a difference of accuracy counts as none; `max_loss` in points."""
    small = gap.difference >= -max_loss / 100 - 1e-12
    return small and (gap.p_value >= ALPHA or gap.difference >= 0)


def _sentences(
    chosen: Network,
    best: Network,
    good: Sequence[Network],
    networks: Sequence[Network],
    limits: Limits,
    to_best: Mapping[str, PairedDifference],
    *,
    meets: bool,
) -> tuple[str, ...]:
    lines = [f"Use {chosen.name}: {chosen.words}, {chosen.mb:.1f} MB, {chosen.ms:.1f} ms."]
    most = max(networks, key=lambda one: one.accuracy)
    if not meets:
        lines.append(
            f"No network is within {_asked(limits)}. {chosen.name} is the nearest, at "
            f"{1 + limits.excess(chosen):.3g} times the limit."
        )
        if most.accuracy > chosen.accuracy:
            lines.append(_more(most))
        return tuple(lines)
    left_out = [one for one in networks if limits.excess(one) > 0]
    points = f"{limits.max_loss:g} {'point' if limits.max_loss == 1 else 'points'}"
    among = "Of those within the limits it" if left_out else "It"
    if chosen is not best:
        gap = to_best[chosen.name]
        lines.append(
            f"{best.name} has the highest accuracy"
            f"{' of those within the limits' if left_out else ''}, {best.words}, with "
            f"{best.mb:.1f} MB. The difference of {100 * abs(gap.difference):.1f} points is not "
            f"significant (95% {100 * gap.low:+.1f} to {100 * gap.high:+.1f}), and "
            f"{chosen.name} is the smallest within {points}."
        )
    elif len(good) == 1 and len(networks) > 1:
        lines.append(
            f"{among} has the highest accuracy, and no smaller network is within {points} of it."
        )
    if left_out:
        lines.append(f"{_many(len(left_out))} beyond {_asked(limits, word='or')}.")
        if most.accuracy > best.accuracy:
            lines.append(_more(most))
    return tuple(lines)


def _more(network: Network) -> str:
    return (
        f"Beyond the limits {network.name} has {network.words} with {network.mb:.1f} MB "
        f"and {network.ms:.1f} ms."
    )


def _many(number: int) -> str:
    return "1 network is" if number == 1 else f"{number} networks are"


def _asked(limits: Limits, *, word: str = "and") -> str:
    parts = [
        f"{limits.max_mb:g} MB" if limits.max_mb is not None else "",
        f"{limits.max_ms:g} ms" if limits.max_ms is not None else "",
    ]
    return f" {word} ".join(part for part in parts if part)
