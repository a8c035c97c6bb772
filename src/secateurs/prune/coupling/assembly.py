"""From units that were followed through a network to groups: units that live in the same layers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from secateurs.nets.batches import Batch, Run
from secateurs.nets.layers import LAYERS
from secateurs.nets.trace import python_modules
from secateurs.prune.coupling.flow import OUTPUT, Followed, follow
from secateurs.prune.coupling.members import Group, Member, NotPruned
from secateurs.prune.coupling.numbering import Event
from secateurs.prune.coupling.union_find import compact, varying


@dataclass
class _Kind:
    """Units that appear in the same layers, as often in each: those that a group can hold."""

    places: list[int]  # events
    units: list[int] = field(default_factory=list)
    stays: str = ""


def groups_by_flow(
    bare: nn.Module, sample: Batch, run: Run, *, second: bool = False, more: Batch = None
) -> tuple[list[Group], list[NotPruned], bool]:
    """Groups of a network without values that can be cut, and those that have to stay.

    And whether there are others, which `second` asks for (see `follow`).

    What the network gives is in neither. Groups are named after the first layer that makes their
    units; where that makes several, later ones are numbered: "layer (2)".
    """
    seen = follow(bare, sample, run, second=second, more=more)
    of_number, stays, whys = seen.ties.units()
    events, channels = _channels(seen.events, of_number)
    contracted = {int(unit) for part in seen.contracted for unit in of_number[part.numpy()].flat}
    taken: dict[str, int] = {}
    found: list[Group] = []
    not_pruned: list[NotPruned] = []
    for kind in _kinds(channels, stays):
        group = _group(kind, events, channels)
        makers = [member.label for member in group.makers]
        if kind.stays == OUTPUT or not makers:
            continue
        count = taken[makers[0]] = taken.get(makers[0], 0) + 1
        name = makers[0] if count == 1 else f"{makers[0]} ({count})"
        if kind.stays:
            not_pruned.append(NotPruned(name, kind.stays))
        elif group.num_units == 1:
            not_pruned.append(NotPruned(name, whys.get(kind.units[0], "it has one unit only")))
        else:
            at_source = bool(contracted & set(kind.units))
            found.append(replace(group, name=name, at_source=at_source, second=second))
    return found, [*not_pruned, *_not_followed(bare, seen)], seen.chose


def _not_followed(bare: nn.Module, seen: Followed) -> list[NotPruned]:
    """Layers that make units which nothing is known of, and why."""
    making = {event.path for event in seen.events if event.side != "in"}
    found: list[NotPruned] = []
    for path, module in python_modules(bare):
        if any(made == path or made.startswith(f"{path}.") for made in making):
            continue
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, LAYERS) and "weight" not in own:
            why = (
                "its weight is computed from other parameters: fold them into it with "
                "torch.nn.utils.parametrize.remove_parametrizations"
            )
            found.append(NotPruned(path, why))
        elif isinstance(module, LAYERS) and path in seen.returned:
            why = f"its class {type(module).__name__} changes its weight before it is used"
            found.append(NotPruned(path, why))
        elif isinstance(module, nn.RNNBase):
            why = f"this form of {type(module).__name__} is not known (projections, packed samples)"
            found.append(NotPruned(path, why))
    return found


def _channels(
    given: list[Event], of_number: NDArray[np.int64]
) -> tuple[list[Event], list[NDArray[np.int64]]]:
    """What layers did, and the units of the channels of each, along one axis of a tensor."""
    events: list[Event] = []
    channels: list[NDArray[np.int64]] = []
    for event in given:
        units = of_number[event.numbers.numpy()]
        if event.axis < 0:
            placed = compact(torch.from_numpy(units))
            along = varying(placed)
            # None: a value for all units. Several: folded with what cannot be cut, and fixed.
            if len(along) != 1:
                continue
            event, units = replace(event, axis=along[0]), placed.flatten().numpy()
        events.append(event)
        channels.append(units)
    return events, channels


def _kinds(channels: list[NDArray[np.int64]], stays: dict[int, str]) -> list[_Kind]:
    places: dict[int, list[tuple[int, int]]] = {}
    for place, units in enumerate(channels):
        values, counts = np.unique(units[units > 0], return_counts=True)
        for unit, count in zip(values.tolist(), counts.tolist(), strict=True):
            places.setdefault(unit, []).append((place, count))
    kinds: dict[tuple[object, ...], _Kind] = {}
    for unit in sorted(places, key=lambda unit: (places[unit][0][0], unit)):
        why = stays.get(unit, "")
        kind = kinds.setdefault(
            (*places[unit], why), _Kind([place for place, _ in places[unit]], stays=why)
        )
        kind.units.append(unit)
    return list(kinds.values())


def _group(kind: _Kind, events: list[Event], channels: list[NDArray[np.int64]]) -> Group:
    """The group of a kind, its units in the order of the channels that the first layer has."""
    first = channels[kind.places[0]]
    order = list(dict.fromkeys(first[np.isin(first, kind.units)].tolist()))
    sorting = np.argsort(order)
    ascending = np.asarray(order)[sorting]
    members: list[Member] = []
    for place in kind.places:
        of = channels[place]
        index = np.flatnonzero(np.isin(of, ascending))
        unit = sorting[np.searchsorted(ascending, of[index])]
        event = events[place]
        members.append(
            Member(
                event.path,
                event.side,
                torch.from_numpy(index),
                torch.from_numpy(unit),
                event.tensor,
                event.axis,
                event.norm,
            )
        )
    return Group("", len(order), tuple(members))
