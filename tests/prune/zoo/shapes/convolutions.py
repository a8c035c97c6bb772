"""Convolutions of every kind, and what moves or resizes maps between them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from shapes.entry import Entry, Net, floats, pooled


def two(first: nn.Module, then: nn.Module, between: Any = F.relu) -> Net:
    """Two layers with something between them, and a head on the mean over places."""
    return Net(
        lambda n, x: n.head(pooled(n.b(between(n.a(x))).relu())),
        a=first,
        b=then,
        head=nn.Linear(10, 3),
    )


def padded(mode: Any, padding: Any = 1) -> Entry:
    return Entry(
        lambda: two(
            nn.Conv2d(3, 12, 3, padding=padding, padding_mode=mode),
            nn.Conv2d(12, 10, 3, padding=padding, padding_mode=mode),
        ),
        floats(3, 8, 8),
        {"a": 12, "b": 10},
    )


def between(how: Any, reads: int = 12, units: int = 12, size: int = 8) -> Entry:
    return Entry(
        lambda: two(nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(reads, 10, 1), how),
        floats(3, size, size),
        {"a": units, "b": 10},
    )


def shuffled(x: Tensor) -> Tensor:
    return x.unflatten(1, (3, -1)).transpose(1, 2).flatten(1, 2)


def unfolded(net: Net, x: Tensor) -> Tensor:
    return net.head(net.b(F.unfold(net.a(x).relu(), 3).mT).relu().mean(1))


CONVOLUTIONS = {
    "conv1d": Entry(
        lambda: two(nn.Conv1d(4, 12, 3), nn.Conv1d(12, 10, 3)), floats(4, 16), {"a": 12, "b": 10}
    ),
    "conv2d": Entry(
        lambda: two(nn.Conv2d(3, 12, 3), nn.Conv2d(12, 10, 3, stride=2)),
        floats(3, 9, 7),
        {"a": 12, "b": 10},
    ),
    "conv3d": Entry(
        lambda: two(nn.Conv3d(1, 12, 3), nn.Conv3d(12, 10, (1, 3, 3))),
        floats(1, 4, 6, 6),
        {"a": 12, "b": 10},
    ),
    "conv_transpose1d": Entry(
        lambda: two(nn.ConvTranspose1d(4, 12, 3), nn.ConvTranspose1d(12, 10, 2, stride=2)),
        floats(4, 8),
        {"a": 12, "b": 10},
    ),
    "conv_transpose2d": Entry(
        lambda: two(
            nn.ConvTranspose2d(3, 12, 3, stride=2, padding=1, output_padding=1),
            nn.ConvTranspose2d(12, 10, 2, stride=2),
        ),
        floats(3, 5, 5),
        {"a": 12, "b": 10},
    ),
    "conv_transpose3d": Entry(
        lambda: two(nn.ConvTranspose3d(1, 12, 2), nn.ConvTranspose3d(12, 10, 2)),
        floats(1, 3, 4, 4),
        {"a": 12, "b": 10},
    ),
    "conv_without_bias": Entry(
        lambda: two(nn.Conv2d(3, 12, 3, bias=False), nn.Conv2d(12, 10, 3, bias=False)),
        floats(3, 8, 8),
        {"a": 12, "b": 10},
    ),
    # A unit of a grouped convolution is one of its groups, with what it reads and makes.
    "conv_grouped": Entry(
        lambda: two(nn.Conv2d(3, 12, 3), nn.Conv2d(12, 10, 3, groups=2)),
        floats(3, 8, 8),
        {"a": 2, "b": 2},
    ),
    "conv_transpose_grouped": Entry(
        lambda: Net(
            lambda n, x: n.head(pooled(n.b(n.a(x).relu()).relu())),
            a=nn.Conv2d(3, 12, 1),
            b=nn.ConvTranspose2d(12, 8, 2, groups=4),
            head=nn.Linear(8, 3),
        ),
        floats(3, 5, 5),
        {"a": 4, "b": 4},
    ),
    "conv_depthwise": Entry(
        lambda: Net(
            lambda n, x: n.head(pooled(n.deep(n.a(x).relu()).relu())),
            a=nn.Conv2d(3, 12, 1),
            deep=nn.Conv2d(12, 12, 3, groups=12),
            head=nn.Linear(12, 3),
        ),
        floats(3, 6, 6),
        {"a": 12},
    ),
    "conv_depth_multiplier": Entry(
        lambda: Net(
            lambda n, x: n.head(pooled(n.deep(n.a(x).relu()).relu())),
            a=nn.Conv1d(3, 8, 1),
            deep=nn.Conv1d(8, 16, 3, groups=8),
            head=nn.Linear(16, 3),
        ),
        floats(3, 9),
        {"a": 8},
    ),
    "conv_dilated": Entry(
        lambda: two(
            nn.Conv2d(3, 12, 3, dilation=2, padding=2), nn.Conv2d(12, 10, 3, dilation=(1, 2))
        ),
        floats(3, 9, 9),
        {"a": 12, "b": 10},
    ),
    "padding_reflect": padded("reflect"),
    "padding_replicate": padded("replicate"),
    "padding_circular": padded("circular", (1, 2)),
    "padding_same": padded("zeros", "same"),
    "pad_function": between(lambda x: F.pad(x.relu(), (1, 0, 2, 1))),
    "pad_function_reflect": between(lambda x: F.pad(x.relu(), (1, 1, 2, 2), mode="reflect")),
    "pad_channels": Entry(
        lambda: two(
            nn.Conv2d(3, 12, 3),
            nn.Conv2d(16, 10, 1),
            lambda x: F.pad(x.relu(), (0, 0, 0, 0, 2, 2)),
        ),
        floats(3, 8, 8),
        {"a": 12, "b": 10},
    ),
    "unfold": Entry(
        lambda: Net(unfolded, a=nn.Conv2d(3, 6, 3), b=nn.Linear(54, 10), head=nn.Linear(10, 3)),
        floats(3, 8, 8),
        {"a": 6, "b": 10},
    ),
    # Four channels make one after pixel shuffle, and one makes four before.
    "pixel_shuffle": between(lambda x: F.pixel_shuffle(x.relu(), 2), reads=3, units=3),
    "pixel_unshuffle": between(lambda x: F.pixel_unshuffle(x.relu(), 2), reads=48),
    # Channels are shuffled by three groups: one of each has to go, so that four units are left.
    "channel_shuffle": between(lambda x: shuffled(x.relu()), units=4),
    "upsample_bilinear": between(
        lambda x: F.interpolate(x.relu(), scale_factor=2, mode="bilinear", align_corners=False)
    ),
    "upsample_nearest": between(lambda x: F.interpolate(x.relu(), size=(5, 7))),
    "max_pool": between(lambda x: F.max_pool2d(x.relu(), 2)),
    "adaptive_pool": between(lambda x: F.adaptive_avg_pool2d(x.relu(), (2, 3))),
    "pool_1d": Entry(
        lambda: two(nn.Conv1d(4, 12, 3), nn.Conv1d(12, 10, 3), lambda x: F.avg_pool1d(x.relu(), 2)),
        floats(4, 16),
        {"a": 12, "b": 10},
    ),
    "pool_3d": Entry(
        lambda: two(nn.Conv3d(1, 12, 2), nn.Conv3d(12, 10, 2), lambda x: F.max_pool3d(x.relu(), 2)),
        floats(1, 5, 6, 6),
        {"a": 12, "b": 10},
    ),
    "flatten": Entry(
        lambda: Net(
            lambda n, x: n.head(n.b(n.a(x).relu().flatten(1)).relu()),
            a=nn.Conv2d(3, 12, 3),
            b=nn.Linear(12 * 4, 10),
            head=nn.Linear(10, 3),
        ),
        floats(3, 4, 4),
        {"a": 12, "b": 10},
    ),
    "grid_sample": Entry(
        lambda: Net(
            lambda n, x: n.head(
                pooled(
                    F.grid_sample(
                        n.a(x).relu(),
                        F.affine_grid(n.where(pooled(x)).view(-1, 2, 3), [len(x), 1, 5, 5], False),
                        align_corners=False,
                    )
                )
            ),
            a=nn.Conv2d(3, 12, 3),
            where=nn.Linear(3, 6),
            head=nn.Linear(12, 3),
        ),
        floats(3, 8, 8),
        {"a": 12},
    ),
}
