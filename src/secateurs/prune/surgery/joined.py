"""Groups that can be cut only together, as the width of a transformer and its heads.

Where a network computes the width of a head from that of its tokens (`C // num_heads`), it runs
with fewer tokens' channels only if every attention that reads them loses as many of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations

from torch import Tensor, nn

from secateurs.prune.coupling.members import Group, Member
from secateurs.prune.surgery.attributes import with_attributes

MOST_PAIRS = 10  # of groups that are tried


def joined(
    model: nn.Module,
    failed: Sequence[Group],
    survivors: dict[str, Tensor],
    some: Callable[[int], Tensor],
    error: Callable[[Sequence[Group]], float],
) -> list[tuple[Group, list[str]]]:
    """Groups made of those without which the network does not run, each with the names of these.

    A group goes with all others whose units are made from its own and read into them again, as
    heads are. `error` is 0 for groups without which the network runs; it takes the units that stay
    from `survivors`, to which the new groups are added, as many as `some` gives for a number of
    units.
    """
    found: list[tuple[Group, list[str]]] = []
    used: set[str] = set()
    for group in sorted(failed, key=lambda group: -group.num_units):
        beside = [other for other in failed if other.name not in used and _within(other, group)]
        if group.name in used or not beside:
            continue
        num_units = math.gcd(*(one.num_units for one in (group, *beside)))
        if num_units < 2:
            continue
        both = _together([group, *beside], num_units)
        before = survivors[group.name]
        survivors[group.name] = some(num_units)
        joint = both if not error([both]) else with_attributes(model, both, error)
        if joint is None:
            survivors[group.name] = before
            continue
        names = [group.name, *(other.name for other in beside)]
        used.update(names)
        found.append((joint, names))
    rest = [group for group in failed if group.name not in used]
    return found + _of_one_width(model, rest, survivors, some, error)


def _of_one_width(
    model: nn.Module,
    failed: Sequence[Group],
    survivors: dict[str, Tensor],
    some: Callable[[int], Tensor],
    error: Callable[[Sequence[Group]], float],
) -> list[tuple[Group, list[str]]]:
    """Groups with as many units, where a network takes the width of one for that of others.

    All of them, or else two at a time: as a state that starts with `hidden_dim` zeros, or a slice
    up to the width of another tensor.
    """
    found: list[tuple[Group, list[str]]] = []
    alike: dict[tuple[int, bool], list[Group]] = {}
    for group in failed:
        alike.setdefault((group.num_units, group.second), []).append(group)
    for groups in alike.values():
        pairs = [pair for pair in combinations(groups, 2) if len(groups) > 2][:MOST_PAIRS]
        used: set[str] = set()
        for some_of in ([groups] if len(groups) > 1 else []) + [[*pair] for pair in pairs]:
            names = [group.name for group in some_of]
            if used & set(names):
                continue
            both = _together(some_of, groups[0].num_units)
            before = survivors[both.name]
            survivors[both.name] = some(both.num_units)
            joint = both if not error([both]) else with_attributes(model, both, error)
            if joint is None:
                survivors[both.name] = before
                continue
            used.update(names)
            found.append((joint, names))
    return found


def _within(other: Group, group: Group) -> bool:
    """Whether units are made by layers that read a group, and read by layers that make it."""
    if other is group or group.num_units < other.num_units or group.second != other.second:
        return False
    makes, reads = _paths(other, "out"), _paths(other, "in")
    return bool(makes & _paths(group, "in")) and bool(reads & _paths(group, "out"))


def _paths(group: Group, side: str) -> set[tuple[str, str]]:
    return {(member.path, member.tensor) for member in group.members if member.side == side}


def _together(groups: Sequence[Group], num_units: int) -> Group:
    """One group of so many units, each of as many neighbours of every group."""

    def shared(group: Group, member: Member) -> Member:
        return replace(member, unit=member.unit // (group.num_units // num_units))

    first = groups[0]
    return replace(
        first,
        num_units=num_units,
        members=tuple(shared(group, member) for group in groups for member in group.members),
        at_source=any(group.at_source for group in groups),
    )


def unlike_survivors(groups: Sequence[Group], some: Callable[[int], Tensor]) -> dict[str, Tensor]:
    """Survivors of groups, of each some other number among those with as many units.

    A network may take a number of one group for that of another; alike that would not be seen.
    """
    taken: dict[int, int] = {}
    survivors: dict[str, Tensor] = {}
    for group in groups:
        count = taken[group.num_units] = taken.get(group.num_units, -1) + 1
        units = some(group.num_units)
        survivors[group.name] = units[: len(units) - count % (group.num_units // 3 + 1)]
    return survivors
