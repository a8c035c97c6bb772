"""How many units of each group to keep: taken where they cost the least loss for what they save."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from secateurs.errors import InputError
from secateurs.nets.trace import trace
from secateurs.prune.groups import Group
from secateurs.prune.surgeon import Elimination

FINER = 12  # a step goes from k units to about k - k / FINER

By = Literal["both", "macs", "params"]
Kept = dict[str, int]  # units kept, by group
Share = tuple[tuple[str, int], ...]  # groups, and channels of the layer for each unit of them


@dataclass(frozen=True)
class Price:
    """Multiply-accumulates an image of convolutions and linear layers, and parameters."""

    macs: float
    parameters: float

    def __sub__(self, other: Price) -> Price:
        return Price(self.macs - other.macs, self.parameters - other.parameters)

    def __add__(self, other: Price) -> Price:
        return Price(self.macs + other.macs, self.parameters + other.parameters)


@dataclass(frozen=True)
class _Layer:
    """A layer that groups have a part in, and how its price follows from its widths."""

    fixed_out: int  # channels that no group has a part in
    fixed_in: int
    out: Share
    into: Share
    pair: Price  # of an output with an input channel; of an output channel alone where `grouped`
    output: Price  # of an output channel besides: its bias
    grouped: bool

    def price(self, kept: Mapping[str, int]) -> Price:
        out = self.fixed_out + sum(width * kept[name] for name, width in self.out)
        into = self.fixed_in + sum(width * kept[name] for name, width in self.into)
        pairs = out if self.grouped else out * into
        return Price(
            self.pair.macs * pairs, self.pair.parameters * pairs + self.output.parameters * out
        )


class Widths:
    """What a network costs as a function of the units kept of its groups."""

    def __init__(self, model: nn.Module, groups: Sequence[Group], *, size: int) -> None:
        outputs = trace(model, size=size).outputs
        self.whole: Kept = {group.name: group.num_units for group in groups}
        # Channels of a unit where it has most: many for an attention head or a grouped convolution.
        self.channels: dict[str, int] = {
            group.name: max(
                (len(member.index) // group.num_units for member in group.side("out")), default=1
            )
            for group in groups
        }
        self.layers: dict[str, _Layer] = {}
        self.touching: dict[str, list[str]] = {group.name: [] for group in groups}
        shares: dict[str, dict[str, list[tuple[str, int]]]] = {}
        for group in groups:
            for member in group.members:
                own = (group.name, len(member.index) // group.num_units)
                shares.setdefault(member.path, {}).setdefault(member.side, []).append(own)
                if member.path not in self.touching[group.name]:
                    self.touching[group.name].append(member.path)
        rest = Price(0.0, float(sum(p.numel() for p in model.parameters())))
        for path, module in model.named_modules():
            if path in shares:
                layer = self._layer(module, shares[path], outputs.get(path, ()))
                self.layers[path] = layer
                rest = rest - Price(0.0, layer.price(self.whole).parameters)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                places = _places(module, outputs.get(path, ()))
                rest = rest + Price(module.weight.numel() * places, 0.0)
        self.rest = rest

    def price(self, kept: Mapping[str, int]) -> Price:
        """Of the whole network."""
        return sum((layer.price(kept) for layer in self.layers.values()), self.rest)

    def saved(self, kept: Mapping[str, int], name: str, keep: int) -> Price:
        """What going on to `keep` units of one group saves."""
        less = {**kept, name: keep}
        total = Price(0.0, 0.0)
        for path in self.touching[name]:
            layer = self.layers[path]
            total = total + (layer.price(kept) - layer.price(less))
        return total

    def _layer(
        self, module: nn.Module, share: Mapping[str, list[tuple[str, int]]], output: tuple[int, ...]
    ) -> _Layer:
        both = tuple(share.get("both", ()))
        makes, reads = tuple(share.get("out", ())) + both, tuple(share.get("in", ()))
        made = sum(width * self.whole[name] for name, width in makes)
        read = sum(width * self.whole[name] for name, width in reads)
        if isinstance(module, nn.Conv2d | nn.Linear):
            grouped = isinstance(module, nn.Conv2d) and module.groups > 1
            weights = module.weight[0].numel() if grouped else module.weight[0, 0].numel()
            bias = dict(module.named_parameters(recurse=False)).get("bias")
            return _Layer(
                fixed_out=module.weight.shape[0] - made,
                fixed_in=module.weight.shape[1] - read,
                out=makes,
                into=reads,
                pair=Price(weights * _places(module, output), weights),
                output=Price(0.0, 0.0 if bias is None else 1.0),
                grouped=grouped,
            )
        vectors = list(module.parameters(recurse=False))
        width = len(vectors[0]) if vectors else made
        nothing = Price(0.0, 0.0)
        each = sum(vector.numel() for vector in vectors) / max(1, width)
        return _Layer(width - made, 0, makes, (), nothing, Price(0.0, each), True)


def _places(module: nn.Module, output: tuple[int, ...]) -> int:
    """Positions of an image at which a layer multiplies its weights."""
    if isinstance(module, nn.Conv2d):
        return math.prod(output[2:]) if output else 0
    return math.prod(output[1:-1]) if output else 0


@dataclass(frozen=True)
class Step:
    """A point on the way down: units kept by then, the price, and the loss as foreseen."""

    kept: Kept
    price: Price
    loss: float


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
    """The way from the whole network down to the budgets, every step where loss is cheapest.

    `params` and `macs` are fractions of the whole (0..1); the way ends with the first step within
    all that are given, or with `fewest` channels in every group when none is. A step takes units of
    the group whose loss rises the least for what is saved of the budgets not yet met (without any,
    of what `by` names), counted as fractions of the whole; the last step goes no further than the
    budgets ask. `start` are units kept to go on from.
    `round_to` keeps every group's channels a multiple of it. Raises InputError for a budget outside
    0..1, and when it cannot be met, with what is possible.
    """
    for word, value in (("params", params), ("macs", macs)):
        if value is not None and not 0 < value <= 1:
            raise InputError(f"{word}: expected a fraction of the whole, 0..1, got {value:g}")
    if round_to < 1 or fewest < 1:
        raise InputError("round_to and fewest: expected at least 1")
    walk = _Walk(widths, eliminations, {**widths.whole, **(start or {})}, round_to, fewest)
    way = [walk.here()]
    while any(weights := _weights(walk.part(), params, macs, by)):
        if not walk.go_on(weights):
            break
        way.append(walk.here())
    if len(way) > 1 and not any(_weights(walk.part(), params, macs, by)):
        way[-1] = walk.no_further(way[-2], lambda part: not any(_weights(part, params, macs, by)))
    if any(limit is not None for limit in (params, macs)) and any(
        _weights(walk.part(), params, macs, by)
    ):
        reached = walk.part()
        raise InputError(
            f"budget: the least that cutting can reach is {reached.parameters:.3g} of the "
            f"parameters and {reached.macs:.3g} of the multiply-accumulates"
        )
    return way


def _weights(part: Price, params: float | None, macs: float | None, by: By) -> tuple[bool, bool]:
    """Whether multiply-accumulates and parameters have still to come down."""
    if params is None and macs is None:
        return by != "params", by != "macs"
    return macs is not None and part.macs > macs, params is not None and part.parameters > params


class _Walk:
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
        self.whole = widths.price(widths.whole)
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
        return self._fraction(self.price)

    def go_on(self, weights: tuple[bool, bool]) -> bool:
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

    def no_further(self, before: Step, enough: Callable[[Price], bool]) -> Step:
        """The last step, from `before` to here, with as many units kept as is still enough."""
        name = next(name for name in self.ladders if before.kept[name] != self.kept[name])
        for keep in self.ladders[name]:
            if before.kept[name] > keep > self.kept[name]:
                kept = {**self.kept, name: keep}
                price = self.widths.price(kept)
                if enough(self._fraction(price)):
                    curve = self.eliminations[name]
                    loss = self.loss + curve.loss_of(keep) - curve.loss_of(self.kept[name])
                    return Step(kept, price, loss)
        return self.here()

    def _fraction(self, price: Price) -> Price:
        return Price(
            price.macs / max(self.whole.macs, 1.0), price.parameters / self.whole.parameters
        )

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
            saved = self._fraction(self.widths.saved(self.kept, name, keep))
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
