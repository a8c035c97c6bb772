"""Which units are in what modules return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateurs.nets.batches import Batch, Run
from secateurs.nets.runnable import runnable
from secateurs.prune.coupling.flow import Followed, follow
from secateurs.prune.coupling.members import Group
from secateurs.prune.coupling.union_find import compact, varying


@dataclass(frozen=True)
class Axis:
    """An axis of a tensor along which units are: for each place the group's place, and the unit.

    `group` (places,) is the place in the groups given, -1 where the units are of none of them.
    """

    axis: int
    group: Tensor
    unit: Tensor

    def kept(self, names: Sequence[str], survivors: Mapping[str, Tensor]) -> Tensor:
        """The places whose units are left when groups have only their survivors."""
        stays = torch.ones(len(self.group), dtype=torch.bool)
        for place, name in enumerate(names):
            if name in survivors:
                own = self.group == place
                stays[own] = torch.isin(self.unit[own], survivors[name].cpu())
        return stays.nonzero().flatten()


def returned_units(
    model: nn.Module, groups: Sequence[Group], example: Batch, *, run: Run
) -> dict[str, list[Axis | None]]:
    """Where the units of groups are in each tensor that each module returns, by path.

    None of a tensor without units, or of which nothing is known.

    >>> from secateurs.nets.batches import forward
    >>> from secateurs.prune.coupling.groups import find_groups
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())
    >>> image = torch.empty(1, 3, 8, 8)
    >>> found = returned_units(net, find_groups(net, image).found, image, run=forward)
    >>> found["1"][0].axis, found["1"][0].unit.tolist()
    (1, [0, 1, 2, 3, 4, 5, 6, 7])
    """
    bare, sample = runnable(model, example, run)
    found = _returned(follow(bare, sample, run), groups, second=False)
    if any(group.second for group in groups):
        others = _returned(follow(bare, sample, run, second=True), groups, second=True)
        found = {
            path: [_known(*both) for both in zip(axes, others[path], strict=True)]
            for path, axes in found.items()
        }
    return found


def _known(one: Axis | None, other: Axis | None) -> Axis | None:
    """The one of two that has units of groups."""
    if other is None or not bool((other.group >= 0).any()):
        return one
    return other if one is None or not bool((one.group >= 0).any()) else None


def _returned(
    seen: Followed, groups: Sequence[Group], *, second: bool
) -> dict[str, list[Axis | None]]:
    number_of = seen.ties.units()[0]
    owner, unit = _owners(seen, number_of, groups, second=second)
    return {
        path: [_axis(numbers, number_of, owner, unit) for numbers in tensors]
        for path, tensors in seen.returned.items()
    }


def _owners(
    seen: Followed, number_of: NDArray[np.int64], groups: Sequence[Group], *, second: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each unit that was followed the place of its group, -1 for none, and its place there."""
    owner = np.full(int(number_of.max()) + 1, -1, dtype=np.int64)
    unit = np.zeros_like(owner)
    events = {
        (event.path, event.side, event.tensor, event.axis): number_of[event.numbers.numpy()]
        for event in seen.events
        if event.axis >= 0
    }
    for place, group in enumerate(groups):
        for member in group.members if group.second == second else ():
            followed = events.get((member.path, member.side, member.tensor, member.axis))
            if followed is not None:
                owner[followed[member.index.numpy()]] = place
                unit[followed[member.index.numpy()]] = member.unit.numpy()
    owner[0] = -1
    return owner, unit


def _axis(
    numbers: Tensor | None,
    number_of: NDArray[np.int64],
    owner: NDArray[np.int64],
    unit: NDArray[np.int64],
) -> Axis | None:
    if numbers is None:
        return None
    units = compact(torch.from_numpy(number_of[numbers.numpy()]))
    along = varying(units)
    if len(along) != 1:
        return None
    flat = units.flatten().numpy()
    return Axis(along[0], torch.from_numpy(owner[flat]), torch.from_numpy(unit[flat]))
