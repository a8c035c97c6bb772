"""Weights that are used in several places, and layers that run several times."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shapes.entry import Entry, Net, floats, pooled, tokens


def autoencoder(net: Net, x: Tensor) -> Tensor:
    code = net.encoder(x).relu()
    return F.linear(code, net.encoder.weight.t(), net.bias)


def deep_autoencoder(net: Net, x: Tensor) -> Tensor:
    code = net.two(net.one(x).relu()).relu()
    hidden = F.linear(code, net.two.weight.t()).relu()
    return F.linear(hidden, net.one.weight.t())


class Language(nn.Module):
    """An embedding whose weight also makes the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.up, self.down = nn.Linear(12, 16), nn.Linear(16, 12)
        self.head = nn.Linear(12, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.down(self.up(x).relu()))


def twice(net: Net, x: Tensor) -> Tensor:
    x = net.a(x).relu()
    x = net.shared(net.shared(x).relu()).relu()
    return net.head(pooled(net.b(x).relu()))


def siamese(net: Net, first: Tensor, second: Tensor) -> Tensor:
    one, two = (pooled(net.b(net.a(x).relu()).relu()) for x in (first, second))
    return net.head((one - two).abs())


def siamese_joined(net: Net, first: Tensor, second: Tensor) -> Tensor:
    one, two = (net.b(net.a(x).relu()).relu() for x in (first, second))
    return net.head(torch.cat([one, two], 1))


def detector(net: Net, x: Tensor) -> list[Tensor]:
    high = net.a(x).relu()
    low = net.b(high).relu()
    levels = [net.side_high(high), net.side_low(low)]
    return [net.head(net.tower(level).relu()) for level in levels]


def refined(net: Net, x: Tensor) -> Tensor:
    state = net.start(x).relu()
    for _ in range(3):
        state = state + net.back(net.step(state).relu())
    return net.head(state)


def two_heads(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    x = net.b(net.a(x).relu()).relu()
    return net.head_class(pooled(x)), net.head_map(x)


def siamese_triple(net: Net, x: Tensor) -> Tensor:
    parts = [net.b(net.a(part).relu()).relu() for part in x.unbind(1)]
    return net.head(torch.stack(parts).sum(0))


def own_norms(net: Net, x: Tensor) -> Tensor:
    x = net.a(x)
    one = net.shared(net.norm_one(x).relu())
    two = net.shared(net.norm_two(x).relu())
    return net.head(pooled((one + two).relu()))


class Twins(nn.Module):
    """One module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 12)
        self.one = nn.Linear(12, 12)
        self.two = self.one
        self.b, self.head = nn.Linear(12, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.one(self.a(x).relu()).relu()).relu()
        return self.head(self.b(x).relu())


class TiedLayers(nn.Module):
    """Two layers with one weight and biases of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 12), nn.Linear(6, 12)
        self.two.weight = self.one.weight
        self.b, self.head = nn.Linear(12, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).relu() + self.two(-x).relu()
        return self.head(self.b(x).relu())


def repeated_block(net: Net, x: Tensor) -> Tensor:
    x = net.embed(x)
    for _ in range(2):
        x = net.norm(x + net.down(F.gelu(net.up(x))))
    return net.head(x.mean(1))


def pair(width: int, *shape: int) -> Any:
    return lambda samples: (torch.randn(samples, *shape), torch.randn(samples, *shape))


SHARED = {
    "tied_autoencoder": Entry(
        lambda: Net(autoencoder, encoder=nn.Linear(6, 12), bias=torch.randn(6)),
        floats(6),
        {"encoder": 12},
    ),
    "tied_deep_autoencoder": Entry(
        lambda: Net(deep_autoencoder, one=nn.Linear(6, 12), two=nn.Linear(12, 5)),
        floats(6),
        {"one": 12, "two": 5},
    ),
    # The width goes in the embedding, in the outputs' weight and in all between.
    "tied_embedding": Entry(Language, tokens(5), {"embed": 12, "up": 16}),
    "tied_layers": Entry(TiedLayers, floats(6), {"one": 12, "b": 10}),
    "one_module_two_names": Entry(Twins, floats(6), {"a": 12, "b": 10}),
    "shared_convolution": Entry(
        lambda: Net(
            twice,
            a=nn.Conv2d(3, 12, 3),
            shared=nn.Conv2d(12, 12, 3, padding=1),
            b=nn.Conv2d(12, 10, 1),
            head=nn.Linear(10, 3),
        ),
        floats(3, 6, 6),
        {"a": 12, "shared": 12, "b": 10},
    ),
    "siamese": Entry(
        lambda: Net(siamese, a=nn.Conv2d(3, 12, 3), b=nn.Conv2d(12, 10, 3), head=nn.Linear(10, 3)),
        pair(3, 3, 6, 6),
        {"a": 12, "b": 10},
    ),
    # Both halves of what the head reads are made by one layer.
    "siamese_joined": Entry(
        lambda: Net(siamese_joined, a=nn.Linear(6, 12), b=nn.Linear(12, 10), head=nn.Linear(20, 3)),
        pair(6, 6),
        {"a": 12, "b": 10},
    ),
    "siamese_unbound": Entry(
        lambda: Net(siamese_triple, a=nn.Linear(6, 12), b=nn.Linear(12, 10), head=nn.Linear(10, 3)),
        floats(3, 6),
        {"a": 12, "b": 10},
    ),
    "shared_detector_head": Entry(
        lambda: Net(
            detector,
            a=nn.Conv2d(3, 6, 3),
            b=nn.Conv2d(6, 12, 3, stride=2),
            side_high=nn.Conv2d(6, 8, 1),
            side_low=nn.Conv2d(12, 8, 1),
            tower=nn.Conv2d(8, 10, 3, padding=1),
            head=nn.Conv2d(10, 4, 1),
        ),
        floats(3, 8, 8),
        {"a": 6, "b": 12, "side_high": 8, "side_low": 8, "tower": 10},
    ),
    "recurrent_refinement": Entry(
        lambda: Net(
            refined,
            start=nn.Linear(6, 12),
            step=nn.Linear(12, 8),
            back=nn.Linear(8, 12),
            head=nn.Linear(12, 3),
        ),
        floats(6),
        {"start": 12, "step": 8, "back": 12},
    ),
    "two_heads": Entry(
        lambda: Net(
            two_heads,
            a=nn.Conv2d(3, 12, 3),
            b=nn.Conv2d(12, 10, 1),
            head_class=nn.Linear(10, 3),
            head_map=nn.Conv2d(10, 2, 1),
        ),
        floats(3, 6, 6),
        {"a": 12, "b": 10},
    ),
    "shared_layer_own_norms": Entry(
        lambda: Net(
            own_norms,
            a=nn.Conv2d(3, 12, 3),
            norm_one=nn.BatchNorm2d(12),
            norm_two=nn.BatchNorm2d(12),
            shared=nn.Conv2d(12, 10, 1),
            head=nn.Linear(10, 3),
        ),
        floats(3, 6, 6),
        {"a": 12, "shared": 10},
    ),
    "shared_block": Entry(
        lambda: Net(
            repeated_block,
            embed=nn.Linear(6, 12),
            norm=nn.LayerNorm(12),
            up=nn.Linear(12, 16),
            down=nn.Linear(16, 12),
            head=nn.Linear(12, 3),
        ),
        floats(5, 6),
        {"embed": 12, "up": 16},
        norm_width=True,
    ),
}
