"""Blocks of well-known image networks, in small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shapes.entry import Entry, Net, any_of, floats, own, pooled

IMAGES = floats(3, 8, 8)


def conv(inputs: int, outputs: int, kernel: int = 3, **words: Any) -> nn.Sequential:
    """A convolution, a batch norm and a ReLU."""
    words = {"padding": kernel // 2, "bias": False} | words
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, **words), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def network(
    run: Callable[[Net, Tensor], Tensor],
    groups: dict[str, Any],
    given: int = 10,
    norm_width: bool = False,
    **parts: Callable[[], Any],
) -> Entry:
    """Parts run in some way, pooled, and a head that reads `given` channels."""
    return Entry(
        lambda: Net(
            lambda n, x: n.head(pooled(run(n, x))),
            **{name: part() for name, part in parts.items()},
            head=nn.Linear(given, 3),
        ),
        IMAGES,
        groups,
        norm_width=norm_width,
    )


def vgg() -> nn.Sequential:
    net = nn.Sequential(
        *(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(12, 10, 3, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(40, 9), nn.ReLU(), nn.Dropout()),
    )
    net.add_module("head", nn.Linear(9, 3))
    return net


def bottleneck(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    return (net.skip(x) + net.c(net.b(net.a(x)))).relu()


def inverted(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    x = x + net.down(net.deep(net.up(x)))
    return net.last(x)


def squeezed(net: Net, x: Tensor) -> Tensor:
    x = net.deep(net.up(net.stem(x)))
    scale = net.expand(F.silu(net.reduce(x.mean((2, 3), keepdim=True)))).sigmoid()
    return net.down(x * scale)


def convnext(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    y = net.norm(net.deep(x).permute(0, 2, 3, 1))
    y = net.scale * net.down(F.gelu(net.up(y)))
    return x + y.permute(0, 3, 1, 2)


def shuffle(net: Net, x: Tensor) -> Tensor:
    left, right = net.stem(x).chunk(2, 1)
    x = torch.cat([left, net.c(net.b(net.a(right)))], 1)
    return net.last(x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2))


def fire(net: Net, x: Tensor) -> Tensor:
    x = net.squeeze(x)
    return net.last(torch.cat([net.one(x), net.three(x)], 1))


def inception(net: Net, x: Tensor) -> Tensor:
    pool = net.pool(F.max_pool2d(x, 3, 1, 1))
    return net.last(torch.cat([net.one(x), net.three(net.reduce(x)), pool], 1))


def ghost(net: Net, x: Tensor) -> Tensor:
    x = net.a(x)
    return net.last(torch.cat([x, net.cheap(x)], 1))


def branches(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    return net.last((net.three(x) + net.one(x) + net.same(x)).relu())


def res2net(net: Net, x: Tensor) -> Tensor:
    one, two, three = net.stem(x).chunk(3, 1)
    two = net.a(two)
    return net.last(torch.cat([one, two, net.b(three + two)], 1))


def unet(net: Net, x: Tensor) -> Tensor:
    high = net.a(x)
    low = net.b(F.max_pool2d(high, 2))
    return net.c(torch.cat([net.up(low), high], 1))


def unet_bilinear(net: Net, x: Tensor) -> Tensor:
    high = net.a(x)
    low = F.interpolate(net.b(F.max_pool2d(high, 2)), scale_factor=2, mode="bilinear")
    return net.c(torch.cat([low, high], 1))


def pyramid(net: Net, x: Tensor) -> Tensor:
    high = net.a(x)
    low = net.b(F.max_pool2d(high, 2))
    top = net.side_low(low)
    merged = net.side_high(high) + F.interpolate(top, size=high.shape[2:])
    return net.smooth(merged).relu()


def weighted_pyramid(net: Net, x: Tensor) -> Tensor:
    high, low = net.a(x), net.b(F.max_pool2d(x, 2))
    weights = net.weights.relu() / (net.weights.relu().sum() + 1e-4)
    return net.c(weights[0] * high + weights[1] * F.interpolate(low, scale_factor=2))


def atrous(net: Net, x: Tensor) -> Tensor:
    x = net.stem(x)
    whole = F.interpolate(net.whole(x.mean((2, 3), keepdim=True)).relu(), size=x.shape[2:])
    return net.last(torch.cat([net.near(x), net.far(x), whole], 1))


def high_resolution(net: Net, x: Tensor) -> Tensor:
    high, low = net.a(x), net.b(F.avg_pool2d(x, 2))
    high, low = (
        (high + F.interpolate(net.up(low), scale_factor=2)).relu(),
        (low + net.down(high)).relu(),
    )
    return net.c(torch.cat([high, F.interpolate(low, scale_factor=2)], 1))


def conditioned(net: Net, x: Tensor) -> Tensor:
    scale, shift = net.film(net.context(pooled(x)).relu()).chunk(2, 1)
    return net.b(net.a(x) * scale[..., None, None] + shift[..., None, None])


def normed_by_other(net: Net, x: Tensor) -> Tensor:
    content, other = net.a(x), net.b(x)
    mean, spread = content.mean((2, 3), keepdim=True), content.std((2, 3), keepdim=True) + 1e-3
    return net.c((content - mean) / spread * other.std((2, 3), keepdim=True))


def with_coordinates(net: Net, x: Tensor) -> Tensor:
    rows = torch.linspace(-1, 1, x.shape[2]).to(x).view(1, 1, -1, 1).expand(len(x), 1, -1, 8)
    return net.b(torch.cat([net.a(x), rows], 1))


def generator(net: Net, x: Tensor) -> Tensor:
    x = net.start(pooled(x)).view(len(x), -1, 4, 4).relu()
    return net.paint(x)


def spatial_pyramid(net: Net, x: Tensor) -> Tensor:
    x = net.a(x)
    pools = [x, *(F.max_pool2d(x, size, 1, size // 2) for size in (3, 5))]
    return net.b(torch.cat(pools, 1))


def space_to_depth(net: Net, x: Tensor) -> Tensor:
    x = net.a(x)
    corners = [x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return net.b(torch.cat(corners, 1))


def super_resolution() -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU())
    net.add_module("head", nn.Conv2d(12, 3 * 4, 3, padding=1))
    net.add_module("shuffle", nn.PixelShuffle(2))
    return net


NETWORKS = {
    "vgg": Entry(vgg, IMAGES, {"0": 12, "3": 10, "7": 9}),
    "resnet_bottleneck": network(
        bottleneck,
        {"stem": 12, "a": 6, "b": 7, "c": 10, "skip": 10},
        stem=lambda: conv(3, 12),
        a=lambda: conv(12, 6, 1),
        b=lambda: conv(6, 7),
        c=lambda: conv(7, 10, 1)[:2],
        skip=lambda: conv(12, 10, 1)[:2],
    ),
    "resnext": network(
        bottleneck,
        {"stem": 12, "a": 4, "b": 4, "c": 10},
        stem=lambda: conv(3, 12),
        a=lambda: conv(12, 8, 1),
        b=lambda: conv(8, 8, groups=4),
        c=lambda: conv(8, 10, 1)[:2],
        skip=lambda: conv(12, 10, 1)[:2],
    ),
    "mobilenet": network(
        inverted,
        {"stem": 6, "up": 12, "down": 6, "last": 10},
        stem=lambda: conv(3, 6),
        up=lambda: conv(6, 12, 1),
        deep=lambda: conv(12, 12, groups=12),
        down=lambda: conv(12, 6, 1)[:2],
        last=lambda: conv(6, 10, 1),
    ),
    "efficientnet": network(
        squeezed,
        {"stem": 6, "up": 12, "reduce": 3, "down": 10},
        stem=lambda: conv(3, 6),
        up=lambda: conv(6, 12, 1),
        deep=lambda: conv(12, 12, groups=12),
        reduce=lambda: nn.Conv2d(12, 3, 1),
        expand=lambda: nn.Conv2d(3, 12, 1),
        down=lambda: conv(12, 10, 1)[:2],
    ),
    # The width of the block is a norm's.
    "convnext": network(
        convnext,
        {"stem": 6, "up": 12},
        6,
        norm_width=True,
        stem=lambda: nn.Conv2d(3, 6, 2, stride=2),
        deep=lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6),
        norm=lambda: nn.LayerNorm(6),
        up=lambda: nn.Linear(6, 12),
        down=lambda: nn.Linear(12, 6),
        scale=lambda: own(6),
    ),
    "shufflenet": network(
        shuffle,
        {"a": 5, "last": 10},
        stem=lambda: conv(3, 12),
        a=lambda: conv(6, 5, 1),
        b=lambda: conv(5, 5, groups=5)[:2],
        c=lambda: conv(5, 6, 1),
        last=lambda: conv(12, 10, 1),
    ),
    "squeezenet": network(
        fire,
        {"squeeze": 4, "one": 7, "three": 6, "last": 10},
        squeeze=lambda: conv(3, 4, 1),
        one=lambda: conv(4, 7, 1),
        three=lambda: conv(4, 6),
        last=lambda: conv(13, 10, 1),
    ),
    "inception": network(
        inception,
        {"one": 5, "reduce": 4, "three": 7, "pool": 6, "last": 10},
        one=lambda: conv(3, 5, 1),
        reduce=lambda: conv(3, 4, 1),
        three=lambda: conv(4, 7),
        pool=lambda: conv(3, 6, 1),
        last=lambda: conv(18, 10, 1),
    ),
    "ghostnet": network(
        ghost,
        {"a": 8, "last": 10},
        a=lambda: conv(3, 8),
        cheap=lambda: conv(8, 8, groups=8),
        last=lambda: conv(16, 10, 1),
    ),
    "repvgg": network(
        branches,
        {"stem": 12, "three": 12, "one": 12, "last": 10},
        stem=lambda: conv(3, 12),
        three=lambda: conv(12, 12)[:2],
        one=lambda: conv(12, 12, 1)[:2],
        same=lambda: nn.BatchNorm2d(12),
        last=lambda: conv(12, 10, 1),
    ),
    # Chunks of one layer: of each part one unit goes, so that they stay of one width.
    "res2net": network(
        res2net,
        {"stem": 4, "last": 10},
        stem=lambda: conv(3, 12),
        a=lambda: conv(4, 4),
        b=lambda: conv(4, 4),
        last=lambda: conv(12, 10, 1),
    ),
    "unet": network(
        unet,
        {"a": 6, "b": 12, "up": 7, "c": 10},
        a=lambda: conv(3, 6),
        b=lambda: conv(6, 12),
        up=lambda: nn.ConvTranspose2d(12, 7, 2, stride=2),
        c=lambda: conv(13, 10),
    ),
    "unet_bilinear": network(
        unet_bilinear,
        {"a": 6, "b": 12, "c": 10},
        a=lambda: conv(3, 6),
        b=lambda: conv(6, 12),
        c=lambda: conv(18, 10),
    ),
    "feature_pyramid": network(
        pyramid,
        {"a": 6, "b": 12, "side_low": 8, "side_high": 8, "smooth": 10},
        a=lambda: conv(3, 6),
        b=lambda: conv(6, 12),
        side_low=lambda: nn.Conv2d(12, 8, 1),
        side_high=lambda: nn.Conv2d(6, 8, 1),
        smooth=lambda: nn.Conv2d(8, 10, 3, padding=1),
    ),
    "weighted_pyramid": network(
        weighted_pyramid,
        {"a": 12, "b": 12, "c": 10},
        a=lambda: conv(3, 12),
        b=lambda: conv(3, 12),
        c=lambda: conv(12, 10),
        weights=lambda: own(2),
    ),
    "atrous_pyramid": network(
        atrous,
        {"stem": 12, "near": 5, "far": 6, "whole": 7, "last": 10},
        stem=lambda: conv(3, 12),
        near=lambda: conv(12, 5, 1),
        far=lambda: conv(12, 6, padding=2, dilation=2),
        whole=lambda: nn.Conv2d(12, 7, 1),
        last=lambda: conv(18, 10, 1),
    ),
    "high_resolution": network(
        high_resolution,
        {"a": 6, "b": 12, "c": 10},
        a=lambda: conv(3, 6),
        b=lambda: conv(3, 12),
        up=lambda: nn.Conv2d(12, 6, 1),
        down=lambda: nn.Conv2d(6, 12, 3, stride=2, padding=1),
        c=lambda: conv(18, 10),
    ),
    "conditioned": network(
        conditioned,
        {"context": 7, "a": 12, "b": 10},
        context=lambda: nn.Linear(3, 7),
        film=lambda: nn.Linear(7, 24),
        a=lambda: conv(3, 12)[:2],
        b=lambda: conv(12, 10),
    ),
    "adaptive_instance_norm": network(
        normed_by_other,
        {"a": 12, "b": 12, "c": 10},
        a=lambda: nn.Conv2d(3, 12, 3),
        b=lambda: nn.Conv2d(3, 12, 3),
        c=lambda: nn.Conv2d(12, 10, 1),
    ),
    "coordinates": network(
        with_coordinates, {"a": 12, "b": 10}, a=lambda: conv(3, 12), b=lambda: conv(13, 10)
    ),
    "generator": network(
        generator,
        {"start": 12, "paint": 10},
        start=lambda: nn.Linear(3, 12 * 16),
        paint=lambda: nn.Sequential(nn.ConvTranspose2d(12, 10, 4, 2, 1), nn.ReLU()),
    ),
    "spatial_pyramid": network(
        spatial_pyramid, {"a": 12, "b": 10}, a=lambda: conv(3, 12), b=lambda: conv(36, 10, 1)
    ),
    "space_to_depth": network(
        space_to_depth, {"a": 6, "b": 10}, a=lambda: conv(3, 6), b=lambda: conv(24, 10, 1)
    ),
    "super_resolution": Entry(super_resolution, IMAGES, {"0": 12}),
    "normed_pyramid": network(
        lambda n, x: n.b(n.norm(n.a(x)).relu()),
        {"a": any_of(2, 6), "b": 10},
        norm_width=True,
        a=lambda: nn.Conv2d(3, 12, 3),
        norm=lambda: nn.GroupNorm(2, 12),
        b=lambda: conv(12, 10),
    ),
}
