"""How many units of each group to keep: taken where they cost the least loss for what they save."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from secateurs.errors import InputError
from secateurs.prune.allocation.cost_model import Kept as Kept
from secateurs.prune.allocation.cost_model import Price as Price
from secateurs.prune.allocation.cost_model import Widths as Widths
from secateurs.prune.allocation.elimination import Elimination

FINER = 12  # a step goes from k units to about k - k / FINER
CORRECTIONS = 5  # times that the last step is measured and the predicted prices corrected
CLOSE = 1e-4  # of the whole: a predicted price as close as that counts as measured

By = Literal["both", "macs", "params"]


@dataclass(frozen=True)
class Step:
    """A point on the trajectory: units kept by then, the price, and the loss as predicted."""

    kept: Kept
    price: Price
    loss: float


@dataclass(frozen=True)
class _Wanted:
    """Fractions of the whole that are asked for, and what counts where none is."""

    params: float | None
    macs: float | None
    by: By

    @property
    def limited(self) -> bool:
        return self.params is not None or self.macs is not None

    def weights(self, part: Price) -> tuple[bool, bool]:
        """Whether multiply-accumulates and parameters have still to come down."""
        if not self.limited:
            return self.by != "params", self.by != "macs"
        return (
            self.macs is not None and part.macs > self.macs,
            self.params is not None and part.parameters > self.params,
        )

    def met(self, part: Price) -> bool:
        return not any(self.weights(part))


def descent(
    widths: Widths,
    eliminations: Mapping[str, Elimination],
    *,
    params: float | None = None,
    macs: float | None = None,
    by: By = "both",
    start: Mapping[str, int] | None = None,
    round_to: int = 1,
    fewest: int = 1,
) -> list[Step]:
    """The trajectory from the unpruned network to the budgets, each step where loss is cheapest.

    `params` and `macs` are fractions of the whole (0..1). The trajectory ends with the first step
    within all that are given, or with `fewest` channels in every group when none is. A step takes
    units of the group whose loss rises the least for what is saved of the budgets not yet met
    (without any, of what `by` names), counted as fractions of the whole; the last step goes no
    further than the budgets ask. The last step's price is counted on the narrowed network; where it
    differs from the predicted one, the trajectory is found again with corrected prices. `start` are
    units kept to go on from. `round_to` keeps every group's channels a multiple of it. Raises
    InputError for a budget outside 0..1, and when it cannot be met, with what is possible.
    """
    for word, value in (("params", params), ("macs", macs)):
        if value is not None and not 0 < value <= 1:
            raise InputError(f"{word}: expected a fraction of the whole, 0..1, got {value:g}")
    if round_to < 1 or fewest < 1:
        raise InputError("round_to and fewest: expected at least 1")
    wanted = _Wanted(params, macs, by)

    def found() -> list[Step]:
        kept = {**widths.whole, **(start or {})}
        return _trajectory(_Descent(widths, eliminations, kept, round_to, fewest), wanted)

    trajectory = found()
    if not wanted.limited:
        return trajectory
    best: list[Step] = []
    for _ in range(CORRECTIONS):
        real = widths.measured(trajectory[-1].kept)
        apart = widths.fraction(real - trajectory[-1].price)
        if wanted.met(widths.fraction(real)):
            best = [*trajectory[:-1], replace(trajectory[-1], price=real)]
        if max(abs(apart.macs), abs(apart.parameters)) <= CLOSE:
            break
        widths.correct(trajectory[-1].kept, real)
        trajectory = found()
    if not best:
        reached = widths.fraction(widths.measured(trajectory[-1].kept))
        raise InputError(
            f"budget: the least that cutting can reach is {reached.parameters:.3g} of the "
            f"parameters and {reached.macs:.3g} of the multiply-accumulates"
        )
    return best


def _trajectory(walk: _Descent, wanted: _Wanted) -> list[Step]:
    """The trajectory at predicted prices; it ends outside the budgets that cannot be met."""
    trajectory = [walk.here()]
    while any(weights := wanted.weights(walk.part())):
        if not walk.take_step(weights):
            break
        trajectory.append(walk.here())
    if len(trajectory) > 1 and wanted.met(walk.part()):
        trajectory[-1] = walk.shorten_last_step(trajectory[-2], wanted.met)
    return trajectory


class _Descent:
    """Where a descent stands, and what the next steps of each group would cost."""

    def __init__(
        self,
        widths: Widths,
        eliminations: Mapping[str, Elimination],
        kept: Kept,
        round_to: int,
        fewest: int,
    ) -> None:
        self.widths, self.eliminations, self.kept = widths, eliminations, kept
        self.price = widths.price(kept)
        self.ladders = {
            name: _ladder(units, *_in_units(widths.channels[name], round_to, fewest))
            for name, units in widths.whole.items()
            if name in eliminations
        }
        self.loss = sum(eliminations[name].loss_of(kept[name]) for name in self.ladders)
        self.queue: list[tuple[float, str, int]] = []
        self.weights: tuple[bool, bool] | None = None

    def here(self) -> Step:
        return Step(dict(self.kept), self.price, self.loss)

    def part(self) -> Price:
        """What is left of the whole, as fractions."""
        return self.widths.fraction(self.price)

    def take_step(self, weights: tuple[bool, bool]) -> bool:
        """Take the cheapest step; False when there is none."""
        if weights != self.weights:
            self.weights = weights
            self.queue = [entry for name in self.ladders if (entry := self._best(name))]
            heapq.heapify(self.queue)
        while self.queue:
            _, name, _ = heapq.heappop(self.queue)
            fresh = self._best(name)  # what else was cut meanwhile has changed what it saves
            if fresh is None:
                continue
            if self.queue and fresh[0] > self.queue[0][0] * (1 + 1e-9):
                heapq.heappush(self.queue, fresh)
                continue
            self._take(name, fresh[2])
            if (entry := self._best(name)) is not None:
                heapq.heappush(self.queue, entry)
            return True
        return False

    def shorten_last_step(self, before: Step, enough: Callable[[Price], bool]) -> Step:
        """The last step, from `before` to here, with as many units kept as is still enough."""
        name = next(name for name in self.ladders if before.kept[name] != self.kept[name])
        for keep in self.ladders[name]:
            if before.kept[name] > keep > self.kept[name]:
                kept = {**self.kept, name: keep}
                price = self.widths.price(kept)
                if enough(self.widths.fraction(price)):
                    curve = self.eliminations[name]
                    loss = self.loss + curve.loss_of(keep) - curve.loss_of(self.kept[name])
                    return Step(kept, price, loss)
        return self.here()

    def _take(self, name: str, keep: int) -> None:
        curve = self.eliminations[name]
        self.loss += curve.loss_of(keep) - curve.loss_of(self.kept[name])
        self.price = self.price - self.widths.saved(self.kept, name, keep)
        self.kept[name] = keep

    def _best(self, name: str) -> tuple[float, str, int] | None:
        """A group's least loss for what is saved, and the units to go on to for it."""
        assert self.weights is not None
        curve = self.eliminations[name]
        here = curve.loss_of(self.kept[name])
        found: tuple[float, str, int] | None = None
        for keep in self.ladders[name]:
            if keep >= self.kept[name]:
                continue
            saved = self.widths.fraction(self.widths.saved(self.kept, name, keep))
            worth = self.weights[0] * saved.macs + self.weights[1] * saved.parameters
            if worth <= 0:
                continue
            rate = (curve.loss_of(keep) - here) / worth
            if found is None or rate < found[0]:
                found = (rate, name, keep)
        return found


def _in_units(channels: int, round_to: int, fewest: int) -> tuple[int, int]:
    """The multiple and the least number of units of so many channels each.

    >>> _in_units(1, 8, 8), _in_units(4, 8, 8), _in_units(96, 8, 8)
    ((8, 8), (2, 2), (1, 1))
    """
    return round_to // math.gcd(round_to, channels), math.ceil(fewest / channels)


def _ladder(units: int, round_to: int, fewest: int) -> list[int]:
    """Numbers of units that a group may keep, falling: multiples of `round_to` where it has more.

    >>> _ladder(40, 8, 1), _ladder(6, 8, 2)
    ([32, 24, 16, 8], [5, 4, 3, 2])
    """
    every = round_to if units > round_to else 1
    least = min(units, math.ceil(fewest / every) * every)
    numbers: list[int] = []
    now = units
    while now > least:
        now = min(now - 1, round(now * (1 - 1 / FINER))) // every * every
        numbers.append(max(now, least))
    return numbers
