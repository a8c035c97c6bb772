"""Blocks that weigh the channels or the places of maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shapes.entry import Entry, Net, floats, pooled

NEIGHBOURS = "each channel is weighed by its neighbours"
MEAN = "a mean over all channels depends on how many there are"


def block(attend: Callable[[Net, Tensor], Tensor], **parts: Callable[[], Any]) -> Callable[[], Net]:
    """A convolution, a block that weighs its 12 channels, and a second convolution."""
    return lambda: Net(
        lambda n, x: n.head(pooled(n.b(attend(n, n.a(x).relu())).relu())),
        **{"a": nn.Conv2d(3, 12, 3), **{name: part() for name, part in parts.items()}},
        b=nn.Conv2d(12, 10, 1),
        head=nn.Linear(10, 3),
    )


def squeeze_excite(net: Net, x: Tensor) -> Tensor:
    return x * net.up(net.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


def linear_squeeze_excite(net: Net, x: Tensor) -> Tensor:
    return x * net.up(net.down(pooled(x)).relu()).sigmoid().view(len(x), -1, 1, 1)


def cbam(net: Net, x: Tensor) -> Tensor:
    both = [net.up(net.down(how(x)).relu()) for how in (pooled, lambda x: x.amax((2, 3)))]
    x = x * (both[0] + both[1]).sigmoid()[..., None, None]
    places = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
    return x * net.spatial(places).sigmoid()


def eca(net: Net, x: Tensor) -> Tensor:
    weights = net.along(pooled(x).unsqueeze(1)).sigmoid()
    return x * weights.transpose(1, 2).unsqueeze(-1)


def coordinate(net: Net, x: Tensor) -> Tensor:
    high, wide = x.shape[2:]
    both = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], 2)
    rows, columns = F.hardswish(net.norm(net.down(both))).split([high, wide], 2)
    return x * net.rows(rows).sigmoid() * net.columns(columns.transpose(2, 3)).sigmoid()


def non_local(net: Net, x: Tensor) -> Tensor:
    query, key, value = (layer(x).flatten(2) for layer in (net.query, net.key, net.value))
    mixed = value @ (query.mT @ key).softmax(-1).mT
    return x + net.back(mixed.unflatten(2, x.shape[2:]))


def selective(net: Net, x: Tensor) -> Tensor:
    paths = torch.stack([net.small(x).relu(), net.large(x).relu()], 1)
    squeezed = net.down(paths.sum(1).mean((2, 3))).relu()
    weights = torch.stack([net.up_small(squeezed), net.up_large(squeezed)], 1).softmax(1)
    return (paths * weights[..., None, None]).sum(1)


def gated(net: Net, x: Tensor) -> Tensor:
    return x * net.gate(net.guide(x).relu()).sigmoid()


def global_context(net: Net, x: Tensor) -> Tensor:
    weights = net.mask(x).flatten(2).softmax(-1)
    context = x.flatten(2) @ weights.mT  # (samples, channels, 1)
    return x + net.up(net.down(context.unsqueeze(-1)).relu())


def attention_pool(net: Net, x: Tensor) -> Tensor:
    weights = net.score(x).softmax(1)
    return net.head((weights * net.value(x).relu()).sum(1))


def own_attention(net: Net, x: Tensor) -> Tensor:
    return x * net.along(x.mean((2, 3))).softmax(1)[..., None, None]


ATTENTION_BLOCKS = {
    "squeeze_excite": Entry(
        block(squeeze_excite, down=lambda: nn.Conv2d(12, 4, 1), up=lambda: nn.Conv2d(4, 12, 1)),
        floats(3, 6, 6),
        {"a": 12, "down": 4, "b": 10},
    ),
    "squeeze_excite_linear": Entry(
        block(linear_squeeze_excite, down=lambda: nn.Linear(12, 4), up=lambda: nn.Linear(4, 12)),
        floats(3, 6, 6),
        {"a": 12, "down": 4, "b": 10},
    ),
    "cbam": Entry(
        block(
            cbam,
            down=lambda: nn.Linear(12, 4),
            up=lambda: nn.Linear(4, 12),
            spatial=lambda: nn.Conv2d(2, 1, 3, padding=1),
        ),
        floats(3, 6, 6),
        {"down": 4, "b": 10},
        {"a": MEAN},
    ),
    "eca": Entry(
        block(eca, along=lambda: nn.Conv1d(1, 1, 3, padding=1)),
        floats(3, 6, 6),
        {"b": 10},
        {"a": NEIGHBOURS},
    ),
    "coordinate_attention": Entry(
        block(
            coordinate,
            down=lambda: nn.Conv2d(12, 4, 1),
            norm=lambda: nn.BatchNorm2d(4),
            rows=lambda: nn.Conv2d(4, 12, 1),
            columns=lambda: nn.Conv2d(4, 12, 1),
        ),
        floats(3, 6, 6),
        {"a": 12, "down": 4, "b": 10},
    ),
    "non_local": Entry(
        block(
            non_local,
            query=lambda: nn.Conv2d(12, 4, 1),
            key=lambda: nn.Conv2d(12, 4, 1),
            value=lambda: nn.Conv2d(12, 6, 1),
            back=lambda: nn.Conv2d(6, 12, 1),
        ),
        floats(3, 6, 6),
        {"a": 12, "query": 4, "value": 6, "b": 10},
    ),
    "selective_kernel": Entry(
        block(
            selective,
            small=lambda: nn.Conv2d(12, 12, 3, padding=1),
            large=lambda: nn.Conv2d(12, 12, 5, padding=2),
            down=lambda: nn.Linear(12, 4),
            up_small=lambda: nn.Linear(4, 12),
            up_large=lambda: nn.Linear(4, 12),
        ),
        floats(3, 6, 6),
        {"a": 12, "small": 12, "down": 4, "b": 10},
    ),
    "attention_gate": Entry(
        block(gated, guide=lambda: nn.Conv2d(12, 6, 1), gate=lambda: nn.Conv2d(6, 1, 1)),
        floats(3, 6, 6),
        {"a": 12, "guide": 6, "b": 10},
    ),
    "global_context": Entry(
        block(
            global_context,
            mask=lambda: nn.Conv2d(12, 1, 1),
            down=lambda: nn.Conv2d(12, 4, 1),
            up=lambda: nn.Conv2d(4, 12, 1),
        ),
        floats(3, 6, 6),
        {"a": 12, "down": 4, "b": 10},
    ),
    "attention_pooling": Entry(
        lambda: Net(
            attention_pool, score=nn.Linear(6, 1), value=nn.Linear(6, 10), head=nn.Linear(10, 3)
        ),
        floats(5, 6),
        {"value": 10},
    ),
    "softmax_over_channels": Entry(
        block(own_attention, along=lambda: nn.Linear(12, 12)),
        floats(3, 6, 6),
        {"b": 10},
        {"a": "the weights of all channels add up to one"},
    ),
}
