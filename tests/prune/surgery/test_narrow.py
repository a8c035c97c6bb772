from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.resnet import Bottleneck
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    ShiftedWindowAttentionV2,
    SwinTransformerBlockV2,
)

from secateurs.errors import InputError
from secateurs.nets.attention import open_attention
from secateurs.nets.backbones import build
from secateurs.nets.trace import skeleton
from secateurs.prune.coupling.groups import Group, Groups, Member, find_groups
from secateurs.prune.statistics.patches import visit_rows
from secateurs.prune.surgery.checked_groups import checked
from secateurs.prune.surgery.narrow import PARITY_LIMIT, difference, narrow
from secateurs.prune.surgery.parity import Comparison, Seen


def fewer(model: nn.Module, at: str, inputs: int) -> nn.Module:
    """The network with a small classifier in place of its own, which holds most of its weights."""
    model.set_submodule(at, nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, 4)))
    return model


def swin(version: int) -> nn.Module:
    """Swin with two stages of two blocks."""
    more: dict[str, Any] = {}
    if version == 2:
        more = {
            "block": partial(SwinTransformerBlockV2, attn_layer=ShiftedWindowAttentionV2),
            "downsample_layer": PatchMergingV2,
        }
    return models.SwinTransformer([4, 4], 24, [2, 2], [3, 6], [4, 4], num_classes=4, **more)


def maxvit() -> nn.Module:
    return models.MaxVit((64, 64), 16, 4, [16, 32], [1, 1], 8, 0.0, num_classes=4)


FAMILIES: dict[str, tuple[int, int, Callable[[], nn.Module]]] = {
    # groups that can be cut, at least; pixels; what builds it: few layers where that can be chosen
    "alexnet": (6, 96, lambda: fewer(models.alexnet(), "classifier", 256 * 36)),
    "vgg": (8, 32, lambda: fewer(models.vgg11_bn(init_weights=False), "classifier", 512 * 49)),
    "resnet": (12, 32, lambda: build("resnet18", 4)),
    "resnext": (7, 64, lambda: models.ResNet(Bottleneck, [1, 1, 1, 1], 4, False, 4, 8)),
    "densenet": (14, 64, lambda: models.DenseNet(8, (3, 3), 16, num_classes=4)),
    "mobilenet_v2": (18, 32, lambda: build("mobilenet_v2", 4)),
    "mobilenet_v3": (20, 32, lambda: build("mobilenet_v3_small", 4)),
    "efficientnet": (30, 32, lambda: build("efficientnet_b0", 4)),
    "shufflenet": (18, 32, lambda: build("shufflenet_v2_x0_5", 4)),
    "mnasnet": (20, 32, lambda: build("mnasnet0_5", 4)),
    "regnet": (20, 32, lambda: build("regnet_y_400mf", 4)),
    "squeezenet": (10, 64, lambda: build("squeezenet1_1", 4)),
    "googlenet": (50, 32, lambda: build("googlenet", 4)),
    "inception": (80, 80, lambda: build("inception_v3", 4)),
    "convnext": (4, 32, lambda: models.ConvNeXt(CONVNEXT, 0.0, num_classes=4)),
    "vit": (4, 32, lambda: models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=4)),
    "swin": (8, 32, lambda: swin(1)),
    "swin_v2": (12, 32, lambda: swin(2)),
    "maxvit": (15, 64, maxvit),
}
CONVNEXT = [CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 2)]
# Each takes seconds, and a smaller family above has the same kinds of layers.
LARGE = {
    *("vgg", "resnet", "mobilenet_v3", "efficientnet", "mnasnet", "googlenet", "inception"),
    "swin_v2",
}
HEADS = {"vit": 2, "swin": 4, "swin_v2": 4, "maxvit": 4}  # groups of attention heads


def survivors(groups: Groups, part: float = 0.5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        group.name: torch.randperm(group.num_units, generator=generator)[
            : max(1, int(part * group.num_units))
        ]
        for group in groups.found
    }


