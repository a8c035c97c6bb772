"""Layers in the words of the repositories in which they were published, in small."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, weight_norm

from shapes.entry import Entry, Net, any_of, floats, own, pooled
from shapes.means import centred, channel_mean


class Temporal(nn.Module):
    """A block of a TCN: causal convolutions with weights of a length and a direction."""

    def __init__(self, inputs: int, outputs: int, norm: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.conv1 = norm(nn.Conv1d(inputs, outputs, 3, padding=2))
        self.conv2 = norm(nn.Conv1d(outputs, outputs, 3, padding=4, dilation=2))
        self.downsample = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x)[:, :, :-2].contiguous().relu()
        out = self.conv2(out)[:, :, :-4].contiguous().relu()
        return (out + self.downsample(x)).relu()


def temporal(norm: Callable[[nn.Module], nn.Module], conv1: str) -> Entry:
    return Entry(
        lambda: Net(
            lambda n, x: n.head(n.b(n.a(x))[:, :, -1]),
            a=Temporal(4, 12, norm),
            b=Temporal(12, 10, norm),
            head=nn.Linear(10, 3),
        ),
        floats(4, 9),
        {f"a.{conv1}": 12, f"b.{conv1}": 10, "a.downsample": 12, "b.downsample": 10},
    )


class LayerNorm(nn.Module):
    """That of ConvNeXt, which keeps its width in a tuple."""

    def __init__(self, width: int, first: bool = False) -> None:
        super().__init__()
        self.weight, self.bias = own(width), own(width)
        self.normalized_shape, self.first = (width,), first

    def forward(self, x: Tensor) -> Tensor:
        if not self.first:
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, 1e-6)
        x = centred(x, 1)
        x = x / (channel_mean(x.pow(2), 1) + 1e-6).sqrt()
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def convnext(net: Net, x: Tensor) -> Tensor:
    x = net.norm0(net.stem(x))
    y = net.norm1(net.dw(x).permute(0, 2, 3, 1))
    x = x + net.pw2(F.gelu(net.pw1(y))).permute(0, 3, 1, 2)
    return net.head(net.norm2(x.mean([-2, -1])))


class Partial(nn.Module):
    """FasterNet's partial convolution, which is given its `forward` when it is made."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.some = width // 4
        self.conv = nn.Conv2d(self.some, self.some, 3, padding=1, bias=False)
        self.forward = self.forward_slicing

    def forward_slicing(self, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, : self.some] = self.conv(x[:, : self.some])
        return x


class Inception(nn.Module):
    """InceptionNeXt's depthwise convolutions, which keeps the widths of its parts in a tuple."""

    def __init__(self, width: int) -> None:
        super().__init__()
        part = width // 4
        self.square = nn.Conv2d(part, part, 3, padding=1, groups=part)
        self.wide = nn.Conv2d(part, part, (1, 5), padding=(0, 2), groups=part)
        self.high = nn.Conv2d(part, part, (5, 1), padding=(2, 0), groups=part)
        self.split_indexes = (width - 3 * part, part, part, part)

    def forward(self, x: Tensor) -> Tensor:
        rest, square, wide, high = torch.split(x, self.split_indexes, 1)
        return torch.cat((rest, self.square(square), self.wide(wide), self.high(high)), 1)


