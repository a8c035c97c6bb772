"""Small networks for images of 3 x 8 x 8, each with one thing that is unusual."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 8


def block(inputs: int, outputs: int, kernel: int = 3, **words: Any) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=words.pop("padding", kernel // 2), **words)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Net(nn.Module):
    """Two layers that can be cut, something in the middle, and a head."""

    def __init__(
        self,
        middle: Callable[[Net, Tensor], Tensor] = lambda net, x: x,
        width: int = 8,
        made: int = 8,
        head: nn.Module | None = None,
        last: Callable[[Net, Tensor], Any] = lambda net, x: net.head(x.mean((2, 3))),
        **layers: nn.Module,
    ) -> None:
        super().__init__()
        self.first, self.then = block(3, made), block(width, 6)
        self.middle, self.last = middle, last
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.head = head or nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        return self.last(self, self.then(self.middle(self, self.first(x))))


@dataclass
class Answer:
    logits: Tensor
    features: Tensor | None = None


def keeps(net: Net, x: Tensor) -> Tensor:
    net.__dict__["feature_map"] = x
    net.__dict__["history"] = [x, {"also": x * 2}]
    return x


def frozen(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net.inner(x)


class Auxiliary(nn.Module):
    """An auxiliary head that runs in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.then = block(3, 8), block(8, 6)
        self.auxiliary, self.head = nn.Conv2d(8, 3, 1), nn.Linear(6, 3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        main = self.head(self.then(x).mean((2, 3)))
        if self.training:
            return main, self.norm(self.auxiliary(x).mean((2, 3)))
        return main


class Transformer(nn.Module):
    """PyTorch's own encoder over the places of an image."""

    def __init__(self, mask: str = "", **words: Any) -> None:
        super().__init__()
        self.mask = mask
        self.embed = nn.Conv2d(3, 16, 4, stride=4)
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, **words)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).mT
        words: dict[str, Tensor] = {}
        if self.mask == "causal":
            words["mask"] = torch.ones(4, 4, device=x.device).triu(1).bool()
        elif self.mask == "padding":
            words["src_key_padding_mask"] = torch.arange(4, device=x.device).expand(len(x), 4) > 2
        return self.head(self.encoder(x, **words).mean(1))


