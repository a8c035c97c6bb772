"""Maps that are joined, taken apart, sliced and added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shapes.entry import Entry, Net, floats, pooled


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def joined(
    run: Callable[[Net, Tensor], Tensor], groups: dict[str, Any], last: int, **parts: Any
) -> Entry:
    """Convolutions joined in some way, pooled, and a head that reads `last` channels."""
    return Entry(
        lambda: Net(
            lambda n, x: n.head(pooled(run(n, x))),
            **{name: conv(*sizes) for name, sizes in parts.items()},
            head=nn.Linear(last, 3),
        ),
        floats(3, 6, 6),
        groups,
    )


def cat_rows(net: Net, x: Tensor) -> Tensor:
    return net.c(torch.cat([net.a(x).relu(), net.b(x).relu()], 2)).relu()


def cat_tokens(net: Net, x: Tensor) -> Tensor:
    tokens = torch.cat([net.a(x), net.b(x)], 1)
    return net.head(net.c(tokens.relu()).relu().mean(1))


def dense(net: Net, x: Tensor) -> Tensor:
    x = net.a(x).relu()
    x = torch.cat([x, net.b(x).relu()], 1)
    x = torch.cat([x, net.c(x).relu()], 1)
    return net.d(x).relu()


def in_place_slice(net: Net, x: Tensor) -> Tensor:
    x = net.a(x).relu()
    changed = x.clone()
    changed[:, :4] = changed[:, :4] * 2
    return net.b(changed).relu()


def into_zeros(net: Net, x: Tensor) -> Tensor:
    canvas = x.new_zeros(len(x), 18, 6, 6)
    canvas[:, :12] = net.a(x).relu()
    canvas[:, 12:] = net.b(x).relu()
    return net.c(canvas).relu()


def places_in_place(net: Net, x: Tensor) -> Tensor:
    x = net.a(x).relu()
    x[:, :, ::2] = 0
    x[..., 1] += 1
    return net.b(x).relu()


def sliced(net: Net, x: Tensor) -> Tensor:
    x = net.a(x).relu()
    return net.c(torch.cat([x[:, :5], net.b(x[:, 5:]).relu()], 1)).relu()


def cross_stage(net: Net, x: Tensor) -> Tensor:
    one, two = net.a(x).relu().chunk(2, 1)
    return net.c(torch.cat([one, net.b(two).relu()], 1)).relu()


def shift(net: Net, x: Tensor) -> Tensor:
    x = net.a(x).relu()
    left, right, rest = x.split([4, 4, 4], 1)
    return net.b(torch.cat([left.roll(1, 3), right.roll(-1, 3), rest], 1)).relu()


def residuals(net: Net, x: Tensor) -> Tensor:
    x = net.a(x).relu()
    for one, two in ((net.b, net.c), (net.d, net.e)):
        x = (x + two(one(x).relu())).relu()
    return x


def projected(net: Net, x: Tensor) -> Tensor:
    x = net.a(x).relu()
    return (net.skip(x) + net.c(net.b(x).relu())).relu()


def product(net: Net, x: Tensor) -> Tensor:
    return net.c(net.a(x) * net.b(x)).relu()


def stacked(net: Net, x: Tensor) -> Tensor:
    return net.c(torch.stack([net.a(x), net.b(x)]).amax(0)).relu()


def outer_product(net: Net, x: Tensor) -> Tensor:
    one, two = pooled(net.a(x).relu()), pooled(net.b(x).relu())
    return net.head((one[:, :, None] * two[:, None]).flatten(1))


def repeated(net: Net, x: Tensor) -> Tensor:
    return net.b(torch.cat([net.a(x).relu()] * 2, 1)).relu()


def flipped(net: Net, x: Tensor) -> Tensor:
    x = net.a(x).relu()
    return net.b(x.flip(3) + x.roll(1, 2)).relu()


def turned(net: Net, x: Tensor) -> Tensor:
    x = net.a(x).relu()
    return net.b(x + x.flip(1)).relu()


def as_pairs(net: Net, x: Tensor) -> Tensor:
    x = net.a(x).relu().unflatten(1, (4, 3))  # four parts that are read alike
    return net.head(net.b(x.mean((3, 4))).relu().mean(1))


JOINS = {
    "cat_channels": joined(
        lambda n, x: n.c(torch.cat([n.a(x).relu(), n.b(x).relu()], 1)).relu(),
        {"a": 12, "b": 7, "c": 10},
        10,
        a=(3, 12),
        b=(3, 7),
        c=(19, 10),
    ),
    "cat_with_input": joined(
        lambda n, x: n.b(torch.cat([x, n.a(x).relu()], 1)).relu(),
        {"a": 12, "b": 10},
        10,
        a=(3, 12),
        b=(15, 10),
    ),
    "cat_flattened": Entry(
        lambda: Net(
            lambda n, x: n.head(torch.cat([n.a(x).relu().flatten(1), pooled(x)], 1)),
            a=nn.Conv2d(3, 12, 3),
            head=nn.Linear(12 * 4 + 3, 3),
        ),
        floats(3, 4, 4),
        {"a": 12},
    ),
    # Joined along places, both have the same channels.
    "cat_places": joined(
        cat_rows, {"a": 12, "b": 12, "c": 10}, 10, a=(3, 12), b=(3, 12), c=(12, 10)
    ),
    "cat_tokens": Entry(
        lambda: Net(
            cat_tokens,
            a=nn.Linear(6, 12),
            b=nn.Linear(6, 12),
            c=nn.Linear(12, 10),
            head=nn.Linear(10, 3),
        ),
        floats(5, 6),
        {"a": 12, "b": 12, "c": 10},
    ),
    "dense_block": joined(
        dense,
        {"a": 12, "b": 5, "c": 7, "d": 10},
        10,
        a=(3, 12),
        b=(12, 5),
        c=(17, 7),
        d=(24, 10, 1),
    ),
    # Channels taken by number: those of each part can go, with the bounds of the slice.
    "slice_in_place": joined(in_place_slice, {"b": 10}, 10, a=(3, 12), b=(12, 10)),
    "slice_into_zeros": joined(into_zeros, {"c": 10}, 10, a=(3, 12), b=(3, 6), c=(18, 10)),
    "slice_places_in_place": joined(places_in_place, {"a": 12, "b": 10}, 10, a=(3, 12), b=(12, 10)),
    "slice_channels": joined(sliced, {"b": 6, "c": 10}, 10, a=(3, 12), b=(7, 6), c=(11, 10)),
    # Halves of equal width: one unit of each goes.
    "chunk_cross_stage": joined(
        cross_stage, {"a": 6, "b": 6, "c": 10}, 10, a=(3, 12), b=(6, 6), c=(12, 10)
    ),
    "split_shift": joined(shift, {"b": 10}, 10, a=(3, 12), b=(12, 10)),
    "residuals": joined(
        residuals,
        {"a": 12, "b": 7, "c": 12, "d": 9, "e": 12},
        12,
        a=(3, 12),
        b=(12, 7),
        c=(7, 12),
        d=(12, 9),
        e=(9, 12),
    ),
    "residual_with_projection": joined(
        projected,
        {"a": 12, "b": 7, "c": 10, "skip": 10},
        10,
        a=(3, 12),
        b=(12, 7),
        c=(7, 10),
        skip=(12, 10, 1),
    ),
    "product_of_layers": joined(
        product, {"a": 12, "b": 12, "c": 10}, 10, a=(3, 12), b=(3, 12), c=(12, 10)
    ),
    "largest_of_a_stack": joined(
        stacked, {"a": 12, "b": 12, "c": 10}, 10, a=(3, 12), b=(3, 12), c=(12, 10)
    ),
    "outer_product": Entry(
        lambda: Net(outer_product, a=conv(3, 6), b=conv(3, 4), head=nn.Linear(24, 3)),
        floats(3, 6, 6),
        {"a": 6, "b": 4},
    ),
    "cat_with_itself": joined(repeated, {"a": 12, "b": 10}, 10, a=(3, 12), b=(24, 10)),
    "flip_and_roll_places": joined(flipped, {"a": 12, "b": 10}, 10, a=(3, 12), b=(12, 10)),
    # A channel and the one that mirrors it go together.
    "flip_channels": joined(turned, {"a": 6, "b": 10}, 10, a=(3, 12), b=(12, 10)),
    "parts_read_alike": Entry(
        lambda: Net(as_pairs, a=conv(3, 12), b=nn.Linear(3, 10), head=nn.Linear(10, 3)),
        floats(3, 6, 6),
        {"b": 10},
    ),
    "interpolate_and_add": joined(
        lambda n, x: n.c(n.a(x) + F.interpolate(n.b(F.avg_pool2d(x, 2)), scale_factor=2)).relu(),
        {"a": 12, "b": 12, "c": 10},
        10,
        a=(3, 12),
        b=(3, 12),
        c=(12, 10),
    ),
}
