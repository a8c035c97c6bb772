"""Which groups can be cut: each is removed from the network and compared with zeroing it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from secateurs.nets.batches import Batch, Run, copied_batch, forward, without_values
from secateurs.nets.trace import check_device, copied, skeleton, tensors_of
from secateurs.prune.coupling.groups import Group, Groups, NotPruned
from secateurs.prune.surgery.attributes import with_attributes
from secateurs.prune.surgery.joined import joined, unlike_survivors
from secateurs.prune.surgery.narrow import PARITY_LIMIT, Survivors, difference, narrow, zeroing
from secateurs.prune.surgery.parity import Comparison


def checked(
    model: nn.Module, groups: Groups, batch: Batch, *, run: Run = forward, seed: int = 0
) -> Groups:
    """The groups that can be cut: of each some units are removed and compared with zeroing them.

    All groups at once first; where that fails, halves, until the groups that fail are known. They
    are not pruned, with the difference as the reason. Those without which the network does not run
    are found on shapes alone first; where it runs with other numbers in its modules' attributes, as
    a number of heads, the group takes these along. The others are compared in the network given,
    and in a copy with other weights, since weights near zero would hide an error. Then the `others`
    that share no channel with these, likewise. The samples of `batch` are real ones. Raises
    InputError as `difference` does.
    """
    found = _checked(model, groups, batch, run, seed)
    return _with_others(model, found, batch, run, seed) if groups.others else found


def _checked(model: nn.Module, groups: Groups, batch: Batch, run: Run, seed: int) -> Groups:
    if not groups.found:
        return groups
    check_device(model, batch)
    generator = torch.Generator().manual_seed(seed)

    def some(num_units: int) -> Tensor:
        return torch.randperm(num_units, generator=generator)[: max(1, num_units * 2 // 3)]

    survivors = unlike_survivors(groups.found, some)
    on_shapes = _shapes(model, survivors, batch, run)
    groups, failed = _adapted(model, groups, _wrong(groups.found, on_shapes), on_shapes)
    without = [group for group in groups.found if group.name in failed]
    for joint, names in joined(model, without, survivors, some, on_shapes):
        failed = {name: size for name, size in failed.items() if name not in names}
        rest = [joint if group.name == joint.name else group for group in groups.found]
        rest = [group for group in rest if group is joint or group.name not in names]
        groups = replace(groups, found=tuple(rest))
    rest = [group for group in groups.found if group.name not in failed]
    comparison = Comparison(model, batch, run)

    def error(part: Sequence[Group]) -> float:
        return comparison.compare(
            lambda network: zeroing(network, part, survivors),
            lambda network: narrow(network, part, survivors),
        ).error

    # Heads of another width may run as well, and give something else.
    groups, wrong = _adapted(model, groups, _wrong(rest, error), error)
    failed |= wrong
    rest = [group for group in groups.found if group.name not in failed]
    if rest and comparison.randomize(seed):
        failed |= _wrong(rest, error)
    reasons = tuple(
        NotPruned(name, _reason(failed[name]))
        for group in groups.found
        if (name := group.name) in failed
    )
    found = tuple(group for group in groups.found if group.name not in failed)
    return replace(groups, found=found, not_pruned=groups.not_pruned + reasons)


def _with_others(model: nn.Module, groups: Groups, batch: Batch, run: Run, seed: int) -> Groups:
    """The groups, and those of the others that can be cut beside them."""
    taken: dict[tuple[object, ...], set[int]] = {}
    for group in groups.found:
        for key, index in _channels_of(group):
            taken.setdefault(key, set()).update(index)
    names = {group.name for group in groups.found}
    free = [
        group
        for group in groups.others
        if group.name not in names
        and all(taken.get(key, set()).isdisjoint(index) for key, index in _channels_of(group))
    ]
    more = _checked(model, replace(groups, found=tuple(free), not_pruned=()), batch, run, seed)
    if not more.found:
        return groups
    order = {path: place for place, (path, _) in enumerate(model.named_modules())}
    both = sorted((*groups.found, *more.found), key=lambda group: order[group.makers[0].path])
    survivors = {group.name: torch.arange(group.num_units)[::2] for group in both}
    if difference(model, both, survivors, batch, run=run) > PARITY_LIMIT:
        return groups
    names = {member.label for group in more.found for member in group.makers}
    left = tuple(row for row in groups.not_pruned if row.name not in names)
    return replace(groups, found=tuple(both), not_pruned=left)


def _channels_of(group: Group) -> list[tuple[tuple[object, ...], list[int]]]:
    """The channels that a group has, by the layer and the side of it, or the parameter."""
    return [
        ((member.path, member.side == "in", member.tensor, member.axis), member.index.tolist())
        for member in group.members
    ]


def _adapted(
    model: nn.Module,
    groups: Groups,
    failed: dict[str, float],
    error: Callable[[Sequence[Group]], float],
) -> tuple[Groups, dict[str, float]]:
    """The groups with the attributes without which some failed, and those that still fail."""
    adapted = {
        group.name: other
        for group in groups.found
        if group.name in failed and (other := with_attributes(model, group, error)) is not None
    }
    found = tuple(adapted.get(group.name, group) for group in groups.found)
    left = {name: size for name, size in failed.items() if name not in adapted}
    return replace(groups, found=found), left


def _reason(error: float) -> str:
    if math.isinf(error):
        return "without its units the network does not run, or its outputs have another shape"
    return f"removing its units is not the same as zeroing them (differs by {error:.1e})"


def _shapes(
    model: nn.Module, survivors: Survivors, batch: Batch, run: Run
) -> Callable[[Sequence[Group]], float]:
    """What tells whether the network runs without some units and gives outputs of the same shape.

    Takes groups and gives 0 where it does and infinity where it does not. On shapes alone where the
    network runs on these.
    """
    bare = skeleton(model)
    bare_batch = without_values(batch)

    def shapes(network: nn.Module) -> list[torch.Size]:
        with torch.no_grad():
            return [tensor.shape for tensor in tensors_of(run(network, copied_batch(bare_batch)))]

    try:
        expected = shapes(bare)
    except Exception:  # it needs values to run, or mixes devices
        bare, bare_batch = copied(model).eval(), batch
        try:
            expected = shapes(bare)
        except Exception:  # whatever it raises is said by who runs it next
            return lambda part: 0.0

    def error(part: Sequence[Group]) -> float:
        try:
            same = shapes(narrow(bare, part, survivors)) == expected
        except Exception:
            same = False
        return 0.0 if same else math.inf

    return error


def _wrong(groups: Sequence[Group], error: Callable[[Sequence[Group]], float]) -> dict[str, float]:
    """The errors of the groups whose cut is wrong, found by halves."""
    found = error(groups) if groups else 0.0
    if found <= PARITY_LIMIT:
        return {}
    if len(groups) == 1:
        return {groups[0].name: found}
    half = len(groups) // 2
    return _wrong(groups[:half], error) | _wrong(groups[half:], error)
