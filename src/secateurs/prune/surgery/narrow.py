"""Cutting units out of groups: a narrower copy of the network, and removed against zeroed."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from secateurs.closures import deep_copied
from secateurs.nets.batches import Batch, Run, forward
from secateurs.nets.layers import channel_axis, gone_places
from secateurs.nets.trace import (
    attribute_memo,
    check_device,
    put_forward,
)
from secateurs.prune.coupling.groups import Group, Member
from secateurs.prune.surgery.parity import PARITY_LIMIT as PARITY_LIMIT
from secateurs.prune.surgery.parity import compared
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
    result = deep_copied(model, memo)
    for path, width in cuts.widths.items():
        set_widths(result.get_submodule(path), width)
    for group in groups:
        for attribute in group.attributes if group.name in survivors else ():
            module = result.get_submodule(attribute.path)
            now = attribute.of(getattr(module, attribute.name), len(survivors[group.name]))
            setattr(module, attribute.name, now)
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
    own = {module: vars(module).get("forward") for module in model.modules()}
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
        for module in wrapped:
            put_forward(module, own[module])


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
