"""Inputs and outputs of every structure, and modules that are built or run in unusual ways."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shapes.entry import Entry, Net, floats, pooled, tokens


@dataclass
class Found:
    """What a detector gives."""

    boxes: Tensor
    scores: Tensor
    features: Tensor | None = None


def layers(**more: nn.Module) -> dict[str, nn.Module]:
    return {"a": nn.Linear(6, 12), "b": nn.Linear(12, 10), "head": nn.Linear(10, 3), **more}


def simple(run: Callable[..., Any], *, inputs: Any = None, **more: Any) -> Entry:
    """Two layers and a head, run in a way of their own."""
    return Entry(
        lambda: Net(run, **layers(**{name: part() for name, part in more.items()})),
        inputs or floats(6),
        {"a": 12, "b": 10},
    )


def tabular(net: Net, numbers: Tensor, categories: Tensor) -> Tensor:
    known = [embed(categories[:, place]) for place, embed in enumerate(net.embeds)]
    x = torch.cat([net.norm(numbers), *known], 1)
    return net.head(net.b(net.a(x).relu()).relu())


def audio(net: Net, x: Tensor) -> Tensor:
    """Frames of a signal, a learned transform of each, and convolutions along time."""
    frames = net.analysis(x.unfold(1, 16, 8))  # (samples, frames, filters)
    x = frames.square().clamp(min=1e-5).log().transpose(1, 2)
    return net.head(pooled(net.b(net.a(x).relu()).relu()))


def spectrogram(net: Net, x: Tensor) -> Tensor:
    window = torch.hann_window(16, dtype=x.dtype, device=x.device)
    x = torch.stft(x, 16, 8, window=window, return_complex=True).abs()  # (samples, 9, frames)
    return net.head(pooled(net.b(net.a(x).relu()).relu()))


def gated_waves(net: Net, x: Tensor) -> Tensor:
    """Two gated dilated convolutions with skip connections."""
    x = net.start(x)
    skips: list[Tensor] = []
    for gate, value, back in zip(net.gates, net.values, net.backs, strict=True):
        padded = F.pad(x, (2, 0))
        mixed = value(padded).tanh() * gate(padded).sigmoid()
        skips.append(mixed)
        x = x + back(mixed)
    return net.head(pooled(torch.stack(skips).sum(0)))


def causal(net: Net, x: Tensor) -> Tensor:
    """Convolutions whose surplus at the end is cut off, as in temporal networks."""
    x = net.a(x)[..., :-2].relu()
    return net.head(pooled(net.b(x)[..., :-2].relu()))


def fused_inputs(net: Net, image: Tensor, numbers: Tensor) -> Tensor:
    x = torch.cat([pooled(net.a(image).relu()), net.n(numbers).relu()], 1)
    return net.head(net.b(x).relu())


def image_and_numbers(samples: int) -> dict[str, Tensor]:
    return {"image": torch.randn(samples, 3, 6, 6), "numbers": torch.randn(samples, 4)}


def towers(net: Net, words: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Two networks whose outputs are compared."""
    one = net.head_words(net.words(net.embed(words).mean(1)).relu())
    two = net.head_image(pooled(net.image(image).relu()))
    return F.normalize(one, dim=1), F.normalize(two, dim=1)


def bilinear(net: Net, x: Tensor) -> Tensor:
    return net.head(net.both(net.a(x).relu(), net.c(x).relu()).relu())


def with_defaults(net: Net, x: Tensor, scale: float = 2.0, mask: Tensor | None = None) -> Tensor:
    x = net.a(x).relu() * scale
    x = x if mask is None else x * mask
    return net.head(net.b(x).relu())


def recomputed(net: Net, x: Tensor) -> Tensor:
    x = checkpoint(net.a, x, use_reentrant=False)
    return net.head(net.b(x.relu()).relu())


