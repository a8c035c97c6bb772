"""The screen of all pairs as one kernel on a graphics card: no tile of cosines is ever written.

PyTorch writes a tile of the product to memory, reads it to compare and reads it again to collect
what is left. The kernel compares each tile where it is computed, and appends the few pairs that are
left to a list of bounded length. These are then computed in float64, so that the result is what it
is everywhere else. Where the list is too short, half as many rows are done at a time, and in the
end the tiles are PyTorch's.
"""

from __future__ import annotations

import functools
import importlib
import math
import threading
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateurs.extras import installed
from secateurs.prune.similarity.low_precision import Screen
from secateurs.prune.similarity.normalise import Directions
from secateurs.prune.similarity.tiles import Vectors, row_block

FROM_UNITS = 16_384  # below, the kernel saves less than it takes to compile it
ROWS = 65_536  # of the matrix of all pairs, done at a time
CAPACITY = 2**23  # pairs in the list of these rows: 64 MiB
SIDE = 2048  # of the squares of tiles that are done one after the other, and share a cache

Pairs = tuple[Tensor, Tensor, Tensor]
_lock = threading.Lock()


@dataclass(frozen=True)
class Tile:
    """How the kernel goes over the product."""

    block_i: int = 128
    block_j: int = 128
    block_k: int = 64  # columns of the matrix must be a multiple of it
    num_warps: int = 4
    num_stages: int = 3


TILE = Tile()


@functools.cache
def _kernels() -> Any:
    return importlib.import_module("secateurs.prune.similarity.kernels")


@functools.cache
def _failures() -> dict[str, str]:
    return {}


def usable(places: Sequence[torch.device], num_units: int) -> bool:
    """Whether all pairs of so many units are for the kernel, on every one of the devices."""
    return num_units >= FROM_UNITS and not any(map(obstacle, places))


def obstacle(device: torch.device) -> str | None:
    """Why the kernel cannot be used on a device; None where it can."""
    if device.type != "cuda":
        return "the kernel is for CUDA devices"
    if not installed("gpu"):
        return "Triton is not installed"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return "the device multiplies no bfloat16 matrices"
    return _failures().get(str(device))


def note_failure(device: torch.device, error: Exception) -> None:
    """Remember, and warn once, that the kernel failed on a device: PyTorch does the work there."""
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[-1] if lines else ''}"
    _failures()[str(device)] = reason
    warnings.warn(
        f"the Triton kernel for all pairs cannot be used on {device} ({reason}); "
        "PyTorch does the same work, more slowly",
        RuntimeWarning,
        stacklevel=2,
    )


def rows(prepared: Vectors, top: int, stop: int, tile: int) -> Pairs | None:
    """Pairs of rows with those after them, by one kernel; in parts where its list is too short."""
    device = prepared.units.device
    if obstacle(device) is None:
        try:
            found = beyond_rows(prepared, top, stop)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # what a compiler and a driver may raise is not documented
            note_failure(device, error)
            found = None
        if found is not None:
            return found
    half = -(-(stop - top) // 2)
    if half < tile or obstacle(device) is not None:
        tops = range(top, stop, tile)
        parts = [row_block(prepared, first, min(first + tile, stop), tile) for first in tops]
    else:
        parts = [rows(prepared, *part, tile) for part in ((top, top + half), (top + half, stop))]
    filled = [part for part in parts if part is not None]
    if not filled:
        return None
    i, j, cosine = (torch.cat(part) for part in zip(*filled, strict=True))
    return i, j, cosine


def beyond_rows(
    prepared: Vectors,
    top: int,
    stop: int,
    *,
    tile: Tile = TILE,
    side: int = SIDE,
    capacity: int = CAPACITY,
) -> Pairs | None:
    """Pairs beyond the limits of the rows from `top` to `stop` with all after them, in order.

    As rows, columns and float64 cosines. None when the screen leaves more than `capacity`.
    """
    keys = screened(prepared.screen, top, stop, tile=tile, side=side, capacity=capacity)
    if keys is None:
        return None
    num = len(prepared.units)
    i = keys.div(num, rounding_mode="floor")
    j = keys - i * num
    cosine = cosines(prepared.source, prepared.units[i], prepared.units[j])
    keep = prepared.limits.exactly(cosine).nonzero().flatten()
    return i[keep], j[keep], cosine[keep]


def screened(
    screen: Screen,
    top: int,
    stop: int,
    *,
    tile: Tile = TILE,
    side: int = SIDE,
    capacity: int = CAPACITY,
) -> Tensor | None:
    """The pairs that may be beyond, as row * units + column, sorted; None if > `capacity`.

    Of the rows from `top` to `stop` with all units after them. The terms of `screen` are apart.
    """
    if screen.least is None:
        return None
    assert screen.apart is not None and screen.matrix.shape[1] % tile.block_k == 0
    assert side % tile.block_i == 0 and side % tile.block_j == 0
    device, (num, width) = screen.matrix.device, screen.matrix.shape
    squares = torch.triu_indices(
        -(-(stop - top) // side), -(-(num - top) // side), device=device
    ).to(torch.int32)
    found = torch.empty(capacity, dtype=torch.int64, device=device)
    counter = torch.zeros(1, dtype=torch.int32, device=device)
    # The kernel's value is the screen's before it is turned round for opposite pairs.
    high, low = (0.0, screen.low) if screen.sign > 0 else (math.inf, 0.0)
    tiles = squares.shape[1] * (side // tile.block_i) * (side // tile.block_j)
    with _lock, _on(device):
        _kernels().screen_kernel[(tiles,)](
            screen.matrix,
            screen.apart,
            found,
            counter,
            squares,
            num,
            width,
            top,
            stop,
            high,
            low,
            capacity,
            SIDE=side,
            BLOCK_I=tile.block_i,
            BLOCK_J=tile.block_j,
            BLOCK_K=tile.block_k,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
            enable_fp_fusion=True,
        )
    count = int(counter)
    return None if count > capacity else found[:count].sort().values


def cosines(source: Directions, i: Tensor, j: Tensor) -> Tensor:
    """Float64 cosines of units i with units j, (pairs,), one after the other."""
    values = source.activations if source.by_unit is None else source.by_unit.T
    cosine = torch.empty(len(i), dtype=torch.float64, device=values.device)
    if len(i) == 0:
        return cosine
    pairs, samples = 16, 32
    with _lock, _on(values.device):
        _kernels().cosine_kernel[(-(-len(i) // pairs),)](
            values,
            values.stride(0),
            values.stride(1),
            source.scale,
            source.offset,
            source.inverse_norm,
            i,
            j,
            cosine,
            len(i),
            source.num_samples,
            IS_DOUBLE=values.dtype == torch.float64,
            BLOCK_P=pairs,
            BLOCK_S=samples,
            num_warps=4,
            enable_fp_fusion=True,
        )
    return cosine.clamp_(-1, 1)


def _on(device: torch.device) -> AbstractContextManager[object]:
    # Triton launches on the current device, whatever its arguments lie on.
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
