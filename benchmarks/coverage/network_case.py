"""A network of the catalogue, and the samples and losses that several of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 7  # which no other width is, so that a layer that gives the answer is known by it


@dataclass(frozen=True)
class Case:
    """A network: how it is built, its batches, and what the public calls are given beside them.

    `batch(n)` gives `n` samples; `loss(model, batch)` is its own training loss; `words` are
    keywords of `secateurs.prune`; `example` turns a batch into example inputs.
    """

    library: str
    make: Callable[[], nn.Module]
    batch: Callable[[int], Any]
    loss: Callable[[nn.Module, Any], Tensor] | None = None
    words: dict[str, Any] = field(default_factory=dict)
    num_samples: int = 32


def images(n: int, size: int = 64, channels: int = 3) -> Tensor:
    """Images (n, channels, size, size): smooth, as noise alone is no image."""
    coarse = torch.rand(n, channels, size // 8, size // 8)
    return nn.functional.interpolate(
        coarse, size=(size, size), mode="bilinear"
    ) + 0.1 * torch.randn(n, channels, size, size)


def pixels(n: int, size: int = 64) -> dict[str, Tensor]:
    """Images and labels as transformers' processors and collators give them."""
    return {"pixel_values": images(n, size), "labels": torch.randint(0, CLASSES, (n,))}


def tokens(n: int, length: int = 16, words: int = 100) -> dict[str, Tensor]:
    """Token ids with a mask and one label."""
    return {
        "input_ids": torch.randint(0, words, (n, length)),
        "attention_mask": torch.ones(n, length, dtype=torch.int64),
        "labels": torch.randint(0, CLASSES, (n,)),
    }


def own_loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """The loss that a model of transformers gives for its labels."""
    return model(**batch).loss


def mean_square(model: nn.Module, batch: Any) -> Tensor:
    """A loss for any output: the mean square of every number."""
    from secateurs.api.models import run_batch
    from secateurs.nets.trace import tensors_of

    found = [t for t in tensors_of(run_batch(model, batch)) if t.is_floating_point()]
    return torch.stack([part.square().mean() for part in found]).sum()


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Of the logits and the labels."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def labelled(n: int, size: int) -> tuple[Tensor, Tensor]:
    """Images and labels as a DataLoader of a classifier gives them."""
    return images(n, size), torch.randint(0, CLASSES, (n,))
