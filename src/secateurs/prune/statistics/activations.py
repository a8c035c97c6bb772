"""Activations of a layer, collected over batches while the network runs as it would for use."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sized
from contextlib import ExitStack, contextmanager
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.layers import CONVOLUTIONS, LAYERS, TRANSPOSED
from secateurs.nets.trace import eval_mode

Positions = Literal["all", "mean", "sample"]


@contextmanager
def recording(module: nn.Module) -> Generator[list[Tensor]]:
    """Collect each output of `module` while the context is open, copied before anything after it.

    A copy, because the non-linearity that follows may work in place.
    """
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor) -> None:
        outputs.append(output.detach().clone())

    handle = module.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


def collect(
    run: Callable[[Tensor], object],
    module: nn.Module,
    batches: Iterable[Tensor],
    *,
    after: Callable[[Tensor], Tensor] | None = None,
    model: nn.Module | None = None,
    dtype: torch.dtype = torch.float32,
    positions: Positions | None = None,
    unit_axis: int | None = None,
    num_positions: int = 16,
    seed: int = 0,
) -> Tensor:
    """Activations (samples, units) of `module`, in the order of the batches, on their device.

    `run` sends a batch through the network, for instance the network itself; everything in `model`
    (default: `run` when it is a module, else `module`) is in eval mode meanwhile and gets its own
    modes back. `after` is the elementwise non-linearity that follows. The result is stored in
    `dtype`, float32 or bfloat16.

    An output with more than two axes needs `positions`: "all" makes every position of an image a
    further sample, one after the other; "mean" is the mean over them; "sample" keeps
    `num_positions` of each image (all when there are fewer), drawn by `seed` and the image's place
    in the order, however batches are cut. The units are on `unit_axis`, by default the second for a
    convolution and the last for a linear layer.

    Where `batches` has a length no more is held than the result and one batch. Raises InputError
    when `module` is not reached or runs more than once a batch, when its output does not fit the
    options, and when there is no batch.

    >>> layer = nn.Linear(2, 3)
    >>> collect(nn.Sequential(layer, nn.ReLU()), layer, [torch.ones(4, 2)], after=torch.relu).shape
    torch.Size([4, 3])
    >>> layer = nn.Conv2d(3, 5, 3)
    >>> collect(layer, layer, [torch.ones(2, 3, 8, 8)], positions="all").shape
    torch.Size([72, 5])
    """
    if dtype not in (torch.float32, torch.bfloat16):
        raise InputError(f"collect: dtype: expected float32 or bfloat16, got {dtype}")
    if positions is not None and positions not in get_args(Positions):
        words = ", ".join(get_args(Positions))
        raise InputError(f"collect: positions: expected one of {words}, got {positions!r}")
    if num_positions < 1:
        raise InputError(f"collect: num_positions: expected at least 1, got {num_positions}")
    if model is None:
        model = run if isinstance(run, nn.Module) else module
    rows = _Rows(len(batches) if isinstance(batches, Sized) else None, dtype)
    images = 0
    changed = [model, module, *([after] if isinstance(after, nn.Module) else [])]
    with torch.no_grad(), ExitStack() as stack:
        for part in changed:
            stack.enter_context(eval_mode(part))
        for batch in batches:
            with recording(module) as outputs:
                run(batch)
            if len(outputs) != 1:
                raise InputError(
                    f"collect: expected the layer to run once a batch, it ran {len(outputs)} times"
                )
            output = outputs.pop()
            axis = _unit_axis(module, output, positions, unit_axis)
            if after is not None:
                output = after(output)
            output = output.movedim(axis, -1)
            output = output.reshape(len(output), -1, output.shape[-1])  # (images, positions, units)
            if output.shape[1] != 1 and positions == "mean":
                output = output.mean(1, keepdim=True, dtype=torch.float32)
            if positions == "sample" and output.shape[1] > num_positions:
                output = _drawn(output, num_positions, seed, images)
            rows.append(output.flatten(0, 1))
            images += len(output)
    return rows.result()


def _unit_axis(
    module: nn.Module, output: Tensor, positions: Positions | None, axis: int | None
) -> int:
    """Where the units are; raises InputError unless the output fits the options."""
    shape = tuple(output.shape)
    if output.ndim < 2 or (output.ndim > 2 and positions is None):
        raise InputError(
            f"collect: expected an output of (samples, units), got shape {shape}"
            + ("; say what to do with positions: all, mean or sample" if output.ndim > 2 else "")
        )
    if axis is None:
        if output.ndim > 2 and not isinstance(module, LAYERS):
            raise InputError(
                f"collect: a {type(module).__name__} gave shape {shape}; say by unit_axis where "
                "its units are"
            )
        axis = 1 if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)) else -1
    if not -output.ndim < axis < output.ndim or axis == 0:
        raise InputError(
            f"collect: unit_axis: expected an axis of {shape} after the first, got {axis}"
        )
    return axis


def _drawn(output: Tensor, num_positions: int, seed: int, first: int) -> Tensor:
    """Keep `num_positions` of (images, positions, units), other ones for each image."""
    images, positions, units = output.shape
    drawn = [
        np.random.default_rng((seed, first + k)).choice(positions, num_positions, replace=False)
        for k in range(images)
    ]
    index = torch.from_numpy(np.sort(np.stack(drawn), axis=1)).to(output.device)
    return output.gather(1, index[:, :, None].expand(-1, -1, units))


class _Rows:
    """Rows of a matrix that come in parts, held once where the number of parts is known."""

    def __init__(self, num_parts: int | None, dtype: torch.dtype) -> None:
        self.num_parts = num_parts
        self.dtype = dtype
        self.held: Tensor | None = None  # its first `used` rows are filled
        self.used = 0
        self.parts: list[Tensor] = []  # what did not fit

    def append(self, part: Tensor) -> None:
        """Copy rows (samples, units); raises InputError unless they are as wide as those before."""
        before = self.held if self.held is not None else (self.parts or [part])[0]
        if before.shape[1] != part.shape[1]:
            raise InputError(
                f"collect: expected {before.shape[1]} units in every batch, got {part.shape[1]}"
            )
        if self.held is None and self.num_parts is not None:
            size = (len(part) * self.num_parts, part.shape[1])
            self.held = torch.empty(size, dtype=self.dtype, device=part.device)
        if self.held is not None and not self.parts and self.used + len(part) <= len(self.held):
            self.held[self.used : self.used + len(part)] = part
            self.used += len(part)
        else:
            self.parts.append(part.to(self.dtype, copy=True))

    def result(self) -> Tensor:
        """All rows in order; raises InputError when there are none."""
        if self.held is not None:
            self.parts.insert(0, self.held[: self.used])
        if not self.parts:
            raise InputError("collect: no batch to run")
        return self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts)
