"""Groups without which a network runs only if they are cut together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import secateurs


class Tokens(nn.Module):
    """Two blocks of attention whose heads are as wide as the tokens say."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.embed, self.head = nn.Linear(6, 16), nn.Linear(16, 3)
        self.qkv = nn.ModuleList([nn.Linear(16, 48) for _ in range(2)])
        self.proj = nn.ModuleList([nn.Linear(16, 16) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        samples, length, width = x.shape
        for qkv, proj in zip(self.qkv, self.proj, strict=True):
            parts = qkv(x).view(samples, length, 3, self.num_heads, width // self.num_heads)
            query, key, value = parts.permute(2, 0, 3, 1, 4)
            mixed = (query @ key.mT).softmax(-1) @ value
            x = x + proj(mixed.transpose(1, 2).reshape(samples, length, width))
        return self.head(x.mean(1))


def test_the_width_of_tokens_goes_with_the_heads_of_all_blocks():
    torch.manual_seed(0)
    x = torch.randn(32, 5, 6)
    (row,) = secateurs.inspect(Tokens(), x).groups
    assert (row.name, row.num_units) == ("embed", 4)
    assert {"embed", "qkv.0", "proj.0", "qkv.1", "proj.1", "head"} == set(row.layers)

    budget = secateurs.Budget(params=1, round_to=1, fewest=1)
    small = secateurs.prune(Tokens(), [x], budget, ratios={"embed": 0.5})
    assert small.report["parity"] <= 1e-5
    assert small.model.num_heads == 2
    assert [small.model.embed.out_features, small.model.qkv[0].out_features] == [8, 24]
    first, second = small.kept["embed"][:4], small.kept["embed"][4:]
    for kept in (first, second):  # neighbours
        assert list(kept) == [kept[0] + k for k in range(4)] and kept[0] % 4 == 0
