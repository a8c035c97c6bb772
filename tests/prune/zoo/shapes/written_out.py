"""What networks write out by themselves: norms, heads by the width, experts in one tensor."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from shapes.entry import Entry, Net, any_of, floats, own, pooled
from shapes.means import centred, channel_mean


class Rms(nn.Module):
    """The norm of Llama and of T5."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = own(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * (channel_mean(x.pow(2), -1) + 1e-6).rsqrt())


class Centred(nn.Module):
    """The layer norm over the channels of maps, as ConvNeXt wrote it first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = own(width), own(width)

    def forward(self, x: Tensor) -> Tensor:
        x = centred(x, 1)
        x = x / (channel_mean(x.pow(2), 1) + 1e-6).sqrt()
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class Response(nn.Module):
    """The global response norm of ConvNeXt V2, channels last."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = own(1, 1, 1, width), own(1, 1, 1, width)

    def forward(self, x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (size / (channel_mean(size, -1) + 1e-6))) + self.beta + x


def between(norm: Callable[[int], nn.Module]) -> Entry:
    """A norm over the last axis between two layers."""
    return Entry(
        lambda: Net(
            lambda n, x: n.head(n.b(n.norm(n.a(x))).relu().flatten(1, -2).mean(1)),
            a=nn.Linear(6, 12),
            norm=norm(12),
            b=nn.Linear(12, 10),
            head=nn.Linear(10, 3),
        ),
        floats(3, 4, 6),
        {"a": 12, "b": 10},
        norm_width=True,
    )


