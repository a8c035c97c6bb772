"""Parameters and buffers of the module's own that have the width of a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shapes.entry import Entry, Net, floats, matrix, own, pooled

Use = Callable[[Net, Tensor], Tensor]


def of_maps(use: Use, *shape: int, buffer: bool = False, units: int = 12) -> Entry:
    """Channels of maps that meet a parameter or buffer of a shape."""

    def make() -> Net:
        scale = own(*shape)
        return Net(
            lambda n, x: n.head(pooled(n.b(use(n, n.a(x)).relu()).relu())),
            a=nn.Conv2d(3, 12, 3),
            b=nn.Conv2d(12, 10, 1),
            head=nn.Linear(10, 3),
            scale=scale.detach() if buffer else scale,
        )

    return Entry(make, floats(3, 6, 6), {"a": units, "b": 10})


def of_tokens(use: Use, *shape: int, buffer: bool = False) -> Entry:
    """The width of tokens that meet a parameter or buffer of a shape."""

    def make() -> Net:
        scale = own(*shape)
        return Net(
            lambda n, x: n.head(n.b(use(n, n.a(x)).relu()).relu().mean(1)),
            a=nn.Linear(6, 12),
            b=nn.Linear(12, 10),
            head=nn.Linear(10, 3),
            scale=scale.detach() if buffer else scale,
        )

    return Entry(make, floats(5, 6), {"a": 12, "b": 10})


def with_class_token(net: Net, x: Tensor) -> Tensor:
    x = torch.cat([net.token.expand(len(x), -1, -1), net.a(x)], 1) + net.place
    return net.head(net.b(x.relu())[:, 0].relu())


def queried(net: Net, x: Tensor) -> Tensor:
    keys, values = net.keys(x), net.values(x)
    scores = (net.query @ keys.mT).softmax(-1)
    return net.head((scores @ values).flatten(1))


def low_rank(net: Net, x: Tensor) -> Tensor:
    x = net.before(x).relu()
    return net.head(F.linear(net.a(x).relu(), net.b.weight + net.up @ net.down, net.b.bias).relu())


class Layers(nn.Module):
    """Linear layers and convolutions called as functions with parameters of the module's own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.head = how, nn.Linear(10, 3)
        self.dims: Any = ([1], [1])
        places = (3, 3) if how == "convolution" else ()
        self.first = nn.Parameter(torch.randn(12, 6, *places) * 0.3)
        self.first_bias = nn.Parameter(torch.randn(12))
        self.then = nn.Parameter(torch.randn(10, 12, *places) * 0.2)
        self.then_bias = nn.Parameter(torch.randn(10))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "convolution":
            x = F.conv2d(x, self.first, self.first_bias).relu()
            return self.head(pooled(F.conv2d(x, self.then, self.then_bias).relu()))
        if self.how == "linear":
            x = F.linear(x, self.first, self.first_bias).relu()
            return self.head(F.linear(x, self.then, self.then_bias).relu())
        if self.how == "matmul":
            x = (x @ self.first.t() + self.first_bias).relu()
            return self.head((x @ self.then.t() + self.then_bias).relu())
        if self.how == "einsum":
            x = (torch.einsum("bi,oi->bo", x, self.first) + self.first_bias).relu()
            return self.head((torch.einsum("bi,oi->bo", x, self.then) + self.then_bias).relu())
        x = (torch.tensordot(x, self.first, dims=self.dims) + self.first_bias).relu()
        return self.head((torch.tensordot(x, self.then, dims=self.dims) + self.then_bias).relu())


def own_layers(how: str, *shape: int) -> Entry:
    return Entry(lambda: Layers(how), floats(*shape), {"first": 12, "then": 10})


def parts(width: int) -> nn.ParameterList:
    return nn.ParameterList([own(width), own(width)])


def net_of(run: Callable[..., Any], **more: Callable[[], Any]) -> Callable[[], Net]:
    """A first and a second layer of tokens, a head, and parts of the network's own."""
    return lambda: Net(
        run,
        a=nn.Linear(6, 12),
        b=nn.Linear(12, 10),
        head=nn.Linear(10, 3),
        **{name: part() for name, part in more.items()},
    )


PARAMETERS = {
    "layer_scale": of_maps(lambda n, x: x * n.scale, 12, 1, 1),
    "scale_of_four_axes": of_maps(lambda n, x: x * n.scale + n.scale, 1, 12, 1, 1),
    "scale_indexed_with_none": of_maps(lambda n, x: x * n.scale[None, :, None, None], 12),
    "scale_reshaped": of_maps(lambda n, x: x * n.scale.view(1, -1, 1, 1), 12),
    "scale_unsqueezed": of_maps(
        lambda n, x: x + n.scale.unsqueeze(-1).unsqueeze(-1).expand_as(x), 12
    ),
    "scale_of_a_row": of_maps(lambda n, x: x * n.scale[0, :, None, None], 2, 12),
    "scale_transposed": of_maps(lambda n, x: x * n.scale.t()[..., None], 1, 12),
    "scale_exponential": of_maps(lambda n, x: x * n.scale.exp()[:, None, None], 12),
    "mean_and_deviation": of_maps(
        lambda n, x: (x - n.scale[0]) / n.scale[1].abs(), 2, 12, 1, 1, buffer=True
    ),
    "buffer_mask": of_maps(lambda n, x: x * (n.scale > 0.9), 12, 1, 1, buffer=True),
    "scale_by_place": of_maps(lambda n, x: x + n.scale, 12, 4, 4),
    "channels_last_scale": of_maps(
        lambda n, x: (x.permute(0, 2, 3, 1) * n.scale).permute(0, 3, 1, 2), 12
    ),
    "temperature": of_maps(lambda n, x: x * n.scale, 1),
    "position_embedding": of_tokens(lambda n, x: x + n.scale, 1, 5, 12),
    "position_embedding_sliced": of_tokens(lambda n, x: x + n.scale[:, : x.shape[1]], 1, 9, 12),
    "position_buffer": of_tokens(lambda n, x: x + n.scale, 5, 12, buffer=True),
    "token_scale": of_tokens(lambda n, x: x * n.scale, 12),
    "class_token": Entry(
        net_of(with_class_token, token=lambda: own(1, 1, 12), place=lambda: own(1, 6, 12)),
        floats(5, 6),
        {"a": 12},
    ),
    # Learned queries and the keys that they meet have a width of their own.
    "learned_queries": Entry(
        lambda: Net(
            queried,
            keys=nn.Linear(6, 12),
            values=nn.Linear(6, 10),
            query=own(4, 12),
            head=nn.Linear(40, 3),
        ),
        floats(5, 6),
        {"keys": 12, "values": 10},
    ),
    "list_of_parameters": Entry(
        net_of(
            lambda n, x: n.head(n.b((n.a(x) * n.own[0] + n.own[1]).relu()).relu()),
            own=lambda: parts(12),
        ),
        floats(6),
        {"a": 12, "b": 10},
    ),
    # The low-rank change of a weight has the layer's inputs and outputs.
    "low_rank_change": Entry(
        net_of(
            low_rank,
            before=lambda: nn.Linear(6, 6),
            up=lambda: matrix(10, 2),
            down=lambda: matrix(2, 12),
        ),
        floats(6),
        {"before": 6},
    ),
    "linear_function": own_layers("linear", 6),
    "convolution_function": own_layers("convolution", 6, 6, 6),
    "matmul_with_parameter": own_layers("matmul", 6),
    "einsum_with_parameter": own_layers("einsum", 6),
    "tensordot_with_parameter": own_layers("tensordot", 6),
}
