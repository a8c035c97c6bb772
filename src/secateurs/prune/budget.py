"""How many units of each group to keep: taken where they cost the least loss for what they save."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from secateurs.errors import InputError
from secateurs.nets.trace import trace
from secateurs.prune.groups import Group
from secateurs.prune.surgeon import Elimination

FINER = 12  # a step goes from k units to about k - k / FINER

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
        return _Layer(width - made, 0, makes, (), nothing, Price(0.0, len(vectors)), True)


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
    round_to: int = 1,
    fewest: int = 1,
) -> list[Step]:
    """The way from the whole network down to the budgets, every step where loss is cheapest.

    `params` and `macs` are fractions of the whole (0..1); the way ends with the first step within
    all that are given, or with `fewest` units in every group when none is. A step takes units of
    the group whose loss rises the least for what is saved of the budgets not yet met, both counted
    as fractions of the whole. `round_to` keeps every group's channels a multiple of it. Raises
    InputError for a budget outside 0..1, and when it cannot be met, with what is possible.
    """
    for word, value in (("params", params), ("macs", macs)):
        if value is not None and not 0 < value <= 1:
            raise InputError(f"{word}: expected a fraction of the whole, 0..1, got {value:g}")
    if round_to < 1 or fewest < 1:
        raise InputError("round_to and fewest: expected at least 1")
    whole = widths.price(widths.whole)
    targets = {"macs": macs, "parameters": params}
    kept, price = dict(widths.whole), whole
    ladders = {
        name: _ladder(widths, name, round_to, fewest)
        for name in widths.whole
        if name in eliminations
    }
    way = [Step(dict(kept), price, 0.0)]
    loss = 0.0

    def open_budgets(now: Price) -> tuple[float, float]:
        asked = [(t, getattr(now, k) / max(getattr(whole, k), 1.0)) for k, t in targets.items()]
        if all(t is None for t, _ in asked):
            return 1.0, 1.0
        return tuple(1.0 if t is not None and part > t else 0.0 for t, part in asked)  # type: ignore[return-value]

    def best(name: str) -> tuple[float, str, int] | None:
        """The rate and the number of units to go on to."""
        weights = open_budgets(price)
        here = eliminations[name].loss_of(kept[name])
        found: tuple[float, str, int] | None = None
        for keep in ladders[name]:
            if keep >= kept[name]:
                continue
            saved = widths.saved(kept, name, keep)
            worth = weights[0] * saved.macs / max(whole.macs, 1.0)
            worth += weights[1] * saved.parameters / whole.parameters
            if worth <= 0:
                continue
            rate = (eliminations[name].loss_of(keep) - here) / worth
            if found is None or rate < found[0]:
                found = (rate, name, keep)
        return found

    queue = [entry for name in ladders if (entry := best(name))]
    heapq.heapify(queue)
    weights = open_budgets(price)
    while any(weights) and queue:
        _, name, _ = heapq.heappop(queue)
        fresh = best(name)  # what else was cut meanwhile has changed what it saves
        if fresh is None:
            continue
        if queue and fresh[0] > queue[0][0] * (1 + 1e-9):
            heapq.heappush(queue, fresh)
            continue
        keep = fresh[2]
        loss += eliminations[name].loss_of(keep) - eliminations[name].loss_of(kept[name])
        price = price - widths.saved(kept, name, keep)
        kept[name] = keep
        way.append(Step(dict(kept), price, loss))
        if open_budgets(price) != weights:
            weights = open_budgets(price)
            queue = [entry for other in ladders if (entry := best(other))]
            heapq.heapify(queue)
        elif (entry := best(name)) is not None:
            heapq.heappush(queue, entry)
    asked = any(target is not None for target in targets.values())
    if asked and any(open_budgets(price)):
        raise InputError(
            f"budget: the least that cutting can reach is {price.parameters / whole.parameters:.3g} "
            f"of the parameters and {price.macs / max(whole.macs, 1.0):.3g} of the "
            "multiply-accumulates"
        )
    return way


def _ladder(widths: Widths, name: str, round_to: int, fewest: int) -> list[int]:
    """Numbers of units that a group may keep, falling."""
    units = widths.whole[name]
    every = round_to if units > round_to else 1
    least = min(units, max(fewest, 1))
    numbers: list[int] = []
    now = units
    while now > least:
        now = max(least, min(now - 1, round(now * (1 - 1 / FINER))))
        snapped = max(every, now // every * every) if every > 1 else now
        if snapped < units and (not numbers or snapped < numbers[-1]):
            numbers.append(snapped)
        if snapped <= every > 1:
            break
        now = min(now, snapped)
    return numbers
