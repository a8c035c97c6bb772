"""Norms: those that work channel by channel, and those over the width that is cut."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from shapes.entry import Entry, Net, any_of, floats, own, pooled

NEIGHBOURS = "the norm of a channel is over its neighbours"


LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)  # by dimensions


def normed(norm: Callable[[], nn.Module], *shape: int, **words: Any) -> Entry:
    """A layer, a norm over what it makes, a second layer and a head."""
    dimensions = len(shape) - 1
    layer: Any = LAYERS[dimensions]

    def make() -> Net:
        return Net(
            lambda n, x: n.head(n.pool(n.b(n.norm(n.a(x)).relu()).relu())),
            a=layer(shape[0], 12, *[3] * (dimensions > 0)),
            norm=settled(norm()),
            b=layer(12, 10, *[1] * (dimensions > 0)),
            pool=nn.Identity() if dimensions == 0 else Pool(),
            head=nn.Linear(10, 3),
        )

    return Entry(make, floats(*shape), {"a": words.pop("units", 12), "b": 10}, **words)


class Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return pooled(x)


def settled(norm: nn.Module) -> nn.Module:
    """The norm as after a training: no scale is one and no mean zero."""
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(torch.rand(tensor.shape) + 0.5)
    return norm


def tokenwise(
    norm: Callable[[], nn.Module] | None, how: Callable[[Net, Tensor], Tensor], **parts: Any
) -> Entry:
    """A norm over the last axis of tokens, whose width is cut, and a layer that reads it."""

    def make() -> Net:
        others = {name: part() for name, part in parts.items()}
        if norm is not None:
            others["norm"] = settled(norm())
        return Net(
            lambda n, x: n.head(n.b(how(n, n.a(x))).relu().mean(1)),
            **{"a": nn.Linear(6, 12), "b": nn.Linear(12, 10), **others},
            head=nn.Linear(10, 3),
        )

    return Entry(make, floats(5, 6), {"a": 12, "b": 10}, norm_width=True)


def conv_with(change: Callable[[nn.Module], Any]) -> Entry:
    """A convolution whose weight is computed from others: it may be folded or stay."""

    def make() -> Net:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            changed = change(nn.Conv2d(3, 12, 3))
        return Net(
            lambda n, x: n.head(pooled(n.c(n.b(n.a(x).relu()).relu()).relu())),
            a=changed,
            b=nn.Conv2d(12, 10, 1),
            c=nn.Conv2d(10, 8, 1),
            head=nn.Linear(8, 3),
        )

    return Entry(make, floats(3, 6, 6), {"b": 10, "c": 8})


def own_batch_norm(net: Net, x: Tensor) -> Tensor:
    x = F.batch_norm(net.a(x), net.mean, net.variance, net.scale, net.shift)
    return net.head(pooled(net.b(x.relu()).relu()))


def lazy() -> nn.Module:
    """Layers that learn their inputs from the first sample."""
    net = nn.Sequential(
        *(nn.LazyConv2d(12, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten()),
        *(nn.LazyLinear(10), nn.ReLU()),
    )
    net.add_module("head", nn.LazyLinear(3))
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, 5, 5))
    return net


NORMS = {
    "batch_norm1d": normed(
        lambda: nn.BatchNorm1d(12),
        6,
    ),
    "batch_norm1d_signal": normed(lambda: nn.BatchNorm1d(12), 4, 9),
    "batch_norm2d": normed(lambda: nn.BatchNorm2d(12), 3, 6, 6),
    "batch_norm3d": normed(lambda: nn.BatchNorm3d(12), 1, 4, 5, 5),
    "batch_norm_not_affine": normed(lambda: nn.BatchNorm2d(12, affine=False), 3, 6, 6),
    "batch_norm_without_statistics": normed(
        lambda: nn.BatchNorm2d(12, track_running_stats=False), 3, 6, 6
    ),
    "sync_batch_norm": normed(lambda: nn.SyncBatchNorm(12), 3, 6, 6),
    "batch_norm_function": Entry(
        lambda: Net(
            own_batch_norm,
            a=nn.Conv2d(3, 12, 3),
            b=nn.Conv2d(12, 10, 1),
            head=nn.Linear(10, 3),
            mean=torch.randn(12),
            variance=torch.rand(12) + 0.5,
            scale=own(12),
            shift=own(12),
        ),
        floats(3, 6, 6),
        {"a": 12, "b": 10},
    ),
    "lazy": Entry(lazy, floats(3, 5, 5), {"0": 12, "4": 10}),
    "instance_norm": normed(lambda: nn.InstanceNorm2d(12), 3, 6, 6),
    "instance_norm_affine": normed(lambda: nn.InstanceNorm2d(12, affine=True), 3, 6, 6),
    "instance_norm_statistics": normed(
        lambda: nn.InstanceNorm1d(12, affine=True, track_running_stats=True), 4, 9
    ),
    "instance_norm3d": normed(lambda: nn.InstanceNorm3d(12, affine=True), 1, 4, 5, 5),
    # Whole groups can go exactly; of the channels of a group, as many in each.
    "group_norm": normed(lambda: nn.GroupNorm(4, 12), 3, 6, 6, units=any_of(4, 3), norm_width=True),
    "group_norm_by_channel": normed(lambda: nn.GroupNorm(12, 12), 3, 6, 6),
    "group_norm_of_one": normed(lambda: nn.GroupNorm(1, 12), 3, 6, 6, norm_width=True),
    "layer_norm": tokenwise(lambda: nn.LayerNorm(12), lambda n, x: n.norm(x)),
    "layer_norm_not_affine": tokenwise(
        lambda: nn.LayerNorm(12, elementwise_affine=False), lambda n, x: n.norm(x)
    ),
    "layer_norm_function": tokenwise(
        None,
        lambda n, x: F.layer_norm(x, x.shape[-1:], n.scale, n.shift),
        scale=lambda: own(12),
        shift=lambda: own(12),
    ),
    "rms_norm": tokenwise(lambda: nn.RMSNorm(12), lambda n, x: n.norm(x)),
    "layer_norm_of_maps": Entry(
        lambda: Net(
            lambda n, x: n.head(
                pooled(n.b(n.norm(n.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)).relu())
            ),
            a=nn.Conv2d(3, 12, 3),
            norm=settled(nn.LayerNorm(12)),
            b=nn.Conv2d(12, 10, 1),
            head=nn.Linear(10, 3),
        ),
        floats(3, 6, 6),
        {"a": 12, "b": 10},
        norm_width=True,
    ),
    "layer_norm_of_everything": normed(lambda: nn.LayerNorm([12, 4, 4]), 3, 6, 6, norm_width=True),
    "local_response_norm": Entry(
        lambda: Net(
            lambda n, x: n.head(
                pooled(n.b(F.local_response_norm(n.a(x).relu(), 3, alpha=1.0)).relu())
            ),
            a=nn.Conv2d(3, 12, 3),
            b=nn.Conv2d(12, 10, 1),
            head=nn.Linear(10, 3),
        ),
        floats(3, 6, 6),
        {"b": 10},
        {"a": NEIGHBOURS},
    ),
    "weight_norm": conv_with(parametrizations.weight_norm),
    "weight_norm_old": conv_with(torch.nn.utils.weight_norm),
    "spectral_norm": conv_with(parametrizations.spectral_norm),
    "spectral_norm_old": conv_with(torch.nn.utils.spectral_norm),
}