def stitched(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    """A cross-stitch unit of all channels of two tasks."""
    a, b = net.a(x).relu(), net.b(x).relu()
    both = torch.matmul(torch.cat((a, b), 1), net.cross)
    return net.head_a(both[:, : a.size(1)]), net.head_b(both[:, a.size(1) :])


def stitched_by_task(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-stitch units of whole tasks: four numbers for all channels."""
    a, b = net.a(x).relu(), net.b(x).relu()
    both = torch.einsum("ij,jbc->ibc", net.alpha, torch.stack([a, b]))
    return net.head_a(both[0]), net.head_b(both[1])


class ToTokens(nn.Module):
    """The tokens of FT-Transformer: numbers times vectors, and categories, with a bias of each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = own(4, width), own(5, width)
        self.categories = nn.Embedding(6, width)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        ones = torch.ones(len(numbers), 1, dtype=numbers.dtype, device=numbers.device)
        x = self.weight[None] * torch.cat([ones, numbers], 1)[:, :, None]
        x = torch.cat([x, self.categories(categories)], 1)
        first = torch.zeros(1, self.bias.shape[1], dtype=x.dtype, device=x.device)
        return x + torch.cat([first, self.bias])[None]


def tabular(net: Net, numbers: Tensor, categories: Tensor) -> Tensor:
    x = net.tokens(numbers, categories)
    x = x + net.down(net.up(net.norm(x)).relu())
    return net.head(x[:, 0])


class Spectral(nn.Module):
    """A layer of a Fourier neural operator: complex weights for the lowest frequencies."""

    def __init__(self, inputs: int, outputs: int, modes: int) -> None:
        super().__init__()
        self.out_channels, self.modes = outputs, modes
        scale = (inputs * outputs) ** -0.5
        self.weights = nn.Parameter(
            scale * torch.randn(inputs, outputs, modes, dtype=torch.complex64)
        )

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x)
        found = torch.zeros(
            len(x), self.out_channels, x.size(-1) // 2 + 1, dtype=spectrum.dtype, device=x.device
        )
        found[:, :, : self.modes] = torch.einsum(
            "bix,iox->box", spectrum[:, :, : self.modes], self.weights
        )
        return torch.fft.irfft(found, n=x.size(-1))


def operator(net: Net, x: Tensor) -> Tensor:
    x = net.lift(x)
    x = F.gelu(net.spectral1(x) + net.local1(x))
    x = F.gelu(net.spectral2(x) + net.local2(x))
    return net.head(net.project(x).relu())


class Diagonal(nn.Module):
    """A state-space layer with a diagonal of complex numbers (S4D), as a long convolution."""

    def __init__(self, width: int, states: int = 4) -> None:
        super().__init__()
        self.log_dt = nn.Parameter(torch.rand(width) - 2)
        self.C = nn.Parameter(torch.randn(width, states, 2))
        self.log_real = nn.Parameter(torch.rand(width, states) * 0.2 - 0.7)
        self.imaginary = nn.Parameter(math.pi * torch.arange(states).repeat(width, 1).float())
        self.D = own(width)
        self.out = nn.Conv1d(width, 2 * width, 1)

    def kernel(self, length: int) -> Tensor:
        A = -torch.exp(self.log_real) + 1j * self.imaginary
        steps = A * torch.exp(self.log_dt).unsqueeze(-1)
        exponents = steps.unsqueeze(-1) * torch.arange(length, device=steps.device)
        C = torch.view_as_complex(self.C) * (torch.exp(steps) - 1.0) / A
        return 2 * torch.einsum("hn,hnl->hl", C, torch.exp(exponents)).real

    def forward(self, u: Tensor) -> Tensor:
        length = u.size(-1)
        kernel = torch.fft.rfft(self.kernel(length), n=2 * length)
        y = torch.fft.irfft(torch.fft.rfft(u, n=2 * length) * kernel, n=2 * length)[..., :length]
        return F.glu(self.out(F.gelu(y + u * self.D.unsqueeze(-1))), dim=-2)


def state_space(net: Net, x: Tensor) -> Tensor:
    x = net.encoder(x).transpose(-1, -2)
    x = net.norm((net.ssm(x) + x).transpose(-1, -2))
    return net.head(x.mean(1))


class Quantised(nn.Conv2d):
    """A convolution in training for int8: a scale for each output."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight.float()  # of which PyTorch's own scales are
        scale = weight.detach().abs().amax((1, 2, 3)) / 127
        zero = torch.zeros_like(scale, dtype=torch.int32)
        weight = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)
        return self._conv_forward(input, weight.to(input.dtype), self.bias)


class Noisy(nn.Module):
    """A layer of NoisyNet: in evaluation its means alone."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mu, self.sigma = own(outputs, inputs), own(outputs, inputs)
        self.register_buffer("epsilon", torch.randn(outputs, inputs))

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.mu + self.sigma * self.epsilon if self.training else self.mu)


def with_time(net: Net, x: Tensor) -> Tensor:
    """Steps of a neural differential equation that gets the time beside its state."""
    x = net.encoder(x)
    for step in range(3):
        time = torch.ones_like(x[:, :1]) * step / 3
        x = x + net.down(net.up(torch.cat([x, time], 1)).tanh()) / 3
    return net.head(x)


def flat(run: Callable[[Net, Tensor], Tensor], **parts: Callable[[], nn.Module]) -> Any:
    """A network on maps, pooled in front of its head."""
    return lambda: Net(
        lambda n, x: n.head(pooled(run(n, x))), **{name: part() for name, part in parts.items()}
    )


