"""What a network costs as a function of how many units its groups keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateurs.nets.batches import Batch, Run, forward
from secateurs.nets.counting import macs, num_parameters
from secateurs.nets.layers import LAYERS, cut_axes, groups_of, width_of
from secateurs.nets.runnable import runnable
from secateurs.prune.coupling.flow import Followed, follow
from secateurs.prune.coupling.groups import Group
from secateurs.prune.coupling.members import Member
from secateurs.prune.coupling.numbering import Product
from secateurs.prune.coupling.union_find import compact, varying
from secateurs.prune.surgery.narrow import narrow

Kept = dict[str, int]  # units kept, by group
Share = tuple[tuple[str, float], ...]  # groups, and places of an axis for each unit of them


@dataclass(frozen=True)
class Price:
    """Multiply-accumulates for a sample, as `counting.macs` counts them, and parameters."""

    macs: float
    parameters: float

    def __sub__(self, other: Price) -> Price:
        return Price(self.macs - other.macs, self.parameters - other.parameters)

    def __add__(self, other: Price) -> Price:
        return Price(self.macs + other.macs, self.parameters + other.parameters)


@dataclass(frozen=True)
class _Axis:
    """An axis of a tensor: places that are always there, and those that units have."""

    fixed: float
    share: Share

    def length(self, kept: Mapping[str, int]) -> float:
        return self.fixed + sum(width * kept[name] for name, width in self.share)


@dataclass(frozen=True)
class _Term:
    """A part of the price: so much for each place of the axes."""

    each: Price
    axes: tuple[_Axis, ...]

    def price(self, kept: Mapping[str, int]) -> Price:
        places = 1.0
        for axis in self.axes:
            places *= axis.length(kept)
        return Price(self.each.macs * places, self.each.parameters * places)


class Widths:
    """What a network costs as a function of the units kept of its groups.

    Parameters and multiply-accumulates of layers and of attention follow from the lengths of their
    axes; what else the counter of multiply-accumulates sees is taken as fixed, since nothing that
    it reads can be cut. `measured` narrows the network, without values, and counts: the price that
    the network actually has.
    """

    def __init__(
        self, model: nn.Module, groups: Sequence[Group], example: Batch, *, run: Run = forward
    ) -> None:
        self._groups, self._run = tuple(groups), run
        self._bare, self._sample = runnable(model, example, run)
        self.whole: Kept = {group.name: group.num_units for group in groups}
        self.total = self.count(self._bare)
        # Channels of a unit where it has most: many for an attention head or a grouped convolution.
        self.channels: dict[str, int] = {
            group.name: max(
                (len(member.index) // group.num_units for member in group.side("out")), default=1
            )
            for group in groups
        }
        terms = [
            *_products(self._bare, groups, self._sample, run),
            *_parameters(self._bare, groups),
        ]
        self._touching: dict[str, list[_Term]] = {group.name: [] for group in groups}
        for term in terms:
            for name in {name for axis in term.axes for name, _ in axis.share}:
                self._touching[name].append(term)
        self._terms = [term for term in terms if any(axis.share for axis in term.axes)]
        nothing = Price(0.0, 0.0)
        self._most = sum((term.price(self.whole) for term in self._terms), nothing)
        self._correction = Price(1.0, 1.0)  # what is saved, relative to what is predicted

    def price(self, kept: Mapping[str, int]) -> Price:
        """Of the whole network."""
        now = sum((term.price(kept) for term in self._terms), Price(0.0, 0.0))
        return self.total - self._corrected(self._most - now)

    def saved(self, kept: Mapping[str, int], name: str, keep: int) -> Price:
        """What going on to `keep` units of one group saves."""
        less = {**kept, name: keep}
        total = Price(0.0, 0.0)
        for term in self._touching[name]:
            total = total + (term.price(kept) - term.price(less))
        return self._corrected(total)

    def fraction(self, price: Price) -> Price:
        """A price as fractions of that of the whole network."""
        return Price(
            price.macs / max(self.total.macs, 1.0), price.parameters / self.total.parameters
        )

    def measured(self, kept: Mapping[str, int]) -> Price:
        """Of the network narrowed to so many units."""
        stay = {name: torch.arange(keep) for name, keep in kept.items()}
        small = narrow(self._bare, self._groups, stay)
        return self.count(small)

    def count(self, model: nn.Module) -> Price:
        """The real price of a network that runs on the same samples."""
        return Price(float(macs(model, self._sample, run=self._run)), float(num_parameters(model)))

    def correct(self, kept: Mapping[str, int], real: Price) -> None:
        """Correct predictions from now on, so that at `kept` they are what was measured."""
        now = sum((term.price(kept) for term in self._terms), Price(0.0, 0.0))
        predicted, actual = self._most - now, self.total - real
        self._correction = Price(
            actual.macs / predicted.macs if predicted.macs > 0 else 1.0,
            actual.parameters / predicted.parameters if predicted.parameters > 0 else 1.0,
        )

    def _corrected(self, saved: Price) -> Price:
        return Price(
            saved.macs * self._correction.macs, saved.parameters * self._correction.parameters
        )


def _products(bare: nn.Module, groups: Sequence[Group], sample: Batch, run: Run) -> list[_Term]:
    """The multiply-accumulates that depend on groups."""
    each, found = _lengths(follow(bare, sample, run), groups, second=False)
    if any(group.second for group in groups):
        _, others = _lengths(follow(bare, sample, run, second=True), groups, second=True)
        found = [
            tuple(b if b.share and not a.share else a for a, b in zip(one, other, strict=True))
            for one, other in zip(found, others, strict=True)
        ]
    return [_Term(Price(times, 0.0), axes) for times, axes in zip(each, found, strict=True)]


def _lengths(
    seen: Followed, groups: Sequence[Group], *, second: bool
) -> tuple[list[float], list[tuple[_Axis, ...]]]:
    """How often each product is taken, and its axes with the units of groups."""
    unit = seen.ties.units()[0]
    owner = _owners(seen, unit, groups, second=second)
    return (
        [float(product.times) for product in seen.products],
        [_axes(product, unit, owner, groups) for product in seen.products],
    )


def _owners(
    seen: Followed, unit: NDArray[np.int64], groups: Sequence[Group], *, second: bool
) -> NDArray[np.int64]:
    """For each unit that was followed the place of its group, -1 for none."""
    owner = np.full(int(unit.max()) + 1, -1, dtype=np.int64)
    events = {
        (event.path, event.side, event.tensor, event.axis): unit[event.numbers.numpy()]
        for event in seen.events
        if event.axis >= 0
    }
    for place, group in enumerate(groups):
        for member in group.members if group.second == second else ():
            units = events.get((member.path, member.side, member.tensor, member.axis))
            if units is not None:
                owner[units[member.index.numpy()]] = place
    owner[0] = -1
    return owner


def _axes(
    product: Product,
    unit: NDArray[np.int64],
    owner: NDArray[np.int64],
    groups: Sequence[Group],
) -> tuple[_Axis, ...]:
    axes = [_Axis(float(length), ()) for length in product.sizes]
    for numbers, places in product.labels:
        units = compact(torch.from_numpy(unit[numbers.numpy()]))
        along = varying(units)
        if len(along) != 1 or axes[places[along[0]]].share:
            continue  # units of several axes go along none; the other factor has said it before
        whose = owner[units.flatten().numpy()]
        counts = {place: int((whose == place).sum()) for place in np.unique(whose[whose >= 0])}
        axes[places[along[0]]] = _Axis(
            float((whose < 0).sum()),
            tuple(
                (groups[place].name, count / groups[place].num_units)
                for place, count in counts.items()
            ),
        )
    return tuple(axes)


def _parameters(bare: nn.Module, groups: Sequence[Group]) -> list[_Term]:
    """The parameters that depend on groups."""
    found: dict[int, dict[int, dict[tuple[object, ...], tuple[Group, Member]]]] = {}
    sizes: dict[int, torch.Size] = {}
    widths: dict[tuple[int, int], int] = {}
    for group in groups:
        for member in group.members:
            module = bare.get_submodule(member.path)
            for parameter, axis in _cut_by(module, member):
                sizes[id(parameter)] = parameter.shape
                # Of a grouped transposed convolution the weight has the inputs of its outputs.
                grouped = isinstance(module, LAYERS) and groups_of(module) > 1
                widths[id(parameter), axis] = (
                    width_of(module) if grouped and member.is_layer else parameter.shape[axis]
                )
                axes = found.setdefault(id(parameter), {})
                # A parameter that is cut by several layers at once is cut once.
                key = group.name, *member.index.tolist()
                axes.setdefault(axis, {}).setdefault(key, (group, member))
    terms: list[_Term] = []
    for identity, axes in found.items():
        each, lengths = math.prod(sizes[identity]), []
        for axis, members in axes.items():
            length = sizes[identity][axis]
            lengths.append(_axis(length, list(members.values()), widths[identity, axis]))
            each //= length
        terms.append(_Term(Price(0.0, float(each)), tuple(lengths)))
    return terms


def _cut_by(module: nn.Module, member: Member) -> list[tuple[Tensor, int]]:
    """The parameters of a module that lose a member's channels, and along which axis."""
    if not member.is_layer:
        tensor = getattr(module, member.tensor)
        return [(tensor, member.axis)] if isinstance(tensor, nn.Parameter) else []
    own = [(p, cut_axes(module, p)[member.side == "in"]) for p in module.parameters(recurse=False)]
    return [(parameter, axis) for parameter, axis in own if axis is not None]


def _axis(length: int, members: Sequence[tuple[Group, Member]], width: int) -> _Axis:
    """An axis of so many places for `width` channels, some of which belong to members of groups."""
    each = length / width
    share = tuple(
        (group.name, each * len(member.index) / group.num_units) for group, member in members
    )
    return _Axis(length - each * sum(len(member.index) for _, member in members), share)