class Block(nn.Module):
    """Attention whose heads are as wide as the tokens say: `C // heads`."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 3
        self.embed, self.qkv = nn.Linear(6, 12), nn.Linear(12, 36)
        self.proj, self.head = nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        samples, length, width = x.shape
        qkv = self.qkv(x).reshape(samples, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = (query @ key.mT * 0.5).softmax(-1) @ value
        x = x + self.proj(mixed.transpose(1, 2).reshape(samples, length, width))
        return self.head(x.mean(1))


class SharedKeys(nn.Module):
    """Two heads for each key, by attributes, with keys repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = 6, 3, 4
        self.wq, self.wk, self.wv = nn.Linear(6, 24), nn.Linear(6, 12), nn.Linear(6, 12)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        def heads(layer: nn.Module, count: int) -> Tensor:
            return layer(x).view(len(x), 5, count, self.head_dim).transpose(1, 2)

        query = heads(self.wq, self.n_heads)
        key, value = (
            heads(layer, self.n_kv_heads).repeat_interleave(self.n_heads // self.n_kv_heads, 1)
            for layer in (self.wk, self.wv)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.head(mixed.transpose(1, 2).flatten(2).mean(1))


class Positive(nn.Module):
    """Attention without a softmax, its queries and keys made positive, heads by attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.embed = 3, nn.Linear(6, 10)
        self.qkv, self.proj, self.head = nn.Linear(10, 36), nn.Linear(12, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        parts = self.qkv(x).view(len(x), 5, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = F.elu(parts[0]) + 1, F.elu(parts[1]) + 1, parts[2]
        total = query @ key.sum(-2).unsqueeze(-1)
        mixed = query @ (key.mT @ value) / (total + 1e-6)
        return self.head((x + self.proj(mixed.transpose(1, 2).flatten(2))).mean(1))


def einsum_experts(net: Net, x: Tensor) -> Tensor:
    x = net.embed(x)
    hidden = torch.einsum("btd,edh->ebth", x, net.first).relu()
    given = torch.einsum("ebth,ehd->ebtd", hidden, net.second)
    return net.head((x + torch.einsum("ebtd,bte->btd", given, net.gate(x).softmax(-1))).mean(1))


def einsum_heads(net: Net, x: Tensor) -> Tensor:
    heads = torch.einsum("btd,dhk->bthk", x, net.into).relu()
    return net.head(torch.einsum("bthk,hko->bto", heads, net.out).relu().mean(1))


def added_rows(net: Net, x: Tensor) -> Tensor:
    """Each token's two experts add to its row."""
    x = net.embed(x)
    flat = x.reshape(-1, x.shape[-1])
    weights, chosen = net.gate(flat).softmax(-1).topk(2, -1)
    out = torch.zeros_like(flat)
    for number, expert in enumerate(net.experts):
        rows, place = torch.where(chosen == number)
        out.index_add_(0, rows, weights[rows, place, None] * expert(flat[rows]))
    return net.head((flat + out).view_as(x).mean(1))


def scattered(net: Net, x: Tensor) -> Tensor:
    """Messages along the edges of a ring, added up at their ends."""
    x = net.a(x).relu()
    ends = torch.arange(x.shape[1]).roll(1)[None, :, None].expand_as(x)
    return net.head(net.b(x + torch.zeros_like(x).scatter_add(1, ends, x)).relu().mean(1))


def deformed(net: Net, x: Tensor) -> Tensor:
    x = net.a(x).relu()
    return net.head(pooled(net.deform(x, net.offset(x), net.mask(x).sigmoid()).relu()))


class Cells(nn.Module):
    """A convolutional LSTM; the state starts from zeros beside the input."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden_dim = 6
        self.gates, self.head = nn.Conv1d(7, 24, 3, padding=1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = cell = x.new_zeros(len(x), self.hidden_dim, x.shape[2])
        for step in x.split(1, 1):
            gates = self.gates(torch.cat([step, hidden], 1)).split(self.hidden_dim, 1)
            given, kept, shown = (gate.sigmoid() for gate in gates[:3])
            cell = kept * cell + given * gates[3].tanh()
            hidden = shown * cell.tanh()
        return self.head(hidden.mean(2))


def decayed(net: Net, x: Tensor) -> Tensor:
    """Sums that decay by a parameter, from zeros (RWKV)."""
    key, value = net.key(x).exp(), net.value(x)
    over = torch.zeros_like(value[:, 0])
    under = torch.zeros_like(over)
    decay = (-net.decay.exp()).exp()
    for step in range(x.shape[1]):
        over = decay * over + key[:, step] * value[:, step]
        under = decay * under + key[:, step]
    return net.head(over / under)


def bias_in_pieces(net: Net, x: Tensor) -> Tensor:
    """The bias of queries, keys and values put together, that of the keys zero (BEiT)."""
    bias = torch.cat([net.query, torch.zeros_like(net.value), net.value])
    query, key, value = (
        F.linear(x, net.qkv.weight, bias).unflatten(-1, (3, -1, 4)).permute(2, 0, 3, 1, 4)
    )
    mixed = F.scaled_dot_product_attention(query, key, value)
    return net.head(mixed.transpose(1, 2).flatten(2).mean(1))


def pairs_of_fields(net: Net, x: Tensor) -> Tensor:
    """Products of all fields with each other (DLRM)."""
    fields = torch.cat([net.one(x), net.two(x), net.three(x)], 1).view(len(x), 3, -1)
    return net.head((fields @ fields.mT).flatten(1))


WRITTEN_OUT = {
    "rms_norm_written_out": between(Rms),
    "response_norm": between(Response),
    "layer_norm_of_maps_written_out": Entry(
        lambda: Net(
            lambda n, x: n.head(pooled(n.b(n.norm(n.a(x))).relu())),
            a=nn.Conv2d(3, 12, 3),
            norm=Centred(12),
            b=nn.Conv2d(12, 10, 1),
            head=nn.Linear(10, 3),
        ),
        floats(3, 6, 6),
        {"a": 12, "b": 10},
        norm_width=True,
    ),
    "heads_by_the_width": Entry(Block, floats(5, 6), {"embed": any_of(3, 4)}),
    "keys_shared_by_attributes": Entry(SharedKeys, floats(5, 6), {"wq": 3}),
    "attention_linear_positive": Entry(Positive, floats(5, 6), {"embed": 10, "qkv": 3}),
    "experts_by_einsum": Entry(
        lambda: Net(
            einsum_experts,
            embed=nn.Linear(6, 8),
            gate=nn.Linear(8, 3),
            first=nn.Parameter(torch.randn(3, 8, 12)),
            second=nn.Parameter(torch.randn(3, 12, 8)),
            head=nn.Linear(8, 3),
        ),
        floats(5, 6),
        {"embed": 8, "first": 12},
    ),
    "heads_by_einsum": Entry(
        lambda: Net(
            einsum_heads,
            into=nn.Parameter(torch.randn(6, 3, 4)),
            out=nn.Parameter(torch.randn(3, 4, 10)),
            head=nn.Linear(10, 3),
        ),
        floats(5, 6),
        {"into": 4, "out": 10},
    ),
    "experts_added_to_rows": Entry(
        lambda: Net(
            added_rows,
            embed=nn.Linear(6, 8),
            gate=nn.Linear(8, 3),
            experts=nn.ModuleList(
                [nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8)) for _ in range(3)]
            ),
            head=nn.Linear(8, 3),
        ),
        floats(40, 6),
        {"embed": 8, "experts.0.0": 12, "experts.2.0": 12},
    ),
    "messages_scattered": Entry(
        lambda: Net(scattered, a=nn.Linear(6, 12), b=nn.Linear(12, 10), head=nn.Linear(10, 3)),
        floats(5, 6),
        {"a": 12, "b": 10},
    ),
    "deformable": Entry(
        lambda: Net(
            deformed,
            a=nn.Conv2d(3, 12, 3, padding=1),
            offset=nn.Conv2d(12, 18, 3, padding=1),
            mask=nn.Conv2d(12, 9, 3, padding=1),
            deform=DeformConv2d(12, 10, 3, padding=1),
            head=nn.Linear(10, 3),
        ),
        floats(3, 6, 6),
        {"a": 12, "deform": 10},
        {"offset": "it says where the convolution looks"},
    ),
    "cells_of_convolutions": Entry(Cells, floats(4, 8), {"gates": 6}),
    "decaying_sums": Entry(
        lambda: Net(
            decayed,
            key=nn.Linear(6, 12),
            value=nn.Linear(6, 12),
            decay=own(12),
            head=nn.Linear(12, 3),
        ),
        floats(5, 6),
        {"key": 12},
    ),
    "bias_in_pieces": Entry(
        lambda: Net(
            bias_in_pieces,
            qkv=nn.Linear(6, 36, bias=False),
            query=own(12),
            value=own(12),
            head=nn.Linear(12, 3),
        ),
        floats(5, 6),
        {"qkv": 3},
    ),
    "pairs_of_fields": Entry(
        lambda: Net(
            pairs_of_fields,
            one=nn.Linear(4, 8),
            two=nn.Linear(4, 8),
            three=nn.Linear(4, 8),
            head=nn.Linear(9, 3),
        ),
        floats(4),
        {"one": 8},
    ),
}
