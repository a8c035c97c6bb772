"""Shapes of networks that were refused, or cut in part, until somebody tried them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import rnn

from shapes.entry import Entry, Net, floats, own


def gated_by_halves(net: Net, x: Tensor) -> Tensor:
    """The halves of what a layer gives, by slices whose bounds come from the width."""
    x = net.a(x)
    half = x.shape[1] // 2
    return net.head(net.b(torch.tanh(x[:, :half]) * torch.sigmoid(x[:, half:])).relu().mean(2))


def packed(net: Net, x: Tensor) -> Tensor:
    lengths = torch.full((len(x),), 5)
    given = rnn.pack_padded_sequence(net.a(x).relu(), lengths, True, enforce_sorted=False)
    out, _ = rnn.pad_packed_sequence(net.rnn(given)[0], True)
    return net.head(out[:, -1])


class Started(nn.Module):
    """A state of zeros whose width is an attribute, on a device of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = 10
        self.rnn, self.head = nn.GRU(6, self.hidden, 2), nn.Linear(self.hidden, 3)

    def forward(self, x: Tensor) -> Tensor:
        start = torch.zeros(2, len(x), self.hidden, dtype=x.dtype)
        return self.head(self.rnn(x.transpose(0, 1), start)[0].mean(0))


class Heads(nn.Module):
    """Heads by their number: with another number of channels they run, and are other heads."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 3
        self.embed, self.kv = nn.Linear(6, 12), nn.Linear(12, 24)
        self.query, self.proj, self.head = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        parts = (self.query(x), *self.kv(x).chunk(2, -1))
        query, key, value = (
            part.reshape(len(x), 5, self.heads, -1).transpose(1, 2) for part in parts
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.head((x + self.proj(mixed.transpose(1, 2).flatten(2))).mean(1))


def dims_with_a_scale(net: Net, x: Tensor) -> Tensor:
    """Channels go from all heads alike where the scale does not follow from their number."""
    x = net.embed(x)
    query, key, value = (
        layer(x).unflatten(-1, (3, -1)).transpose(1, 2) for layer in (net.query, net.key, net.value)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, scale=0.5)
    return net.head(net.proj(mixed.transpose(1, 2).flatten(2)).relu().mean(1))


def spatial_gating(net: Net, x: Tensor) -> Tensor:
    """A product over tokens beside channels that go (gMLP)."""
    one, two = F.gelu(net.up(x)).chunk(2, -1)
    return net.head((one * net.places(net.norm(two))).mean(1))


def in_frequencies(net: Net, x: Tensor) -> Tensor:
    """Each channel is filtered in its frequencies."""
    x = net.a(x).relu()
    found = torch.fft.rfft(x, dim=-1) * torch.view_as_complex(net.filters)
    return net.head(net.b(x + torch.fft.irfft(found, n=x.shape[-1], dim=-1)).relu().mean(2))


def largest(net: Net, x: Tensor) -> Tensor:
    """The largest of each channel, and its three largest."""
    x = net.a(x)
    return net.head(net.b(x.max(2)[0] + x.topk(3, 2).values.sum(2) + x.sort(2)[0][:, :, 1]).relu())


def top_one(net: Net, x: Tensor) -> Tensor:
    """Each token goes to one expert."""
    x = net.embed(x)
    flat = x.reshape(-1, x.shape[-1])
    gates, chosen = net.gate(flat).softmax(-1).max(-1)
    out = torch.zeros_like(flat)
    for number, expert in enumerate(net.experts):
        rows = (chosen == number).nonzero(as_tuple=True)[0]
        if rows.numel():
            out[rows] = gates[rows, None] * expert(flat[rows])
    return net.head((flat + out).view_as(x))


def experts() -> nn.ModuleList:
    return nn.ModuleList(
        [nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8)) for _ in range(2)]
    )


class KeysByArgument(nn.Module):
    """Two heads for each key, which attention repeats itself (`enable_gqa`)."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.num_keys = 6, 3
        self.query, self.key, self.value = nn.Linear(6, 24), nn.Linear(6, 12), nn.Linear(6, 12)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).view(len(x), 5, self.num_heads, 4).transpose(1, 2)
        key, value = (
            layer(x).view(len(x), 5, self.num_keys, 4).transpose(1, 2)
            for layer in (self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
        return self.head(mixed.transpose(1, 2).flatten(2).mean(1))


LAYERS: dict[str, Any] = {
    "query": lambda: nn.Linear(12, 12),
    "key": lambda: nn.Linear(12, 12),
    "value": lambda: nn.Linear(12, 12),
}

FOUND = {
    "keys_repeated_by_argument": Entry(KeysByArgument, floats(5, 6), {"query": 3, "key": 3}),
    "halves_by_slices": Entry(
        lambda: Net(
            gated_by_halves,
            a=nn.Conv1d(2, 16, 3),
            b=nn.Conv1d(8, 10, 1),
            head=nn.Linear(10, 3),
        ),
        floats(2, 9),
        {"a": 8, "b": 10},
    ),
    "gru_packed": Entry(
        lambda: Net(packed, a=nn.Linear(6, 12), rnn=nn.GRU(12, 10), head=nn.Linear(10, 3)),
        floats(5, 6),
        {"a": 12, "rnn": 10},
    ),
    "lstm_packed": Entry(
        lambda: Net(packed, a=nn.Linear(6, 12), rnn=nn.LSTM(12, 10), head=nn.Linear(10, 3)),
        floats(5, 6),
        {"a": 12, "rnn": 10},
    ),
    "state_by_attribute": Entry(Started, floats(5, 6), {"rnn": 10}),
    "heads_by_attribute": Entry(Heads, floats(5, 6), {"embed": 12, "query": 3}),
    "attention_dims_of_all_heads": Entry(
        lambda: Net(
            dims_with_a_scale,
            embed=nn.Linear(6, 12),
            **{name: part() for name, part in LAYERS.items()},
            proj=nn.Linear(12, 10),
            head=nn.Linear(10, 3),
        ),
        floats(5, 6),
        {"embed": 12, "query": 4, "value": 4, "proj": 10},
    ),
    "spatial_gating": Entry(
        lambda: Net(
            spatial_gating,
            up=nn.Linear(6, 24),
            norm=nn.LayerNorm(12),
            places=nn.Conv1d(5, 5, 1, bias=False),
            head=nn.Linear(12, 3),
        ),
        floats(5, 6),
        {"up": 12},
        norm_width=True,
    ),
    "filtered_in_frequencies": Entry(
        lambda: Net(
            in_frequencies,
            a=nn.Conv1d(2, 12, 3, padding=1),
            filters=own(12, 5, 2),
            b=nn.Conv1d(12, 10, 1),
            head=nn.Linear(10, 3),
        ),
        floats(2, 8),
        {"a": 12, "b": 10},
    ),
    "largest_places": Entry(
        lambda: Net(largest, a=nn.Conv1d(3, 12, 1), b=nn.Linear(12, 10), head=nn.Linear(10, 3)),
        floats(3, 7),
        {"a": 12, "b": 10},
    ),
    "experts_top_one": Entry(
        lambda: Net(
            top_one,
            embed=nn.Linear(6, 8),
            gate=nn.Linear(8, 2),
            experts=experts(),
            head=nn.Linear(8, 3),
        ),
        floats(60, 6),  # so many that each sample has tokens for both experts
        {"embed": 8, "experts.0.0": 12, "experts.1.0": 12},
    ),
}
