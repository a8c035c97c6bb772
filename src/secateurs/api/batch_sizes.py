"""Programs of a model for any number of samples, or for that of an example."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.nets.batches import map_tensors
from secateurs.nets.trace import tensors_of

MORE = 3  # samples than in the example, on which a file is tried
Axes = Sequence[int | None]  # that of the samples in each tensor of some inputs, in order


def batch_size(inputs: Any) -> int:
    """How many samples inputs have: the length of the first tensor, 1 where it has no axes.

    >>> batch_size((torch.zeros(3, 2), torch.zeros(5)))
    3
    """
    first = tensors_of(inputs)[0]
    return len(first) if first.ndim else 1


def batch_axes(inputs: Any, runs: Callable[[Any], bool]) -> Axes | None:
    """The axis of the samples in each tensor; None where a model `runs` on no other number of them.

    It is the first one of every tensor that has as many places along it as the first tensor. Where
    the model does not run so, it is the second one of tensors beside the first, as of the state of
    a recurrent network.

    >>> batch_axes((torch.zeros(3, 2), torch.zeros(1, 3)), lambda inputs: len(inputs[1][0]) == 6)
    [0, 1]
    """
    number = batch_size(inputs)
    first, *rest = tensors_of(inputs)
    for order in ((0,), (0, 1), (1, 0)):
        found: list[int | None] = [0 if first.ndim else None]
        for tensor in rest:
            fit = [axis for axis in order if axis < tensor.ndim and tensor.shape[axis] == number]
            found.append(fit[0] if fit else None)
        if runs(with_samples(inputs, found, number + MORE)):
            return found
    return None


def with_samples(inputs: Any, axes: Axes, number: int) -> Any:
    """The same inputs with so many samples, the first ones again where there are fewer.

    >>> with_samples((torch.tensor([1, 2]), torch.zeros(1)), [0, None], 3)
    (tensor([1, 2, 1]), tensor([0.]))
    """
    along = _by_identity(inputs, axes)

    def resized(tensor: Tensor) -> Tensor:
        axis = along[id(tensor)]
        if axis is None:
            return tensor
        return tensor.index_select(axis, torch.arange(number) % tensor.shape[axis])

    return map_tensors(inputs, resized)


def free_program(
    network: nn.Module, inputs: Any, axes: Axes, *, strict: bool
) -> torch.export.ExportedProgram:
    """A model as a program whose number of samples is free where that is possible.

    With `strict` PyTorch reads the model's own Python code, which takes longer and knows a number
    of samples also where the model makes a plain number of it, as `len(x)`.
    """
    along = _by_identity(inputs, axes)

    def free(tensor: Tensor) -> dict[int, Any] | None:
        axis = along[id(tensor)]
        return None if axis is None else {axis: torch.export.Dim.AUTO}

    positional, keywords = parted(inputs)
    # By the names that `forward` has for them: `*args` is one of these.
    given = signature(network.forward).bind(*positional, **(keywords or {})).arguments
    shapes = _structure_of(given, free)
    return torch.export.export(network, positional, keywords, dynamic_shapes=shapes, strict=strict)


def fixed_program(network: nn.Module, inputs: Any) -> torch.export.ExportedProgram:
    """The model as a program for the number of samples of the inputs."""
    return torch.export.export(network, *parted(inputs))


def _by_identity(inputs: Any, axes: Axes) -> dict[int, int | None]:
    """The axis of the samples in each tensor, by its identity."""
    return {id(tensor): axis for tensor, axis in zip(tensors_of(inputs), axes, strict=True)}


def parted(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
    """Arguments by position and by keyword."""
    return ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), None)


def _structure_of(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Nested tuples, lists and mappings with something else in the place of each tensor."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _structure_of(part, change) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_structure_of(part, change) for part in value)
    return None