class Decoder(nn.Module):
    """Attention from learned queries to the places of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 16, 4, stride=4)
        self.queries = nn.Parameter(torch.randn(5, 16))
        layer = nn.TransformerDecoderLayer(16, 4, 24, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 1)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).mT
        return self.head(self.decoder(self.queries.expand(len(x), -1, -1), x).mean(1))


class Attention(nn.Module):
    """nn.MultiheadAttention called in one of its ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.embed = nn.Conv2d(3, 16, 4, stride=4)
        self.mix, self.head = nn.MultiheadAttention(16, 4, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.embed(x).flatten(2).mT
        if self.how == "weights":
            x, weights = self.mix(x, x, x)
            return self.head(x.mean(1)), weights
        if self.how == "cross":
            x = self.mix(x.mean(1, keepdim=True), x, x, need_weights=False)[0]
        elif self.how == "positions":
            x = self.mix(x, x, x, None, False)[0]
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.rnn, self.head = (
            block(3, 8),
            nn.LSTM(8, 5, batch_first=True),
            nn.Linear(5, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.first(x).flatten(2).mT)[0][:, -1])


class Standardised(nn.Conv2d):
    """A convolution whose weights are standardised in every run."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class PadsItself(nn.Conv2d):
    """A convolution that pads as TensorFlow does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Doubles(nn.Linear):
    """A linear layer that gives twice what it should."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def twice(net: Net, x: Tensor) -> Tensor:
    return net.again(F.relu(net.again(x)))


def tied() -> nn.Module:
    model = Net(
        lambda net, x: net.two(F.relu(net.one(x))), one=nn.Conv2d(8, 8, 1), two=nn.Conv2d(8, 8, 1)
    )
    model.two.weight = model.one.weight
    return model


def weight_normed() -> nn.Module:
    model = Net()
    nn.utils.parametrizations.weight_norm(model.first[0])
    return model


def spectral() -> nn.Module:
    model = Net(lambda net, x: net.inner(x), inner=nn.Conv2d(8, 8, 1))
    nn.utils.parametrizations.spectral_norm(model.inner)
    return model


def partly_frozen() -> nn.Module:
    model = Net()
    model.first.requires_grad_(False)
    return model


def hooked() -> nn.Module:
    model = Net()
    model.first.register_forward_hook(lambda module, args, out: out * 1.5)
    model.then[0].register_forward_pre_hook(lambda module, args: (args[0] + 0.1,))
    return model


def training() -> nn.Module:
    return Net(lambda net, x: F.dropout(x, 0.5, net.training)).train()


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inner = torch.jit.script(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()))
    return Net(lambda net, x: net.inner(x), inner=inner)


def no_statistics() -> nn.Module:
    model = Net()
    model.first[1] = nn.BatchNorm2d(8, track_running_stats=False)
    return model


def three_d(net: Net, x: Tensor) -> Tensor:
    return net.deep(x[:, None])[:, 0]


def in_place(net: Net, x: Tensor) -> Tensor:
    x = x * 2
    x += 1
    return x.mul_(0.5).relu_()


def overwritten(net: Net, x: Tensor) -> Tensor:
    return x.mul_(0.5)  # what the ReLU before needs for its gradient


def per_channel(net: Net, x: Tensor) -> Tensor:
    return x * net.scale[:, None, None]


def buffered() -> nn.Module:
    model = Net(per_channel)
    model.register_buffer("scale", torch.rand(8))
    return model


def scaled() -> nn.Module:
    model = Net(per_channel)
    model.scale = nn.Parameter(torch.rand(8))
    return model


def padded(mode: str) -> nn.Module:
    return Net(
        lambda net, x: net.inner(x).relu(),
        inner=nn.Conv2d(8, 8, 3, padding=(1, 2), stride=(2, 1), padding_mode=mode),
    )


Made = Callable[[], nn.Module]
# What is cut, at least so many groups, and comes out right.
CUT: dict[str, tuple[int, Made]] = {
    "plain": (2, Net),
    "conv 1d": (
        1,
        lambda: Net(last=lambda n, x: n.flat(x.flatten(2)).mean(2), flat=nn.Conv1d(6, 3, 3)),
    ),
    "conv 3d": (1, lambda: Net(three_d, deep=nn.Conv3d(1, 1, 3, padding=1))),
    "transposed": (1, lambda: Net(lambda n, x: n.up(x), up=nn.ConvTranspose2d(8, 8, 2, 2))),
    "depthwise": (2, lambda: Net(lambda n, x: n.deep(x), deep=nn.Conv2d(8, 8, 3, groups=8))),
    "grouped": (2, lambda: Net(lambda n, x: n.part(x), part=nn.Conv2d(8, 8, 3, groups=2))),
    "dilated": (3, lambda: Net(lambda n, x: n.wide(x), wide=nn.Conv2d(8, 8, 3, dilation=2))),
    "padding same": (
        3,
        lambda: Net(
            lambda n, x: n.same(x), same=nn.Conv2d(8, 8, (5, 3), padding="same", dilation=(1, 2))
        ),
    ),
    "padding valid": (
        3,
        lambda: Net(lambda n, x: n.same(x), same=nn.Conv2d(8, 8, 3, padding="valid")),
    ),
    "padding reflect": (1, lambda: padded("reflect")),
    "padding replicate": (1, lambda: padded("replicate")),
    "padding circular": (1, lambda: padded("circular")),
    "pads itself": (3, lambda: Net(lambda n, x: n.own(x), own=PadsItself(8, 8, 2))),
    "weight norm": (1, weight_normed),
    "spectral norm": (1, spectral),
    "standardised": (1, lambda: Net(lambda n, x: n.own(x), own=Standardised(8, 8, 3))),
    "tied weights": (1, tied),
    "buffer": (1, buffered),
    "scale": (1, scaled),
    "in place": (2, lambda: Net(in_place)),
    "overwritten": (2, lambda: Net(overwritten)),
    "dict": (2, lambda: Net(last=lambda n, x: {"out": n.head(x.mean((2, 3))), "more": None})),
    "tuple": (2, lambda: Net(last=lambda n, x: (n.head(x.mean((2, 3))), 3, "text"))),
    "record": (1, lambda: Net(last=lambda n, x: Answer(n.head(x.mean((2, 3))), x))),
    "object": (1, lambda: Net(last=lambda n, x: SimpleNamespace(a=n.head(x.mean((2, 3))), b=x))),
    "scalar": (2, lambda: Net(last=lambda n, x: n.head(x.mean((2, 3))).sum())),
    "float64": (2, lambda: Net().double()),
    "bfloat16": (2, lambda: Net().bfloat16()),
    "frozen": (2, partly_frozen),
    "hooks": (2, hooked),
    "training": (2, training),
    "no statistics": (2, no_statistics),
    "no grad": (3, lambda: Net(frozen, inner=nn.Conv2d(8, 8, 1))),
    "detached": (2, lambda: Net(last=lambda n, x: n.head(x.mean((2, 3))).detach())),
    "detached inside": (2, lambda: Net(lambda n, x: x.detach())),
    "keeps a map": (2, lambda: Net(keeps)),
    "auxiliary": (1, Auxiliary),
    "unused layer": (2, lambda: Net(unused=nn.Linear(4, 4))),
    "scripted": (1, scripted),
    "one unit": (1, lambda: Net(made=1, width=1)),
    "channels last": (2, lambda: Net().to(memory_format=torch.channels_last)),
    "recurrent": (0, Recurrent),
    "encoder": (2, Transformer),
    "encoder, norm first": (2, lambda: Transformer(norm_first=True, activation="gelu")),
    "encoder, padding": (2, lambda: Transformer("padding")),
    "decoder": (1, Decoder),
    "attention weights": (0, lambda: Attention("weights")),
    "attention by position": (1, lambda: Attention("positions")),
    "norm twice": (1, lambda: Net(lambda n, x: n.first[1](n.inner(x)), inner=nn.Conv2d(8, 8, 1))),
    "shared layer": (2, lambda: Net(twice, again=nn.Conv2d(8, 8, 1))),
    "cross attention": (1, lambda: Attention("cross")),
    "zero batch part": (2, lambda: Net(lambda n, x: torch.cat([x[:0], x]))),
}
# What is told in one line.
TOLD: dict[str, tuple[str, Made]] = {
    "encoder, causal": (r"Tensor.item\(\) cannot be called", lambda: Transformer("causal")),
    "lazy": (r"0\.weight: not initialised yet", lazy),
    "no parameters": (
        r"the network has no parameters",
        lambda: nn.Sequential(nn.AvgPool2d(2), nn.Flatten()),
    ),
    "other images": (
        r"does not run on a sample of",
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3)),
    ),
    "own product": (
        r"layer own: its class Doubles does more",
        lambda: Net(
            head=nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)),
            last=lambda n, x: n.head(n.own(x.mean((2, 3)))),
            own=Doubles(6, 6),
        ),
    ),
}