def as_dataclass(net: Net, x: Tensor) -> Found:
    x = net.b(net.a(x).relu()).relu()
    return Found(net.head(x), net.head_scores(x))


def as_dict(net: Net, x: Tensor) -> dict[str, Any]:
    x = net.b(net.a(x).relu()).relu()
    return {"logits": net.head(x), "aside": {"scores": [net.head_scores(x)], "number": 3}}


def scripted() -> nn.Module:
    """A part that was compiled by TorchScript between two layers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        part = torch.jit.script(nn.Sequential(nn.Linear(10, 9), nn.ReLU()))
    return Net(
        lambda n, x: n.head(n.part(n.b(n.a(x).relu()))),
        **(layers() | {"head": nn.Linear(9, 3)}),
        part=part,
    )


def without_gradient(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        x = net.a(x).relu()
    return net.head(net.b(x).relu())


def in_half(net: Net, x: Tensor) -> Tensor:
    return net.head(net.b(net.a(x).relu().to(torch.float64).to(x.dtype)).relu())


class Residual(nn.Module):
    """A block within a block, made from a number."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width + 1), nn.Linear(2 * width + 1, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu())


def deep() -> nn.Module:
    net = nn.Sequential(nn.Linear(6, 8), nn.Sequential(Residual(8), Residual(8)))
    net.add_module("head", nn.Linear(8, 3))
    return net


