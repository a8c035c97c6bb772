"""Norms that networks write out are known by what they compute; nothing else is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateurs.prune.coupling.own_norms import own_norm


class Own(nn.Module):
    """Six channels scaled by a weight, and something done to them before."""

    def __init__(self, what: Callable[[Any, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.what = what
        self.weight = nn.Parameter(torch.ones(shape or (6,)))

    def forward(self, x: Tensor) -> Tensor:
        return self.what(self, x)


def rms(net: Own, x: Tensor) -> Tensor:
    return net.weight * x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


def of_maps(net: Own, x: Tensor) -> Tensor:
    x = x - x.mean(1, keepdim=True)
    return x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt() * net.weight[:, None, None]


def response(net: Own, x: Tensor) -> Tensor:
    size = x.norm(dim=(1, 2), keepdim=True)
    return net.weight * x * size / (size.mean(-1, keepdim=True) + 1e-6) + x


@pytest.mark.parametrize(
    ("module", "axis", "along"),
    [
        (Own(rms), -1, 0),
        (Own(lambda net, x: rms(net, x.float()).to(x.dtype)), -1, 0),
        (Own(of_maps), 1, 0),
        (Own(response, 1, 1, 1, 6), -1, 3),
    ],
)
def test_a_norm_is_known_with_the_axis_of_its_channels(module: nn.Module, axis: int, along: int):
    rule = own_norm(module.to("meta"))
    assert rule is not None and rule.norm
    assert (rule.axis, rule.tensors) == (axis, {"weight": along})


@pytest.mark.parametrize(
    "module",
    [
        nn.LayerNorm(6),  # of PyTorch, which has a rule
        Own(lambda net, x: net.weight * x),  # channel by channel
        Own(lambda net, x: net.weight * x.softmax(-1)),  # it depends on the scale
        Own(lambda net, x: net.weight * x * x.mean(-1, keepdim=True)),  # as its square
        Own(lambda net, x: rms(net, x.cumsum(-1))),  # the order of channels counts
        Own(lambda net, x: rms(net, x)[..., :3]),  # fewer channels
        Own(rms, 2, 3),  # not a value per channel
        nn.Sequential(Own(rms)),  # it has modules within
    ],
)
def test_nothing_else_is_a_norm(module: nn.Module):
    assert own_norm(module) is None
