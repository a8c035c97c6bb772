"""Cutting units out of groups: a narrower copy of the network, and removed against zeroed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from secateurs.nets.batches import Batch, Run, copied_batch, forward, without_values
from secateurs.nets.layers import channel_axis, gone_places
from secateurs.nets.trace import attribute_memo, check_device, copied, skeleton, tensors_of
from secateurs.prune.coupling.groups import Group, Groups, Member, NotPruned
from secateurs.prune.surgery.attributes import with_attributes
from secateurs.prune.surgery.joined import joined
from secateurs.prune.surgery.parity import PARITY_LIMIT as PARITY_LIMIT
from secateurs.prune.surgery.parity import Comparison, compared
from secateurs.prune.surgery.removal import check_survivors
from secateurs.prune.surgery.survivor_norms import norm_over_survivors
from secateurs.prune.surgery.width_attributes import channels_of, set_widths

# In weights that make units: by the length of a row of zeros nothing can be divided.
NEARLY_ZERO = 1e-30

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
    memo = attribute_memo(model)
    cuts = _cuts(model, groups, survivors)
    for cut in cuts.tensors.values():
        memo[id(cut.tensor)] = cut.narrowed()
    result = copy.deepcopy(model, memo)
    for path, width in cuts.widths.items():
        set_widths(result.get_submodule(path), width)
    for group in groups:
        for attribute in group.attributes if group.name in survivors else ():
            module = result.get_submodule(attribute.path)
            setattr(module, attribute.name, attribute.each * len(survivors[group.name]))
    return result


@dataclass
class _Cut:
    """A parameter or buffer, and what goes of it along each axis."""

    tensor: Tensor
    gone: dict[int, list[Tensor]] = field(default_factory=dict[int, list[Tensor]])

    def narrowed(self) -> Tensor:
        """A copy of what stays."""
        cut = self.tensor.detach()
        for axis, parts in self.gone.items():
            rest = _rest(cut.shape[axis], torch.cat(parts), cut.device)
            cut = cut.index_select(axis, rest)
        cut = cut.clone() if cut.data_ptr() == self.tensor.data_ptr() else cut
        if isinstance(self.tensor, nn.Parameter):
            return nn.Parameter(cut, requires_grad=self.tensor.requires_grad)
        return cut


@dataclass
class _Cuts:
    """Tensors that are cut, by identity, and the modules that own them with their new widths.

    The width of a module whose own channels are not cut is None.
    """

    tensors: dict[int, _Cut] = field(default_factory=dict[int, _Cut])
    widths: dict[str, int | None] = field(default_factory=dict[str, "int | None"])

    def add(self, tensor: Tensor, axis: int, gone: Tensor) -> None:
        """What goes along an axis; a tensor that several modules share is one tensor."""
        cut = self.tensors.setdefault(id(tensor), _Cut(tensor))
        cut.gone.setdefault(axis, []).append(gone)


def _cuts(model: nn.Module, groups: Sequence[Group], survivors: Survivors) -> _Cuts:
    cuts = _Cuts()
    passed: dict[str, list[Tensor]] = {}
    for member, gone in _gone(groups, survivors):
        module = model.get_submodule(member.path)
        cuts.widths.setdefault(member.path, None)
        for tensor, axis, places in _places(model, member, gone):
            cuts.add(tensor, axis, places)
        if member.is_layer and member.side == "both" and not _own(module):
            passed.setdefault(member.path, []).append(gone)
    for path, parts in passed.items():
        module = model.get_submodule(path)
        width = channels_of(module)
        if width is not None:
            cuts.widths[path] = width - len(torch.cat(parts).unique())
    return cuts


def _own(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _places(model: nn.Module, member: Member, gone: Tensor) -> list[tuple[Tensor, int, Tensor]]:
    """The tensors that lose channels of a member, along which axis, and at which places."""
    module = model.get_submodule(member.path)
    if not member.is_layer:
        return [(getattr(module, member.tensor), member.axis, gone)]
    made, read = (None, gone) if member.side == "in" else (gone, None)
    return [
        (tensor, axis, places)
        for tensor in _own(module)
        for axis, places in gone_places(module, tensor, made, read)
    ]


def _gone(
    groups: Sequence[Group], survivors: Survivors
) -> Generator[tuple[Member, Tensor], None, None]:
    """Each member of groups that are cut, and its channels that go."""
    for group in groups:
        if group.name not in survivors:
            continue
        stays = torch.zeros(group.num_units, dtype=torch.bool)
        stays[check_survivors(survivors[group.name].cpu(), group.num_units)] = True
        for member in group.members:
            yield member, member.index[~stays[member.unit]]


def gone_channels(groups: Sequence[Group], survivors: Survivors, *, reads: bool) -> Channels:
    """Channels that go, ascending: those that layers read, or those that they make or pass on."""
    parts: dict[str, list[Tensor]] = {}
    for member, gone in _gone(groups, survivors):
        if (member.side == "in") == reads and member.is_layer:
            parts.setdefault(member.path, []).append(gone)
    return {path: torch.cat(found).unique() for path, found in parts.items()}


def _rest(width: int, gone: Tensor, device: torch.device) -> Tensor:
    stays = torch.ones(width, dtype=torch.bool)
    stays[gone] = False
    return stays.nonzero().flatten().to(device)


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

    held: list[tuple[Tensor, Tensor]] = []  # parameters, and what they were

    def silence(tensor: Tensor, axis: int, gone: Tensor, value: float = 0.0) -> None:
        held.append((tensor, tensor.detach().clone()))
        with torch.no_grad():
            tensor.index_fill_(axis, gone.to(tensor.device), value)

    normed: dict[tuple[str, str], list[Tensor]] = {}
    wrapped: list[nn.Module] = []
    try:
        for path, gone in gone_channels(groups, survivors, reads=True).items():
            mute(model.get_submodule(path), gone)
        for member, gone in _gone(groups, survivors):
            if member.norm:
                normed.setdefault((member.path, member.tensor), []).append(gone)
            if not member.is_layer and member.side == "in":
                tensor = getattr(model.get_submodule(member.path), member.tensor)
                silence(tensor, member.axis, gone)
        for member, gone in _gone([g for g in groups if g.at_source], survivors):
            if member.side != "in":
                for tensor, axis, places in _places(model, member, gone):
                    if isinstance(tensor, nn.Parameter):
                        silence(tensor, axis, places, NEARLY_ZERO)
        for (path, tensor), parts in normed.items():
            gone = torch.cat(parts).unique()
            wrapped.append(norm_over_survivors(model, path, tensor, gone))
        yield model
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for tensor, value in reversed(held):
                tensor.copy_(value)
        for module in {id(module): module for module in wrapped}.values():
            del module.forward


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
    are not pruned, with the difference as the reason. Those without which the network does not run
    are found on shapes alone first; where it runs with other numbers in its modules' attributes, as
    a number of heads, the group takes these along. The others are
    compared in the network given, and in a copy with other weights, where no group hides behind
    weights near zero. Then the `others` that share no channel with these, likewise. The samples of
    `batch` are real ones. Raises InputError as `difference` does.
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

    survivors = {group.name: some(group.num_units) for group in groups.found}
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
