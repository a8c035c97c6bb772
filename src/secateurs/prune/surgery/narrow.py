"""Cutting units out of groups: a narrower copy of the network, and removed against zeroed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from secateurs.nets.attention import BiasedAttention
from secateurs.nets.batches import Batch, Run, forward, without_values
from secateurs.nets.layers import (
    BATCH_NORMS,
    LAYERS,
    channel_axis,
    gone_places,
    set_layer_widths,
)
from secateurs.nets.trace import attribute_memo, check_device, skeleton, tensors_of
from secateurs.prune.coupling.groups import Group, Groups, NotPruned
from secateurs.prune.surgery.parity import PARITY_LIMIT as PARITY_LIMIT
from secateurs.prune.surgery.parity import Comparison, compared
from secateurs.prune.surgery.removal import check_survivors

Survivors = Mapping[str, Tensor]  # unit indices by the name of their group
Channels = dict[str, Tensor]  # channel indices by the path of their layer


def narrow(model: nn.Module, groups: Sequence[Group], survivors: Survivors) -> nn.Module:
    """A copy of the network in which each group has only its `survivors`; others stay whole.

    Surviving channels keep their order and their weights. Nothing is shared with the model given,
    which is not changed. Raises InputError for survivors that are empty, repeated or outside their
    group.

    >>> from secateurs.prune.coupling.groups import find_groups
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())
    >>> found = find_groups(net, torch.empty(1, 3, 8, 8)).found
    >>> narrow(net, found, {"0": torch.tensor([1, 5])})[2].in_channels
    2
    """
    gone = {side: gone_channels(groups, survivors, reads=side == "in") for side in ("out", "in")}
    touched = gone["out"].keys() | gone["in"].keys()
    memo = attribute_memo(model)
    for path in touched:
        module = model.get_submodule(path)
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            cut = tensor.detach()
            for axis, places in gone_places(
                module, tensor, gone["out"].get(path), gone["in"].get(path)
            ):
                cut = cut.index_select(axis, _rest(cut.shape[axis], places, cut.device))
            if cut is not tensor:
                cut = cut.clone() if cut.data_ptr() == tensor.data_ptr() else cut
            memo[id(tensor)] = (
                nn.Parameter(cut, requires_grad=tensor.requires_grad)
                if isinstance(tensor, nn.Parameter)
                else cut
            )
    result = copy.deepcopy(model, memo)
    for path in touched:
        set_widths(result.get_submodule(path))
    return result


def gone_channels(groups: Sequence[Group], survivors: Survivors, *, reads: bool) -> Channels:
    """Channels that go, ascending: those that layers read, or those that they make or pass on."""
    parts: dict[str, list[Tensor]] = {}
    for group in groups:
        if group.name not in survivors:
            continue
        stays = torch.zeros(group.num_units, dtype=torch.bool)
        stays[check_survivors(survivors[group.name].cpu(), group.num_units)] = True
        for member in group.members:
            if (member.side == "in") == reads:
                parts.setdefault(member.path, []).append(member.index[~stays[member.unit]])
    return {path: torch.cat(found).unique() for path, found in parts.items()}


def _rest(width: int, gone: Tensor, device: torch.device) -> Tensor:
    stays = torch.ones(width, dtype=torch.bool)
    stays[gone] = False
    return stays.nonzero().flatten().to(device)


def set_widths(layer: nn.Module) -> None:
    """Tell a layer the widths that its tensors have."""
    if isinstance(layer, LAYERS):
        set_layer_widths(layer)
    elif not isinstance(layer, BiasedAttention):  # which reads its heads off its parameters
        assert isinstance(layer, BATCH_NORMS)
        width = layer.weight if layer.affine else layer.running_mean
        assert width is not None
        layer.num_features = len(width)


@contextmanager
def zeroing(
    model: nn.Module, groups: Sequence[Group], survivors: Survivors
) -> Generator[nn.Module]:
    """Every layer that reads a unit not among the survivors receives zero for it meanwhile."""
    handles: list[torch.utils.hooks.RemovableHandle] = []

    def mute(layer: nn.Module, gone: Tensor) -> None:
        axis = channel_axis(layer)

        def hook(
            _: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]
        ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
            received = args[0] if args else kwargs["input"]
            zeroed = received.index_fill(axis, gone.to(received.device), 0.0)
            return (zeroed, *args[1:]) if args else (), kwargs if args else {"input": zeroed}

        handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))

    try:
        for path, gone in gone_channels(groups, survivors, reads=True).items():
            mute(model.get_submodule(path), gone)
        yield model
    finally:
        for handle in handles:
            handle.remove()


def difference(
    model: nn.Module,
    groups: Sequence[Group],
    survivors: Survivors,
    batch: Batch,
    *,
    run: Run = forward,
) -> float:
    """Largest difference of outputs between removing units and zeroing them where they are read.

    Relative to how far zeroing them moves the output, each tensor that the network gives on a scale
    of its own, so that anything above 1e-5 is a wrong cut: both networks run in float64, and what
    rounding can explain is not counted. A cut without effect on this batch is compared with other
    weights too. An exception while the narrowed network runs counts as infinite. Raises InputError
    when the batch is on another device than the model or not finite, and when the network does
    not run on them.
    """
    check_device(model, batch)
    return compared(
        model,
        batch,
        lambda network: zeroing(network, groups, survivors),
        lambda network: narrow(network, groups, survivors),
        run=run,
    )


def checked(
    model: nn.Module, groups: Groups, batch: Batch, *, run: Run = forward, seed: int = 0
) -> Groups:
    """The groups that can be cut: of each some units are removed and compared with zeroing them.

    All groups at once first; where that fails, halves, until the groups that fail are known. They
    are not pruned, with the difference as the reason. Those without which the network does not run,
    as where it insists on a number of heads, are found on shapes alone first. The others are
    compared in the network given, and in a copy with other weights, where no group hides behind
    weights near zero. The samples of `batch` are real ones. Raises InputError as `difference`
    does.
    """
    if not groups.found:
        return groups
    check_device(model, batch)
    generator = torch.Generator().manual_seed(seed)
    survivors = {
        group.name: torch.randperm(group.num_units, generator=generator)[
            : max(1, group.num_units * 2 // 3)
        ]
        for group in groups.found
    }
    failed = _wrong(groups.found, _shapes(model, survivors, batch, run))
    rest = [group for group in groups.found if group.name not in failed]
    comparison = Comparison(model, batch, run)

    def error(part: Sequence[Group]) -> float:
        return comparison.compare(
            lambda network: zeroing(network, part, survivors),
            lambda network: narrow(network, part, survivors),
        ).error

    failed |= _wrong(rest, error)
    rest = [group for group in rest if group.name not in failed]
    if rest and comparison.randomize(seed):
        failed |= _wrong(rest, error)
    reasons = tuple(
        NotPruned(name, _reason(failed[name]))
        for group in groups.found
        if (name := group.name) in failed
    )
    found = tuple(group for group in groups.found if group.name not in failed)
    return Groups(found, groups.not_pruned + reasons, groups.note)


def _reason(error: float) -> str:
    return f"removing its units is not the same as zeroing them (differs by {error:.1e})"


def _shapes(
    model: nn.Module, survivors: Survivors, batch: Batch, run: Run
) -> Callable[[Sequence[Group]], float]:
    """What tells whether the network runs without some units and gives outputs of the same shape.

    Takes groups and gives 0 where it does and infinity where it does not. On shapes alone.
    """
    bare = skeleton(model)
    bare_batch = without_values(batch)

    def shapes(network: nn.Module) -> list[torch.Size]:
        with torch.no_grad():
            return [tensor.shape for tensor in tensors_of(run(network, bare_batch))]

    try:
        expected = shapes(bare)
    except Exception:  # it needs values to run
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
