"""Weights that are computed in the forward pass: standardised, mixed, modulated, of splines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from shapes.entry import Entry, Net, floats, own, pooled
from shapes.means import input_centred, input_mean

STATISTICS = "the statistics of the weights are over what they read"


def standardised(weight: Tensor) -> Tensor:
    """Each row with mean 0 and deviation 1 over its inputs."""
    weight = input_centred(weight)
    return weight / (input_mean(weight.square()) + 1e-5).sqrt()


class StandardConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, standardised(self.weight), self.bias)


class ScaledConv(nn.Conv2d):
    """With a gain for each output, as in networks without norms."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel)
        self.gain = own(self.out_channels, 1, 1, 1)

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, standardised(self.weight) * self.gain, self.bias)


class StandardLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, standardised(self.weight), self.bias)


class Standardised(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return standardised(weight)


def parametrized(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Standardised())


ORIGINAL = "parametrizations.weight.original"


def maps(layer: Callable[[int, int, int], nn.Module], within: str = "") -> Entry:
    """Two layers of a kind and one of the usual kind, on maps; `within` are their weights."""
    return Entry(
        lambda: Net(
            lambda n, x: n.head(pooled(n.c(n.b(n.a(x).relu()).relu()).relu())),
            a=layer(4, 12, 3),
            b=layer(12, 10, 3),
            c=nn.Conv2d(10, 8, 1),
            head=nn.Linear(8, 3),
        ),
        floats(4, 7, 7),
        {f"a{within}": 12, f"b{within}": 10, "c": 8},
        norm_width=True,
    )


def by_a_function(net: Net, x: Tensor) -> Tensor:
    for layer in (net.a, net.b):
        x = F.conv2d(x, standardised(layer.weight), layer.bias).relu()
    return net.head(pooled(net.c(x).relu()))


class Experts(nn.Module):
    """Each sample has its own mixture of kernels (CondConv)."""

    def __init__(self, inputs: int, outputs: int, experts: int = 3) -> None:
        super().__init__()
        self.route = nn.Linear(inputs, experts)
        self.weight = nn.Parameter(torch.randn(experts, outputs, inputs, 3, 3) * 0.2)
        self.bias = nn.Parameter(torch.randn(experts, outputs))

    def forward(self, x: Tensor) -> Tensor:
        samples, inputs, *size = x.shape
        gates = self.route(pooled(x)).sigmoid()
        weight = torch.einsum("be,eoikl->boikl", gates, self.weight)
        folded = x.reshape(1, samples * inputs, *size)
        kernels, bias = weight.flatten(0, 1), (gates @ self.bias).flatten()
        found = F.conv2d(folded, kernels, bias, padding=1, groups=samples)
        return found.reshape(samples, -1, *size)


class Modulated(nn.Module):
    """A convolution whose weights a style scales for each sample, and norms again (StyleGAN2)."""

    def __init__(self, inputs: int, outputs: int, style: int) -> None:
        super().__init__()
        self.out_channels = outputs
        self.style = nn.Linear(style, inputs)
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, 3, 3) * 0.2)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        samples, inputs, *size = x.shape
        weight = self.weight * self.style(style).view(samples, 1, inputs, 1, 1)
        scale = (weight.square().sum((2, 3, 4)) + 1e-8).rsqrt()
        weight = weight * scale.view(samples, self.out_channels, 1, 1, 1)
        weight = weight.view(samples * self.out_channels, inputs, 3, 3)
        folded = x.reshape(1, samples * inputs, *size)
        found = F.conv2d(folded, weight, padding=1, groups=samples)
        return found.view(samples, self.out_channels, *size)


def generated(net: Net, x: Tensor) -> Tensor:
    """A picture from a style and a constant."""
    style = net.map2(F.leaky_relu(net.map1(x), 0.2))
    x = net.constant.expand(len(x), -1, -1, -1)
    x = F.interpolate(F.leaky_relu(net.a(x, style) + net.shift[:, None, None], 0.2), scale_factor=2)
    return net.head(F.leaky_relu(net.b(x, style), 0.2))


class Splines(nn.Module):
    """A layer of splines on every edge (KAN), by the recursion of Cox and de Boor."""

    def __init__(self, inputs: int, outputs: int, intervals: int = 4) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.randn(outputs, inputs) * 0.3)
        self.spline = nn.Parameter(torch.randn(outputs, inputs, intervals + 2) * 0.3)
        self.scale = own(outputs, inputs)
        knots = torch.arange(-2, intervals + 3) * 2 / intervals - 1
        self.register_buffer("knots", knots.expand(inputs, -1).contiguous())

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name)

    def bases(self, x: Tensor) -> Tensor:
        x, knots = x[..., None], self.knots
        found = ((x >= knots[:, :-1]) & (x < knots[:, 1:])).to(x.dtype)
        for degree in (1, 2):
            rise = (x - knots[:, : -degree - 1]) / (knots[:, degree:-1] - knots[:, : -degree - 1])
            fall = (knots[:, degree + 1 :] - x) / (knots[:, degree + 1 :] - knots[:, 1:-degree])
            found = rise * found[..., :-1] + fall * found[..., 1:]
        return found

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.spline * self.scale[..., None]).flatten(1)
        return F.linear(F.silu(x), self.base) + F.linear(self.bases(x).flatten(1), weight)