INPUTS = {
    "tabular": Entry(
        lambda: Net(
            tabular,
            norm=nn.BatchNorm1d(4),
            embeds=nn.ModuleList([nn.Embedding(5, 3), nn.Embedding(7, 4)]),
            a=nn.Linear(11, 12),
            b=nn.Linear(12, 10),
            head=nn.Linear(10, 3),
        ),
        lambda samples: (torch.randn(samples, 4), torch.randint(5, (samples, 2))),
        {"embeds.0": 3, "embeds.1": 4, "a": 12, "b": 10},
    ),
    "embedding": Entry(
        lambda: Net(
            lambda n, x: n.head(n.b(n.embed(x)).relu().mean(1)),
            embed=nn.Embedding(20, 12),
            b=nn.Linear(12, 10),
            head=nn.Linear(10, 3),
        ),
        tokens(5),
        {"embed": 12, "b": 10},
    ),
    "embedding_with_padding": Entry(
        lambda: Net(
            lambda n, x: n.head(n.b(n.embed(x) * n.place.weight[: x.shape[1]]).relu().mean(1)),
            embed=nn.Embedding(20, 12, padding_idx=0),
            place=nn.Embedding(9, 12),
            b=nn.Linear(12, 10),
            head=nn.Linear(10, 3),
        ),
        tokens(5),
        {"embed": 12, "place": 12, "b": 10},
    ),
    "embedding_bag": Entry(
        lambda: Net(
            lambda n, x: n.head(n.b(n.embed(x)).relu()),
            embed=nn.EmbeddingBag(20, 12),
            b=nn.Linear(12, 10),
            head=nn.Linear(10, 3),
        ),
        tokens(5),
        {"embed": 12, "b": 10},
    ),
    "text_convolution": Entry(
        lambda: Net(
            lambda n, x: n.head(n.b(n.embed(x).transpose(1, 2)).relu().amax(2)),
            embed=nn.Embedding(20, 12),
            b=nn.Conv1d(12, 10, 3),
            head=nn.Linear(10, 3),
        ),
        tokens(7),
        {"embed": 12, "b": 10},
    ),
    "audio_frames": Entry(
        lambda: Net(
            audio,
            analysis=nn.Linear(16, 8, bias=False),
            a=nn.Conv1d(8, 12, 3),
            b=nn.Conv1d(12, 10, 3),
            head=nn.Linear(10, 3),
        ),
        floats(80),
        {"analysis": 8, "a": 12, "b": 10},
    ),
    "audio_spectrogram": Entry(
        lambda: Net(
            spectrogram, a=nn.Conv1d(9, 12, 3), b=nn.Conv1d(12, 10, 3), head=nn.Linear(10, 3)
        ),
        floats(80),
        {"a": 12, "b": 10},
    ),
    "audio_gated": Entry(
        lambda: Net(
            gated_waves,
            start=nn.Conv1d(2, 8, 1),
            gates=nn.ModuleList([nn.Conv1d(8, 12, 3), nn.Conv1d(8, 12, 2, dilation=2)]),
            values=nn.ModuleList([nn.Conv1d(8, 12, 3), nn.Conv1d(8, 12, 2, dilation=2)]),
            backs=nn.ModuleList([nn.Conv1d(12, 8, 1), nn.Conv1d(12, 8, 1)]),
            head=nn.Linear(12, 3),
        ),
        floats(2, 12),
        {"start": 8, "gates.0": 12, "values.1": 12},
    ),
    "temporal_convolution": Entry(
        lambda: Net(
            causal,
            a=nn.Conv1d(2, 12, 3, padding=2),
            b=nn.Conv1d(12, 10, 3, padding=2),
            head=nn.Linear(10, 3),
        ),
        floats(2, 12),
        {"a": 12, "b": 10},
    ),
    "two_inputs_by_keyword": Entry(
        lambda: Net(
            fused_inputs,
            a=nn.Conv2d(3, 12, 3),
            n=nn.Linear(4, 6),
            b=nn.Linear(18, 10),
            head=nn.Linear(10, 3),
        ),
        image_and_numbers,
        {"a": 12, "n": 6, "b": 10},
    ),
    "two_towers": Entry(
        lambda: Net(
            towers,
            embed=nn.Embedding(20, 8),
            words=nn.Linear(8, 12),
            image=nn.Conv2d(3, 10, 3),
            head_words=nn.Linear(12, 5),
            head_image=nn.Linear(10, 5),
        ),
        lambda samples: (torch.randint(20, (samples, 5)), torch.randn(samples, 3, 6, 6)),
        {"embed": 8, "words": 12, "image": 10},
    ),
    "bilinear": Entry(
        lambda: Net(
            bilinear,
            a=nn.Linear(6, 12),
            c=nn.Linear(6, 7),
            both=nn.Bilinear(12, 7, 10),
            head=nn.Linear(10, 3),
        ),
        floats(6),
        {"a": 12, "c": 7, "both": 10},
    ),
    "default_arguments": simple(with_defaults),
    "given_arguments": simple(
        with_defaults, inputs=lambda n: {"x": torch.randn(n, 6), "mask": torch.ones(n, 1)}
    ),
    "checkpointed": simple(recomputed),
    "dataclass_output": simple(as_dataclass, head_scores=lambda: nn.Linear(10, 1)),
    "dict_output": simple(as_dict, head_scores=lambda: nn.Linear(10, 1)),
    "list_output": simple(lambda n, x: [n.head(n.b(n.a(y).relu()).relu()) for y in (x,)]),
    # What the network gives out stays.
    "features_given_out": Entry(
        lambda: Net(
            lambda n, x: (features := n.a(x).relu(), n.head(n.b(features).relu())), **layers()
        ),
        floats(6),
        {"b": 10},
        {"a": "the network gives its outputs"},
    ),
    "scripted_part": Entry(scripted, floats(6), {"a": 12}),
    "without_gradient": simple(without_gradient),
    "changes_of_type": simple(in_half),
    "blocks_in_blocks": Entry(deep, floats(6), {"0": 8, "1.0.up": 17, "1.1.up": 17}),
    "three_axes": simple(lambda n, x: n.head(n.b(n.a(x).relu()).relu()), inputs=floats(2, 4, 6)),
    "unused_layer": simple(
        lambda n, x: n.head(n.b(n.a(x).relu()).relu()), spare=lambda: nn.Linear(12, 4)
    ),
}
