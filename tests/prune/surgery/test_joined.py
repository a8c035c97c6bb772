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


class Stitched(nn.Module):
    """A slice up to the width of another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.mix = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(24, 24)
        self.head_a, self.head_b = nn.Linear(12, 3), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.a(x).relu(), self.b(x).relu()
        both = self.mix(torch.cat([a, b], 1)).relu()
        return self.head_a(both[:, : a.shape[1]]), self.head_b(both[:, a.shape[1] :])


def test_a_width_that_bounds_a_slice_goes_with_what_is_sliced():
    torch.manual_seed(0)
    x = torch.randn(40, 6)
    rows = secateurs.inspect(Stitched(), x).groups
    found = {row.name: set(row.layers) for row in rows}
    assert {row.num_units for row in rows} == {12}
    assert found == {"a": {"a", "mix", "head_a", "head_b"}, "b": {"b", "mix"}}
    small = secateurs.prune(Stitched(), [x], secateurs.Budget(macs=0.5, round_to=1, fewest=1))
    assert small.report["parity"] <= 1e-5
    assert len(small.kept["mix"]) == 2 * len(small.kept["a"])


class Started(nn.Module):
    """A state of as many zeros as the module says, which two layers write into."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 12
        self.embed, self.state = nn.Linear(6, 12), nn.Linear(12, 12)
        self.extra, self.head = nn.Linear(6, 12), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), self.hidden)
        for step in range(2):
            state = (self.embed(x[:, step]) + self.state(state)).tanh()
        other = self.extra(x[:, 0]).view(len(x), self.hidden)
        return self.head(torch.cat([state, other], 1))


def test_groups_that_read_one_number_go_together():
    torch.manual_seed(0)
    (row,) = secateurs.inspect(Started(), torch.randn(9, 2, 6)).groups
    assert row.num_units == 12
    assert set(row.layers) == {"embed", "state", "extra", "head"}