def awake(model: nn.Module) -> nn.Module:
    """Batch norms with statistics of their own; layer scales and heads let something through."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("layer_scale"):
                parameter.uniform_(0.5, 1)
            elif parameter.numel() > 1 and not bool(parameter.any()):  # a head or bias of zeros
                parameter.uniform_(-0.3, 0.3)
    return model.eval()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in FAMILIES]
)
def test_removed_equals_zeroed(name: str):
    torch.manual_seed(0)
    fewest, size, make = FAMILIES[name]
    model = awake(open_attention(make()))
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    groups = checked(model, find_groups(model, images), images)
    assert len(groups.found) >= fewest
    heads = [group for group in groups.found if group.name.endswith(".qkv")]
    assert len(heads) == HEADS.get(name, 0)
    assert all(len(group.side("out")[0].index) % (3 * group.num_units) == 0 for group in heads)
    stay = survivors(groups)
    assert difference(model, groups.found, stay, images) <= PARITY_LIMIT
    cut = narrow(model, groups.found, stay)
    with torch.no_grad():
        before, after = model(images), cut(images)
    assert before.shape == after.shape
    assert (before - after).abs().max() > 1e-6  # else the check could not fail
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 6, 3, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16, 5),
        nn.ReLU(),
        nn.Linear(5, 2),
    ).eval()


def test_survivors_keep_their_order_and_weights(net: nn.Module):
    groups = find_groups(net, torch.empty(1, 3, 8, 8)).found
    cut = narrow(net, groups, {"0": torch.tensor([5, 1]), "3": torch.tensor([0, 2])})
    assert torch.equal(cut[0].weight, net[0].weight[[1, 5]])
    assert torch.equal(cut[1].running_var, net[1].running_var[[1, 5]])
    assert torch.equal(cut[3].weight, net[3].weight[[0, 2]][:, [1, 5]])
    columns = torch.cat([torch.arange(16), torch.arange(32, 48)])
    assert torch.equal(cut[6].weight, net[6].weight[:, columns])
    assert (cut[0].out_channels, cut[1].num_features, cut[3].in_channels) == (2, 2, 2)
    assert (cut[6].in_features, cut[6].out_features) == (32, 5)


def test_nothing_is_shared_with_the_model_given(net: nn.Module):
    net[3].weight.requires_grad_(False)
    groups = find_groups(net, torch.empty(1, 3, 8, 8)).found
    cut = narrow(net, groups, {"0": torch.arange(8)})  # even where nothing is removed
    before = {name: value.clone() for name, value in net.state_dict().items()}
    own = {value.data_ptr() for value in net.state_dict().values()}
    assert not own & {value.data_ptr() for value in cut.state_dict().values()}
    with torch.no_grad():
        for value in cut.state_dict().values():
            value.zero_()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [p.requires_grad for p in cut.parameters()] == [
        p.requires_grad for p in net.parameters()
    ]


@pytest.mark.parametrize(
    ("units", "message"),
    [([], "every unit"), ([1, 1], "twice|repeated|once"), ([8], "8"), ([-1], "-1")],
)
def test_impossible_survivors_are_told(net: nn.Module, units: list[int], message: str):
    groups = find_groups(net, torch.empty(1, 3, 8, 8)).found
    with pytest.raises(InputError, match=message):
        narrow(net, groups, {"0": torch.tensor(units, dtype=torch.int64)})


def test_a_group_that_is_wrong_is_found_among_others_and_left_whole(net: nn.Module):
    groups = find_groups(net, torch.empty(1, 3, 8, 8))
    assert not checked(net, groups, torch.randn(2, 3, 8, 8)).not_pruned
    right = groups.found[1]
    reader = right.side("in")[0]
    turned = Member(reader.path, "in", reader.index, reader.unit.flip(0))  # columns of others
    wrong = Group(right.name, right.num_units, (right.side("out")[0], turned))
    images = torch.randn(4, 3, 8, 8)
    assert difference(net, [wrong], {"3": torch.tensor([0, 1, 2])}, images) > 1e-3
    seen = checked(net, replace(groups, found=(groups.found[0], wrong, groups.found[2])), images)
    assert [group.name for group in seen.found] == ["0", "6"]
    assert [left.name for left in seen.not_pruned] == ["3"]
    assert "is not the same as zeroing" in seen.not_pruned[0].reason


def test_a_cut_that_does_not_run_is_infinitely_wrong(net: nn.Module):
    group = find_groups(net, torch.empty(1, 3, 8, 8)).found[0]
    maker = Group("0", 8, group.side("out"))  # nobody is told that channels are missing
    images = torch.randn(2, 3, 8, 8)
    assert difference(net, [maker], {"0": torch.tensor([0, 1])}, images) == float("inf")
    seen = checked(net, Groups((maker,), ()), images)
    assert not seen.found and "does not run" in seen.not_pruned[0].reason


def test_modes_and_hooks_are_as_before(net: nn.Module):
    net.train()
    statistics = net[1].running_mean.clone()
    groups = find_groups(net, torch.empty(1, 3, 8, 8))
    checked(net, groups, torch.randn(2, 3, 8, 8))
    assert net.training and torch.equal(net[1].running_mean, statistics)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in net.modules())


def test_a_model_on_another_device_is_told(net: nn.Module):
    groups = find_groups(net, torch.empty(1, 3, 8, 8))
    images = torch.randn(2, 3, 8, 8)
    with pytest.raises(InputError, match=r"0\.weight: the model has shapes and no values"):
        checked(skeleton(net), groups, images)
    with pytest.raises(InputError, match=r"0\.weight of the model is on cpu .* batch is on meta"):
        checked(net, groups, images.to("meta"))
    with pytest.raises(
        InputError, match=r"batch is on meta: move one to the other with .to\('meta"
    ):
        visit_rows(net, {"3": 4}, [images.to("meta")], lambda *_: None)


class Insists(nn.Module):
    """Attention that insists on its number of heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.hidden, self.out = nn.Linear(8, 6), nn.Linear(6, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).reshape(len(x), -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
        x = self.proj(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))
        return x + self.out(self.hidden(x).relu())


def test_what_does_not_run_without_units_is_found_on_shapes(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), Turn(), *(Insists() for _ in range(4))
    )
    groups = find_groups(model, torch.empty(1, 3, 8, 8))
    heads = [group.name for group in groups.found if group.name.endswith("qkv")]
    assert len(heads) == 4
    compared: list[int] = []
    monkeypatch.setattr(
        Comparison, "compare", lambda *_: compared.append(1) or Seen(0.0, visible=True)
    )
    seen = checked(model, groups, torch.randn(2, 3, 8, 8))
    assert [left.name for left in seen.not_pruned[len(groups.not_pruned) :]] == heads
    assert seen.found == tuple(group for group in groups.found if group.name not in heads)
    assert len(compared) == 2  # with the weights given, and with others


class Turn(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mT
