"""Norms over the channels that stay, against the same norm of fewer channels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateurs.prune.surgery.survivor_norms import norm_over_survivors, over_survivors

GONE = torch.tensor([1, 4])
STAY = [0, 2, 3, 5]


class Turned(nn.LayerNorm):
    """A layer norm over the channels of maps, as some libraries have it."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("norm", "small", "axis"),
    [
        (nn.LayerNorm(6), nn.LayerNorm(4), -1),
        (nn.LayerNorm(6, elementwise_affine=False), nn.LayerNorm(4, elementwise_affine=False), -1),
        (nn.RMSNorm(6), nn.RMSNorm(4), -1),
        (nn.GroupNorm(1, 6), nn.GroupNorm(1, 4), 1),
        (Turned(6), Turned(4), 1),
    ],
)
def test_a_norm_over_survivors(norm: nn.Module, small: nn.Module, axis: int):
    torch.manual_seed(0)
    with torch.no_grad():
        for big, few in zip(norm.parameters(), small.parameters(), strict=True):
            big.uniform_(0.5, 2)
            few.copy_(big[STAY])
    x = torch.randn(3, 5, 4, 6).movedim(-1, axis)
    stay = torch.tensor(STAY)
    whole = norm(x)
    over_survivors(norm, GONE)
    found = norm(x)
    torch.testing.assert_close(found.index_select(axis, stay), small(x.index_select(axis, stay)))
    assert not found.index_select(axis, GONE).any()
    assert not torch.allclose(found.index_select(axis, stay), whole.index_select(axis, stay))
    del norm.forward
    assert torch.equal(norm(x), whole)


class Rms(nn.Module):
    """A norm that a network writes out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * x.square().mean(-1, keepdim=True).rsqrt()


def test_a_norm_of_its_own_over_survivors():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Identity(), Rms(6))
    nn.init.uniform_(net[1].weight, 0.5, 2)
    x = torch.randn(3, 5, 6)
    whole = net(x)
    wrapped = norm_over_survivors(net, "1", "weight", GONE)
    found = net(x)
    left = x[..., STAY]
    expected = left / left.square().mean(-1, keepdim=True).sqrt() * net[1].weight[STAY]
    torch.testing.assert_close(found[..., STAY], expected)
    assert not found[..., GONE].any()
    del wrapped.forward
    assert torch.equal(net(x), whole)
