"""Batches of anything: tensors, or tuples, lists, mappings and records of them, nested."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from secateurs.errors import InputError
from secateurs.nets.trace import record_fields, tensors_of

PACKED = ("data", "sorted_indices", "unsorted_indices")
Batch = Any  # a tensor, or a nested structure of tensors and of anything else
Run = Callable[[nn.Module, Batch], object]


@dataclass(frozen=True)
class Whole:
    """A batch that cannot be split into samples, as the nodes and edges of a graph: it is one."""

    parts: Batch


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
    """How many samples a batch has: the length of the first axis of its first tensor, or one.

    Raises InputError for a batch without a tensor that has an axis.

    >>> num_samples({"image": torch.zeros(4, 3, 8, 8), "size": [torch.zeros(4, 2)]})
    4
    """
    for tensor in tensors_of(batch):
        if tensor.ndim:
            return min(len(tensor), 1) if isinstance(batch, Whole) else len(tensor)
    raise InputError(f"batch: expected a tensor or a structure of tensors, got {type(batch)}")


def samples(batch: Batch, which: slice | Tensor) -> Batch:
    """Some samples of a batch: of every tensor whose first axis is as long as the batch.

    >>> samples((torch.arange(4), torch.zeros(2)), slice(0, 1))
    (tensor([0]), tensor([0., 0.]))
    """
    if isinstance(batch, Whole):
        return batch
    length = num_samples(batch)
    return map_tensors(
        batch, lambda tensor: tensor[which] if tensor.ndim and len(tensor) == length else tensor
    )


def map_tensors(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The same structure with each tensor changed."""
    return zipped(change, batch)


def zipped(
    change: Callable[..., object], *structures: Any, leaves: tuple[type, ...] = (Tensor,)
) -> Any:
    """Structures of one kind as one, each tensor what `change` makes of those in its place.

    Goes into tuples, lists, mappings, dataclasses and namespaces, which keep their types; anything
    else that is not of the types `leaves` is the first structure's.

    >>> zipped(torch.add, {"a": (torch.ones(1), 2)}, {"a": (torch.ones(1), 3)})
    {'a': (tensor([2.]), 2)}
    """
    first = structures[0]
    again = partial(zipped, change, leaves=leaves)
    if isinstance(first, leaves):
        return change(*structures)
    if isinstance(first, PackedSequence):  # the lengths have to stay where they are
        packed = [again(*(getattr(one, name) for one in structures)) for name in PACKED]
        return PackedSequence(packed[0], first.batch_sizes, *packed[1:])
    if isinstance(first, Mapping):
        return _with_items(first, {key: again(*(one[key] for one in structures)) for key in first})
    if isinstance(first, tuple | list):
        parts = [again(*places) for places in zip(*structures, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    names = record_fields(first)
    if not names:
        return first
    record = copy.copy(first)
    for name in names:
        value = again(*(getattr(one, name, None) for one in structures))
        object.__setattr__(record, name, value)  # also where it is frozen
    return record


def _with_items(mapping: Mapping[Any, Any], items: dict[Any, Any]) -> Mapping[Any, Any]:
    """A mapping of the same type with other values, a plain one where it takes none."""
    if type(mapping) is dict:
        return items
    try:
        found: Any = copy.copy(mapping)
        for key, value in items.items():
            found[key] = value
    except TypeError:
        return items
    return found


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
    length = num_samples(batches[0])

    def join(*parts: Tensor) -> Tensor:
        return torch.cat(parts) if parts[0].ndim and len(parts[0]) == length else parts[0]

    return zipped(join, *batches)


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
