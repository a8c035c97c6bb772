"""What stands between two layers: activations, gates and functions over the channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shapes.entry import Entry, Net, floats

OVER_ALL = "each value depends on all channels"


def through(how: Callable[[Net, Tensor], Tensor], reads: int = 12, **parts: Any) -> Net:
    return Net(
        lambda n, x: n.head(n.b(how(n, n.a(x))).relu()),
        **{name: part() for name, part in parts.items()},
        a=nn.Linear(6, 12),
        b=nn.Linear(reads, 10),
        head=nn.Linear(10, 3),
    )


def activation(
    how: Callable[[Net, Tensor], Tensor], reads: int = 12, units: int = 12, **parts: Any
) -> Entry:
    """An activation after which `units` units of the first layer can be cut."""
    return Entry(lambda: through(how, reads, **parts), floats(6), {"a": units, "b": 10})


def over_all(how: Callable[[Tensor], Tensor]) -> Entry:
    """A function over all channels: the first layer's outputs stay."""
    return Entry(lambda: through(lambda _, x: how(x)), floats(6), {"b": 10}, {"a": OVER_ALL})


def over_survivors(how: Callable[[Tensor], Tensor]) -> Entry:
    """A function over all channels that a channel of zeros does not change."""
    return Entry(
        lambda: through(lambda _, x: how(x)), floats(6), {"a": 12, "b": 10}, norm_width=True
    )


def gated(net: Net, x: Tensor) -> Tensor:
    return net.head(net.down(F.silu(net.gate(x)) * net.up(x)))


def prelu(count: int) -> nn.PReLU:
    act = nn.PReLU(count)
    act.weight.data.copy_(torch.rand(count))
    return act


ACTIVATIONS = {
    "prelu": activation(lambda n, x: n.act(x), act=lambda: prelu(12)),
    "prelu_of_one": activation(lambda n, x: n.act(x), act=lambda: prelu(1)),
    "celu": activation(lambda _, x: F.celu(x)),
    "softplus": activation(lambda _, x: F.softplus(x)),
    "sigmoid": activation(lambda _, x: x.sigmoid()),
    "hardswish": activation(lambda _, x: F.hardswish(x)),
    "softshrink": activation(lambda _, x: F.softshrink(x, 0.1)),
    "threshold": activation(lambda _, x: F.threshold(x, 0.1, 0.0)),
    "relu6_in_place": activation(lambda n, x: n.act(x), act=lambda: nn.ReLU6(inplace=True)),
    "dropout": activation(lambda n, x: n.act(x.relu()), act=lambda: nn.Dropout(0.3)),
    "own_swish": activation(lambda _, x: x * torch.sigmoid(1.5 * x)),
    # A value and its gate are six channels apart and go together.
    "glu": activation(lambda _, x: F.glu(x), reads=6, units=6),
    "geglu": activation(
        lambda _, x: x.chunk(2, -1)[0] * F.gelu(x.chunk(2, -1)[1]), reads=6, units=6
    ),
    "maxout": activation(lambda _, x: x.view(len(x), -1, 2).amax(2), reads=6, units=6),
    "concatenated_relu": activation(lambda _, x: torch.cat([x, -x], 1).relu(), reads=24),
    "swiglu": Entry(
        lambda: Net(
            gated,
            gate=nn.Linear(6, 12),
            up=nn.Linear(6, 12),
            down=nn.Linear(12, 8),
            head=nn.Linear(8, 3),
        ),
        floats(6),
        {"gate": 12, "up": 12, "down": 8},
    ),
    "softmax": over_all(lambda x: x.softmax(1)),
    "log_softmax": over_all(lambda x: F.log_softmax(x, 1)),
    "sorted": over_all(lambda x: x.sort(1).values),
    "centred": over_all(lambda x: x - x.mean(1, keepdim=True)),
    "norm_of_one": over_survivors(lambda x: F.normalize(x.relu(), dim=1)),
    "cumulative_sum": over_survivors(lambda x: x.relu().cumsum(1)),
}
