"""Exact cosine thresholds on tiles of the matrix of all pairs, which is never held whole.

A tile is first screened in a small type (see `screen`), to rule out. Where bfloat16 leaves many
pairs of a tile, float32 is tried next. Every pair that is left in the end is computed in float64:
the screen decides speed, never the result. A cosine within `TIE` of a threshold counts as equal to
it, and hence as not beyond it.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.similarity.low_precision import Screen, common_vector, make_screen
from secateurs.prune.similarity.normalise import Directions

TIE = 4e-15  # float64 rounding of a cosine from unit vectors
PAIR_NUMBERS = 2**17  # of the vectors made for pairs, so many stay in a CPU's cache
DEVICE_PAIR_NUMBERS = 2**22
MANY = 50  # one pair by itself costs as much as so many in a matrix product
SAMPLE = 256  # units on which the screen is tried


@dataclass(frozen=True)
class Thresholds:
    """Cosines beyond which a pair is similar (`above`) or opposite (`below`); None: never."""

    above: float | None
    below: float | None

    @property
    def any(self) -> bool:
        """Whether there is a threshold at all."""
        return self.above is not None or self.below is not None

    def exactly(self, cosine: Tensor) -> Tensor:
        """Decide float64 cosines."""
        if self.below is None:
            return cosine > (2 if self.above is None else self.above + TIE)
        if self.above is None:
            return cosine < self.below - TIE
        return (cosine > self.above + TIE).logical_or_(cosine < self.below - TIE)


def thresholds(low_deg: float, high_deg: float | None) -> Thresholds:
    """Cosines of two angles in degrees; raises InputError unless 0 <= low < high <= 180.

    >>> thresholds(60, None)
    Thresholds(above=0.5000000000000001, below=None)
    """
    high = 180.0 if high_deg is None else high_deg
    for name, value in (("low_deg", low_deg), ("high_deg", high)):
        if not 0 <= value <= 180:
            raise InputError(f"{name}: expected an angle within 0..180 degrees, got {value}")
    if low_deg >= high:
        raise InputError(f"low_deg: expected less than high_deg, got {low_deg} >= {high}")
    return Thresholds(
        above=math.cos(math.radians(low_deg)) if low_deg > 0 else None,
        below=math.cos(math.radians(high)) if high < 180 else None,
    )


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of some units, for screening and for deciding; row k belongs to `units[k]`."""

    source: Directions
    units: Tensor  # (rows,) int64
    limits: Thresholds
    screen: Screen
    common: Tensor | None  # (samples,) float64, what the screen takes out
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def single(self) -> Screen:
        """A float32 screen, for tiles of which a bfloat16 screen leaves too much; made once."""
        with self.lock:
            return self._single

    @functools.cached_property
    def _single(self) -> Screen:
        return make_screen(
            self.source,
            self.units,
            above=self.limits.above,
            below=self.limits.below,
            dtype=torch.float32,
            common=self.common,
        )

    def is_enough(self) -> bool:
        """Whether the screen leaves few pairs, judged by a sample of the units."""
        step = max(1, len(self.units) // SAMPLE)
        rows = torch.arange(0, len(self.units), step, device=self.units.device)
        most = (len(rows) ** 2 - len(rows)) // MANY + len(rows)
        return len(rows) < 2 or self.screen.possible(rows, rows, most) is not None

    def exact(self, rows: Tensor) -> Tensor:
        """Float64 unit vectors, (len(rows), samples)."""
        return self.source.exact(self.units[rows])

    def pairs(self, i: Tensor, j: Tensor) -> Tensor:
        """Float64 cosines of the rows i with the rows j, (pairs,)."""
        result = torch.empty(len(i), dtype=torch.float64, device=i.device)
        numbers = PAIR_NUMBERS if i.device.type == "cpu" else DEVICE_PAIR_NUMBERS
        step = max(16, min(4096, numbers // self.source.num_samples))
        for start in range(0, len(i), step):
            part = slice(start, start + step)
            result[part] = torch.linalg.vecdot(self.exact(i[part]), self.exact(j[part]))
        return result.clamp_(-1, 1)

    def tile(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Float64 cosines of all of `rows` with all of `columns`."""
        return (self.exact(rows) @ self.exact(columns).T).clamp_(-1, 1)

    def beyond(
        self, rows: Tensor, columns: Tensor, *, upper: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs of a tile beyond the limits: positions in `rows`, in `columns`, float64 cosine.

        Ordered by row, then column; `upper` leaves out the diagonal and what is below it.
        """
        size = len(rows) * len(columns)
        small = self.screen.matrix.dtype != torch.float32
        most = size // MANY + (len(rows) if upper else 0)
        flat = self.screen.possible(rows, columns, most if small else size)
        if flat is None and small:
            flat = self.single.possible(rows, columns, size)
        if flat is None:
            flat = torch.arange(size, device=rows.device)
        r = flat.div(len(columns), rounding_mode="floor")
        c = flat - r * len(columns)
        if upper:
            keep = r < c
            r, c = r[keep], c[keep]
        if len(r) * MANY < size:
            value = self.pairs(rows[r], columns[c])
        else:
            value = self.tile(rows, columns)[r, c]
        keep = self.limits.exactly(value).nonzero().flatten()
        return r[keep], c[keep], value[keep]


def row_block(
    prepared: Vectors, top: int, stop: int, tile: int
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Pairs of rows with those after them, as rows and cosine, in tiles; None if none.

    There are at most `tile` rows.
    """
    rows = torch.arange(len(prepared.units), device=prepared.units.device)
    row: list[tuple[Tensor, Tensor, Tensor]] = []
    for left in range(top, len(rows), tile):
        r, c, cosine = prepared.beyond(rows[top:stop], rows[left : left + tile], upper=left == top)
        if len(r):
            row.append((r + top, c + left, cosine))
    if len(row) < 2:
        return row[0] if row else None
    r, c, cosine = (torch.cat(part) for part in zip(*row, strict=True))
    order = torch.argsort(r, stable=True)
    return r[order], c[order], cosine[order]


def vectors(
    source: Directions,
    units: Tensor,
    limits: Thresholds,
    *,
    screen: torch.dtype | None = None,
    apart: int | None = None,
) -> Vectors:
    """Prepare the units given; `screen` is bfloat16 or float32, by default what is faster here.

    There is to be at least one unit and one threshold. `apart` is for a kernel, see `make_screen`.
    """
    assert limits.any and len(units)
    dtype = screen or screening_type(units.device.type)
    common = common_vector(source, units, SAMPLE)
    rounded = make_screen(
        source,
        units,
        above=limits.above,
        below=limits.below,
        dtype=dtype,
        common=common,
        apart=apart if dtype == torch.bfloat16 else None,
    )
    prepared = Vectors(source, units, limits, rounded, common)
    if screen is None and dtype != torch.float32 and not prepared.is_enough():
        return replace(prepared, screen=prepared.single)
    return prepared


@functools.cache
def screening_type(device: str) -> torch.dtype:
    """Type of the screen: bfloat16 where its products are faster (measured once), else float32."""
    if device == "cuda":
        return torch.bfloat16
    if device != "cpu":
        return torch.float32
    seconds: dict[torch.dtype, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(512, 384, dtype=dtype)
        trials: list[float] = []
        for _ in range(4):
            started = time.perf_counter()
            _ = matrix @ matrix.T
            trials.append(time.perf_counter() - started)
        seconds[dtype] = min(trials)
    return torch.bfloat16 if seconds[torch.bfloat16] < seconds[torch.float32] else torch.float32


@contextmanager
def full_precision() -> Generator[None]:
    """Keep sums in float32 (no TF32, no bfloat16 reductions), whatever the caller has set."""
    before = torch.get_float32_matmul_precision()
    matmul = torch.backends.cuda.matmul
    reduced = matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        matmul.allow_bf16_reduced_precision_reduction = reduced