PUBLISHED = {
    "weight_norm_by_parametrization": temporal(
        parametrizations.weight_norm, "conv1.parametrizations.weight.original1"
    ),
    "weight_norm_by_hook": temporal(weight_norm, "conv1"),
    "convnext_own_norms": Entry(
        lambda: Net(
            convnext,
            stem=nn.Conv2d(3, 12, 2, 2),
            norm0=LayerNorm(12, first=True),
            dw=nn.Conv2d(12, 12, 3, padding=1, groups=12),
            norm1=LayerNorm(12),
            pw1=nn.Linear(12, 20),
            pw2=nn.Linear(20, 12),
            norm2=LayerNorm(12),
            head=nn.Linear(12, 3),
        ),
        floats(3, 8, 8),
        {"stem": 12, "pw1": 20},
        norm_width=True,
    ),
    "forward_by_attribute": Entry(
        flat(
            lambda n, x: n.down(n.up(n.partial(n.a(x))).relu()),
            a=lambda: nn.Conv2d(3, 12, 2, 2),
            partial=lambda: Partial(12),
            up=lambda: nn.Conv2d(12, 16, 1),
            down=lambda: nn.Conv2d(16, 10, 1),
            head=lambda: nn.Linear(10, 3),
        ),
        floats(3, 8, 8),
        {"up": 16, "down": 10},
    ),
    "parts_of_a_tuple": Entry(
        flat(
            lambda n, x: n.down(n.mix(n.a(x).relu()).relu()),
            a=lambda: nn.Conv2d(3, 16, 2, 2),
            mix=lambda: Inception(16),
            down=lambda: nn.Conv2d(16, 10, 1),
            head=lambda: nn.Linear(10, 3),
        ),
        floats(3, 8, 8),
        {"a": 4, "down": 10},
    ),
    "cross_stitch_of_channels": Entry(
        lambda: Net(
            stitched,
            a=nn.Linear(6, 12),
            b=nn.Linear(6, 12),
            cross=own(24, 24),
            head_a=nn.Linear(12, 3),
            head_b=nn.Linear(12, 2),
        ),
        floats(6),
        {"cross": any_of(12, 24), "a": 12, "b": 12},
    ),
    "cross_stitch_of_tasks": Entry(
        lambda: Net(
            stitched_by_task,
            a=nn.Linear(6, 12),
            b=nn.Linear(6, 12),
            alpha=own(2, 2),
            head_a=nn.Linear(12, 3),
            head_b=nn.Linear(12, 2),
        ),
        floats(6),
        {"a": 12, "b": 12},
    ),
    "tokens_of_numbers": Entry(
        lambda: Net(
            tabular,
            tokens=ToTokens(12),
            norm=nn.LayerNorm(12),
            up=nn.Linear(12, 16),
            down=nn.Linear(16, 12),
            head=nn.Linear(12, 3),
        ),
        lambda samples: (torch.randn(samples, 3), torch.randint(6, (samples, 2))),
        {"tokens.categories": 12, "up": 16},
        norm_width=True,
    ),
    "fourier_operator": Entry(
        lambda: Net(
            operator,
            lift=nn.Conv1d(2, 12, 1),
            spectral1=Spectral(12, 11, 3),
            local1=nn.Conv1d(12, 11, 1),
            spectral2=Spectral(11, 10, 3),
            local2=nn.Conv1d(11, 10, 1),
            project=nn.Conv1d(10, 9, 1),
            head=nn.Conv1d(9, 1, 1),
        ),
        floats(2, 10),
        {"lift": 12, "spectral1.weights": 11, "spectral2.weights": 10, "project": 9},
    ),
    "state_space": Entry(
        lambda: Net(
            state_space,
            encoder=nn.Linear(3, 12),
            ssm=Diagonal(12),
            norm=nn.LayerNorm(12),
            head=nn.Linear(12, 3),
        ),
        floats(8, 3),
        {"encoder": 12},
        norm_width=True,
    ),
    "quantised_by_channel": Entry(
        flat(
            lambda n, x: n.b(n.a(x).relu()).relu(),
            a=lambda: Quantised(3, 12, 3),
            b=lambda: Quantised(12, 10, 3),
            head=lambda: nn.Linear(10, 3),
        ),
        floats(3, 8, 8),
        {"a": 12, "b": 10},
    ),
    "noisy": Entry(
        lambda: Net(
            lambda n, x: n.head(n.b(n.a(x).relu()).relu()),
            a=Noisy(6, 12),
            b=Noisy(12, 10),
            head=nn.Linear(10, 3),
        ),
        floats(6),
        {"a.mu": 12, "b.mu": 10},
    ),
    "steps_with_time": Entry(
        lambda: Net(
            with_time,
            encoder=nn.Linear(6, 12),
            up=nn.Linear(13, 16),
            down=nn.Linear(16, 12),
            head=nn.Linear(12, 3),
        ),
        floats(6),
        {"encoder": 12, "up": 16},
    ),
}
