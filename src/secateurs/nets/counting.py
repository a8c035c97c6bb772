"""Parameters and multiply-accumulates of a network, counted on shapes alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torchvision.ops  # noqa: F401  # pyright: ignore[reportUnusedImport] (its operations)
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from secateurs.nets.batches import Batch, Run, forward, samples, without_values
from secateurs.nets.runnable import runnable
from secateurs.nets.trace import skeleton

Shape = Sequence[int]


def num_parameters(model: nn.Module) -> int:
    """How many parameters a network has.

    >>> num_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, batch: Batch, *, run: Run = forward) -> int:
    """Multiply-accumulates of every product of matrices and every convolution for one sample.

    Linear layers, convolutions of any kind, attention, einsum, recurrent and bilinear layers, also
    where a network calls them as functions. The sample is the first of the batch. Counted by
    PyTorch's own counter of floating point operations, two of which are one multiply-accumulate;
    nothing is computed, unless the network's way depends on values, and the model is left as it is.

    >>> macs(nn.Conv2d(3, 4, 3), torch.empty(1, 3, 10, 10))
    6912
    """
    try:
        return _counted(skeleton(model), without_values(samples(batch, slice(0, 1))), run)
    except Exception:  # it needs values to run, or does not run at all
        return _counted(*runnable(model, batch, run), run)


def _counted(model: nn.Module, sample: Batch, run: Run) -> int:
    model.requires_grad_(False)  # the counter follows gradients
    # A fused attention kernel would hide its products from the counter.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        counter = FlopCounterMode(display=False, custom_mapping=_others())
        with counter, torch.no_grad():
            run(model, sample)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops() // 2


def _others() -> dict[Any, Callable[..., int]]:
    """Floating point operations of what PyTorch's counter leaves out, from shapes."""
    aten = torch.ops.aten
    return {
        aten.dot: lambda a, b, **_: 2 * math.prod(a),
        aten.vdot: lambda a, b, **_: 2 * math.prod(a),
        aten.mv: lambda a, b, **_: 2 * math.prod(a),
        aten.addmv: lambda _, a, b, **__: 2 * math.prod(a),
        aten.addbmm: lambda _, a, b, **__: 2 * math.prod(a) * b[-1],
        aten._trilinear: _trilinear,
        aten._cdist_forward: lambda a, b, *_, out_shape, **__: 2 * math.prod(out_shape) * a[-1],
        aten.conv_tbc: lambda _, w, *__, out_shape, **___: 2 * math.prod(out_shape) * w[0] * w[1],
        torch.ops.torchvision.deform_conv2d: _deform_conv2d,
    }


def _trilinear(
    first: Shape,
    second: Shape,
    third: Shape,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    *_: object,
    **__: object,
) -> int:
    shapes = [
        _unsqueezed(shape, axes)
        for shape, axes in ((first, expand1), (second, expand2), (third, expand3))
    ]
    return 2 * math.prod(map(max, *shapes))


def _unsqueezed(shape: Shape, axes: Sequence[int]) -> list[int]:
    full = list(shape)
    for axis in sorted(axes):
        full.insert(axis, 1)
    return full


def _deform_conv2d(_: Shape, weight: Shape, *__: object, out_shape: Shape, **___: object) -> int:
    return 2 * math.prod(out_shape) * math.prod(weight[1:])
