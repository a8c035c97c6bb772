"""A user's model made ready: unwrapped, copied, in float32, and how it runs on a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.nets.batches import Batch, Run, forward, map_tensors
from secateurs.nets.trace import copied, tensors_of

HALF = (torch.float16, torch.bfloat16)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside `torch.compile`, DataParallel or DistributedDataParallel.

    >>> type(unwrapped(nn.DataParallel(nn.Linear(2, 2)))).__name__
    'Linear'
    """
    if not isinstance(model, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def own_copy(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose half-precision parameters and buffers are float32."""
    return copied(
        unwrapped(model),
        lambda tensor: (
            tensor.to(torch.float32, copy=True) if tensor.dtype in HALF else tensor.clone()
        ),
    ).eval()


def half_type(model: nn.Module) -> torch.dtype | None:
    """The half-precision type that most of a model's parameters have; None for other models."""
    counts = {
        dtype: sum(p.numel() for p in model.parameters() if p.dtype == dtype) for dtype in HALF
    }
    most = max(HALF, key=counts.__getitem__)
    return most if counts[most] > sum(p.numel() for p in model.parameters()) / 2 else None


def on_device(batch: Batch, model: nn.Module) -> Batch:
    """A batch on the device of a model, its half-precision numbers as float32.

    Raises InputError for tensors that have shapes and no values.
    """
    if any(tensor.is_meta for tensor in tensors_of(batch)):
        raise InputError("batch: its tensors have shapes and no values (device meta)")
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    return map_tensors(
        batch,
        lambda tensor: tensor.to(device, torch.float32 if tensor.dtype in HALF else tensor.dtype),
    )


def call_with(example_inputs: Any) -> Any:
    """Example inputs as a batch for `call`: a tuple holds all arguments, a mapping all keywords."""
    if isinstance(example_inputs, tuple | Mapping):
        return example_inputs
    return (example_inputs,)


def call(model: nn.Module, inputs: Any) -> object:
    """Call a model with example inputs, as `torch.export` does."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs)


def run_with(
    run: Callable[[nn.Module, Batch], object] | None, outputs: Callable[[Any], object] | None
) -> Run:
    """How a model is run on a batch, and which part of what it returns has to be kept."""
    plain = run or forward
    if outputs is None:
        return plain
    return lambda model, batch: outputs(plain(model, batch))
