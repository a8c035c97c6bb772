"""Transformers pruned as a whole: hidden units and attention heads measured, cut and refitted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    ShiftedWindowAttentionV2,
    SwinTransformerBlockV2,
)

from secateurs.nets.attention import open_attention
from secateurs.prune.allocation.budget import Widths
from secateurs.prune.allocation.survey import survey
from secateurs.prune.coupling.groups import find_groups
from secateurs.prune.network import prune_groups
from secateurs.prune.surgery.checked_groups import checked
from secateurs.prune.surgery.narrow import narrow
from secateurs.ship.cost import cost


def swin_v2() -> nn.Module:
    def block(*args: object, **more: object) -> nn.Module:
        return SwinTransformerBlockV2(*args, **more, attn_layer=ShiftedWindowAttentionV2)

    return models.SwinTransformer(
        [4, 4], 16, [2, 2], [2, 4], [4, 4], block=block, downsample_layer=PatchMergingV2
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5),
    "swin": lambda: models.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=5),
    "swin_v2": swin_v2,
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "swin_v2")) for n in NETWORKS]
)
def test_half_of_a_transformer_goes_and_what_is_left_is_refitted(name: str):
    torch.manual_seed(0)
    model = open_attention(NETWORKS[name]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    batches = list(torch.randn(16, 3, 32, 32).split(8))
    groups = checked(model, find_groups(model, batches[0]), batches[0]).found
    seen = survey(model, groups, batches)
    assert {group.name for group in groups} == set(seen.eliminations)
    assert all(len(e.order) >= 2 and e.loss.isfinite().all() for e in seen.eliminations.values())
    kept = {group.name: group.num_units // 2 for group in groups}
    # Hidden layers of a perceptron stand in a chain, and see every place of an image: not merged.
    pruned = prune_groups(model, groups, seen, kept, batches)
    assert pruned.merged == ()
    assert {name: len(units) for name, units in pruned.survivors.items()} == kept
    price, here = (
        Widths(model, groups, torch.empty(1, 3, 32, 32)).price(kept),
        cost(pruned.model, size=32),
    )
    assert price.parameters == here.num_parameters
    with torch.no_grad():
        exact = torch.cat([model(batch) for batch in batches])
        ours = torch.cat([pruned.model(batch) for batch in batches])
        plain = narrow(model, groups, pruned.survivors)
        dropped = torch.cat([plain(batch) for batch in batches])
    assert (ours - exact).square().mean() < (dropped - exact).square().mean() / 2
