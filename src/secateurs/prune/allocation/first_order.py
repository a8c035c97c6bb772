"""What losing units costs where no layer reads them, to first order in what makes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from secateurs.nets.batches import Batch, Run, forward
from secateurs.nets.layers import LAYERS, cut_axes
from secateurs.prune.allocation.elimination import Elimination
from secateurs.prune.allocation.importance import PROBED, Loss, gradients, probed
from secateurs.prune.coupling.groups import Group, Member


def first_order(
    model: nn.Module,
    groups: Sequence[Group],
    batches: Sequence[Batch],
    *,
    run: Run = forward,
    seed: int = 0,
    num_images: int = PROBED,
    loss: Loss | None = None,
) -> dict[str, Elimination]:
    """The order in which units of groups go that no layer reads, and the loss, by group.

    A recurrent layer, a product of two layers' outputs or a parameter that is used as a weight
    reads them, so that nothing is refitted. The loss of a unit is the mean over samples of the
    squared first-order change of a random combination of the answers (or of the `loss`) when the
    weights that make it become zero, as `importance` measures it for the outputs of layers; losses
    of several units add up (Molchanov et al., 2019, sample by sample).
    """
    makers = {group.name: _makers(model, group) for group in groups}
    parameters = {id(t): t for tensors in makers.values() for t, _, _ in tensors}
    sums = {group.name: torch.zeros(group.num_units, dtype=torch.float64) for group in groups}
    trained = {p: p.requires_grad for p in model.parameters()}
    try:
        for parameter in trained:
            parameter.requires_grad_(id(parameter) in parameters)
        parts, wanted = probed(batches, num_images, 1), list(parameters.values())
        for found in gradients(model, parts, wanted, run=run, seed=seed, loss=loss):
            by_identity = dict(zip(parameters, found, strict=True))
            for group in groups:
                sums[group.name] += _change(group, makers[group.name], by_identity).square()
    finally:
        for parameter, before in trained.items():
            parameter.requires_grad_(before)
    return {name: _in_order(total / len(parts)) for name, total in sums.items()}


def _makers(model: nn.Module, group: Group) -> list[tuple[Tensor, int, Member]]:
    """The parameters that make a group's units, each once, and the axis of the units in it.

    Where a layer standardises the weights that read them it is these: what makes the units may be
    standardised as well, and no output changes with the scale of such weights.
    """
    found: dict[tuple[int, int], tuple[Tensor, int, Member]] = {}
    readers = [m for m in group.members if m.side == "in" and m.norm and not m.is_layer]
    for member in readers or group.makers:
        module = model.get_submodule(member.path)
        if not member.is_layer:
            tensor = getattr(module, member.tensor)
            found.setdefault((id(tensor), member.axis), (tensor, member.axis, member))
            continue
        assert isinstance(module, LAYERS)
        for parameter in module.parameters(recurse=False):
            axis = cut_axes(module, parameter)[0]
            if axis is not None:
                found.setdefault((id(parameter), axis), (parameter, axis, member))
    return list(found.values())


def _change(
    group: Group,
    makers: Sequence[tuple[Tensor, int, Member]],
    gradients: dict[int, Tensor | None],
) -> Tensor:
    """The first-order change (units,) when each unit's weights become zero."""
    change = torch.zeros(group.num_units, dtype=torch.float64)
    for parameter, axis, member in makers:
        gradient = gradients[id(parameter)]
        if gradient is None:
            continue
        each = (parameter.detach() * gradient).double().movedim(axis, 0).cpu()
        each = each.reshape(len(each), -1).sum(1)
        change.index_add_(0, member.unit, each[member.index])
    return change


def _in_order(losses: Tensor) -> Elimination:
    order = losses.argsort(stable=True)
    return Elimination(order, losses[order].cumsum(0)[:-1])
