"""Which units of each group stay, as other methods choose them: larger scores stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from secateurs.nets.layers import LAYERS, matrix
from secateurs.prune.coupling.groups import Group, Member

Scores = dict[str, Tensor]  # (units,) by group


def filters(model: nn.Module, group: Group) -> Tensor:
    """The weights that make each unit, (units, weights), of all layers of a group side by side."""
    return torch.cat([_rows(model, member, group) for member in group.side("out")], 1)


def _rows(model: nn.Module, member: Member, group: Group) -> Tensor:
    layer = model.get_submodule(member.path)
    assert isinstance(layer, LAYERS), member.path
    rows = matrix(layer).detach()[member.index]
    order = member.unit.argsort(stable=True)
    return rows[order].reshape(group.num_units, -1)


def l1(model: nn.Module, groups: Sequence[Group]) -> Scores:
    """Sums of absolute weights (Li et al., 2017)."""
    return {group.name: filters(model, group).abs().sum(1) for group in groups}


def l2(model: nn.Module, groups: Sequence[Group]) -> Scores:
    """Root sums of squared weights."""
    return {group.name: filters(model, group).norm(dim=1) for group in groups}


def geometric_median(model: nn.Module, groups: Sequence[Group]) -> Scores:
    """Sums of distances to all filters: those nearest to the median go (He et al., 2019)."""
    return {group.name: torch.cdist(rows := filters(model, group), rows).sum(1) for group in groups}


def chance(model: nn.Module, groups: Sequence[Group], *, seed: int = 0) -> Scores:
    """Uniform random numbers."""
    generator = torch.Generator().manual_seed(seed)
    return {group.name: torch.rand(group.num_units, generator=generator) for group in groups}


def taylor(model: nn.Module, groups: Sequence[Group], batches: Sequence[Tensor]) -> Scores:
    """Squared sums of weight times gradient (Molchanov et al., 2019), the loss that of own answers.

    The labels are the network's own: methods beside it see none.
    """
    model.zero_grad()
    total = sum(map(len, batches))
    scores = {group.name: torch.zeros(group.num_units, dtype=torch.float64) for group in groups}
    for batch in batches:
        for image in batch.split(8):
            logits = model(image)
            loss = nn.functional.cross_entropy(logits, logits.argmax(1), reduction="sum")
            loss.backward()
    for group in groups:
        for member in group.side("out"):
            layer = model.get_submodule(member.path)
            assert isinstance(layer, LAYERS) and layer.weight.grad is not None
            products = (layer.weight * layer.weight.grad / total).detach().flatten(1).sum(1)
            scores[group.name].index_add_(0, member.unit, products[member.index].double().cpu())
    model.zero_grad()
    return {name: score.square() for name, score in scores.items()}


def survivors(scores: Scores, kept: Mapping[str, int]) -> dict[str, Tensor]:
    """The units, ascending, with the largest scores."""
    return {
        name: score.argsort(descending=True, stable=True)[: kept[name]].sort().values.cpu()
        for name, score in scores.items()
    }


def isomorphic_kept(
    model: nn.Module, groups: Sequence[Group], scores: Scores, share: float, round_to: int = 1
) -> dict[str, int]:
    """Units kept when a share of all units of groups alike goes, ranked together.

    Isomorphic pruning (Fang et al., 2024): scores are only compared between groups of the same
    layers, here those whose members have the same types, sides and kernels; each group's scores
    are relative to their mean.
    """
    alike: dict[tuple[object, ...], list[Group]] = {}
    for group in groups:
        alike.setdefault(_form(model, group), []).append(group)
    kept: dict[str, int] = {}
    for found in alike.values():
        relative = [scores[g.name] / scores[g.name].mean().clamp(min=1e-30) for g in found]
        together = torch.cat(relative).sort().values
        limit = together[min(int(share * len(together)), len(together) - 1)]
        for group, own in zip(found, relative, strict=True):
            left = int((own >= limit).sum()) // round_to * round_to
            kept[group.name] = max(min(round_to, group.num_units), left)
    return kept


def _form(model: nn.Module, group: Group) -> tuple[object, ...]:
    found: list[object] = []
    for member in group.members:
        module = model.get_submodule(member.path)
        kernel = getattr(module, "kernel_size", None)
        found.append((type(module).__name__, member.side, kernel))
    return tuple(found)