class Chebyshev(nn.Module):
    """A layer of Chebyshev polynomials on every edge."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.coefficients = nn.Parameter(torch.randn(inputs, outputs, 4) * 0.4)

    def forward(self, x: Tensor) -> Tensor:
        angle = (x.tanh() * 0.99).acos()[..., None]
        terms = (angle * torch.arange(4, device=x.device)).cos()
        return torch.einsum("bid,iod->bo", terms, self.coefficients)


class Adapted(nn.Linear):
    """A weight and a correction of low rank, added in every run (LoRA)."""

    def __init__(self, inputs: int, outputs: int, rank: int = 3) -> None:
        super().__init__(inputs, outputs)
        self.down = nn.Parameter(torch.randn(rank, inputs) * 0.4)
        self.up = nn.Parameter(torch.randn(outputs, rank) * 0.4)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight + 0.5 * self.up @ self.down, self.bias)


class Unit(nn.Linear):
    """Rows of length 1 by a gain: weight norm written out."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.gain = own(outputs, 1)

    def forward(self, input: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(self.weight, dim=1, keepdim=True)
        return F.linear(input, self.gain * self.weight / (length + 1e-6), self.bias)


class Rounded(nn.Linear):
    """Weights rounded to eight bits row by row, as in training that is aware of quantisation."""

    def forward(self, input: Tensor) -> Tensor:
        step = self.weight.abs().amax(1, keepdim=True) / 127 + 1e-9
        return F.linear(input, (self.weight / step).round() * step, self.bias)


def vectors(layer: Callable[[int, int], nn.Module], a: str = "a", b: str = "b") -> Entry:
    """Two layers of a kind and a head; `a` and `b` are what makes their units."""
    return Entry(
        lambda: Net(
            lambda n, x: n.head(n.b(n.a(x).tanh()).tanh()),
            a=layer(6, 12),
            b=layer(12, 10),
            head=nn.Linear(10, 3),
        ),
        floats(6),
        {a: 12, b: 10},
    )


COMPUTED_WEIGHTS = {
    "weights_standardised": maps(StandardConv),
    "weights_standardised_with_gain": maps(ScaledConv),
    "weights_standardised_by_parametrization": maps(
        lambda i, o, k: parametrized(nn.Conv2d(i, o, k)), f".{ORIGINAL}"
    ),
    "weights_standardised_linear": Entry(
        vectors(StandardLinear).make, floats(6), {"a": 12, "b": 10}, norm_width=True
    ),
    "weights_standardised_by_function": Entry(
        lambda: Net(
            by_a_function,
            a=nn.Conv2d(4, 12, 3),
            b=nn.Conv2d(12, 10, 3),
            c=nn.Conv2d(10, 8, 1),
            head=nn.Linear(8, 3),
        ),
        floats(4, 7, 7),
        {"b": 10, "c": 8},
        {"a": STATISTICS},
    ),
    "kernels_by_sample": Entry(
        lambda: Net(
            lambda n, x: n.head(pooled(n.c(n.b(n.a(x).relu()).relu()).relu())),
            a=nn.Conv2d(3, 12, 3),
            b=Experts(12, 10),
            c=Experts(10, 8),
            head=nn.Linear(8, 3),
        ),
        floats(3, 6, 6),
        {"a": 12, "b.weight": 10, "c.weight": 8},
    ),
    "modulated": Entry(
        lambda: Net(
            generated,
            map1=nn.Linear(6, 14),
            map2=nn.Linear(14, 9),
            shift=own(11),
            a=Modulated(12, 11, 9),
            b=Modulated(11, 10, 9),
            constant=own(1, 12, 3, 3),
            head=nn.Conv2d(10, 3, 1),
        ),
        floats(6),
        {"map1": 14, "map2": 9, "a.style": 12, "a.weight": 11, "b.weight": 10},
    ),
    "splines": vectors(Splines, "a.base", "b.base"),
    "chebyshev": vectors(Chebyshev, "a.coefficients", "b.coefficients"),
    "low_rank_correction": vectors(Adapted),
    "weight_norm_written_out": vectors(Unit),
    "weights_rounded": vectors(Rounded),
}
