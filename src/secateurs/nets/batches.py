"""Batches of anything: tensors, or tuples, lists, mappings and records of them, nested."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only

from secateurs.errors import InputError
from secateurs.nets.trace import tensors_of

Batch = Any  # a tensor, or a nested structure of tensors and of anything else
Run = Callable[[nn.Module, Batch], object]


def blank_image(model: nn.Module, size: int) -> Tensor:
    """An RGB image (1, 3, size, size) without values, of the type of the model's parameters.

    >>> blank_image(nn.Conv2d(3, 8, 3), 32).shape
    torch.Size([1, 3, 32, 32])
    """
    dtype = next((parameter.dtype for parameter in model.parameters()), None)
    return torch.empty(1, 3, size, size, dtype=dtype, device="meta")


def forward(model: nn.Module, batch: Batch) -> object:
    """Run a model on a batch as most data loaders give it.

    A mapping is given as keywords, of a tuple or a list the first element; anything else is given
    as it is.

    >>> forward(nn.Identity(), (torch.ones(2), "label"))
    tensor([1., 1.])
    """
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, tuple | list):
        return forward(model, batch[0])
    return model(batch)


def num_samples(batch: Batch) -> int:
    """How many samples a batch has: the length of the first axis of its first tensor.

    Raises InputError for a batch without a tensor that has an axis.

    >>> num_samples({"image": torch.zeros(4, 3, 8, 8), "size": [torch.zeros(4, 2)]})
    4
    """
    for tensor in tensors_of(batch):
        if tensor.ndim:
            return len(tensor)
    raise InputError(f"batch: expected a tensor or a structure of tensors, got {type(batch)}")


def samples(batch: Batch, which: slice | Tensor) -> Batch:
    """Some samples of a batch: of every tensor whose first axis is as long as the batch.

    >>> samples((torch.arange(4), torch.zeros(2)), slice(0, 1))
    (tensor([0]), tensor([0., 0.]))
    """
    length = num_samples(batch)
    return map_tensors(
        batch, lambda tensor: tensor[which] if tensor.ndim and len(tensor) == length else tensor
    )


def map_tensors(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The same structure with each tensor changed."""
    return tree_map_only(Tensor, change, batch)


def without_values(batch: Batch) -> Batch:
    """The same structure with tensors that have shapes and no values.

    >>> without_values([torch.zeros(2, 3)])[0].device.type
    'meta'
    """
    return map_tensors(batch, lambda tensor: torch.empty_like(tensor, device="meta"))


def copied_batch(batch: Batch) -> Batch:
    """A copy, for a network that works in place."""
    return map_tensors(batch, lambda tensor: tensor.clone())


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches of one structure as one.

    >>> joined([(torch.zeros(2, 3),), (torch.zeros(1, 3),)])[0].shape
    torch.Size([3, 3])
    """
    return tree_map(
        lambda *parts: torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0], *batches
    )


def all_finite(batch: Batch) -> bool:
    """Whether a batch has neither NaN nor infinity.

    >>> all_finite(torch.tensor([0.0, float("nan")]))
    False
    """
    return all(
        bool(tensor.isfinite().all())
        for tensor in tensors_of(batch)
        if tensor.is_floating_point() and not tensor.is_meta
    )


def shape_words(batch: Batch) -> str:
    """The shapes of a batch's tensors, for messages.

    >>> shape_words({"a": torch.zeros(2, 3), "b": torch.zeros(2)})
    '(2, 3), (2,)'
    """
    return ", ".join(str(tuple(tensor.shape)) for tensor in tensors_of(batch))
