"""Exact cosine thresholds on tiles of the matrix of all pairs, which is never held whole.

A tile is first computed in a small type, to rule out. With u, v unit vectors, u', v' their rounded
forms and rho the largest |u - u'|, measured when they are rounded,
|<u, v> - <u', v'>| <= 2 rho + rho^2, and summing n products in float32 in any order adds at most
about n * 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); four times
that is allowed for units that truncate. Rounding the tile itself to bfloat16 is monotone, so a
threshold rounded the same way loses nothing. Where bfloat16 leaves many pairs of a tile, float32 is
tried next. Every pair that is left in the end is computed in float64: the screen decides speed,
never the result. A cosine within `TIE` of a threshold counts as equal to it, and hence as not
beyond it.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.normalise import Directions

TIE = 4e-15  # float64 rounding of a cosine from unit vectors
PAIRS_AT_A_TIME = 64  # their float64 vectors stay in the cache
MANY = 50  # one pair by itself costs as much as so many in a matrix product
SAMPLE = 256  # units on which the screen is tried
HELD_BYTES = 512 * 2**20  # float64 vectors are held up to this size, else made when needed


@dataclass(frozen=True)
class Thresholds:
    """Cosines beyond which a pair is similar (`above`) or opposite (`below`); None: never."""

    above: float | None
    below: float | None

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
    screen: Tensor  # (rows, samples) bfloat16 or float32
    held: Tensor | None  # (rows, samples) float64, None when it would be too large
    error: float  # largest error of a cosine from two rows of `screen`

    @functools.cached_property
    def single(self) -> Tensor:
        """(rows, samples) float32, for tiles of which a bfloat16 screen leaves too much."""
        if self.held is not None:
            return self.held.float()
        result = torch.empty(self.screen.shape, device=self.units.device)
        for part, exact in self.source.pieces(self.units):
            result[part] = exact
        return result

    @property
    def single_error(self) -> float:
        """Largest error of a cosine from two rows of `single`."""
        return (self.source.num_samples + 8) * 2.0**-23

    def is_enough(self, limits: Thresholds) -> bool:
        """Whether the screen leaves few pairs, judged by a sample of the units."""
        step = max(1, len(self.units) // SAMPLE)
        rows = torch.arange(0, len(self.units), step, device=self.units.device)
        if len(rows) < 2:
            return True
        cosine = _product(self.screen, rows, rows)
        most = (cosine.numel() - len(rows)) // MANY + len(rows)
        return _possible(cosine, limits, self.error, most) is not None

    def exact(self, rows: Tensor) -> Tensor:
        """Float64 unit vectors, (len(rows), samples)."""
        if self.held is None:
            return self.source.exact(self.units[rows])
        return self.held.index_select(0, rows)

    def pairs(self, i: Tensor, j: Tensor) -> Tensor:
        """Float64 cosines of the rows i with the rows j, (pairs,)."""
        result = torch.empty(len(i), dtype=torch.float64, device=i.device)
        step = PAIRS_AT_A_TIME if i.device.type == "cpu" and self.held is not None else 4096
        for start in range(0, len(i), step):
            part = slice(start, start + step)
            result[part] = torch.linalg.vecdot(self.exact(i[part]), self.exact(j[part]))
        return result.clamp_(-1, 1)

    def tile(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Float64 cosines of all of `rows` with all of `columns`."""
        return (self.exact(rows) @ self.exact(columns).T).clamp_(-1, 1)

    def beyond(
        self, rows: Tensor, columns: Tensor, limits: Thresholds, *, upper: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs of a tile beyond the limits: positions in `rows`, in `columns`, float64 cosine.

        Ordered by row, then column; `upper` leaves out the diagonal and what is below it.
        """
        size = len(rows) * len(columns)
        flat = _possible(_product(self.screen, rows, columns), limits, self.error, size // MANY)
        if flat is None and self.screen.dtype != torch.float32:
            flat = _possible(_product(self.single, rows, columns), limits, self.single_error, size)
        if flat is None:
            flat = torch.arange(size, device=rows.device)
        r = flat.div(len(columns), rounding_mode="floor")
        c = flat - r * len(columns)
        if upper:
            keep = r < c
            r, c = r[keep], c[keep]
        if len(r) * MANY < len(rows) * len(columns):
            value = self.pairs(rows[r], columns[c])
        else:
            value = self.tile(rows, columns)[r, c]
        keep = limits.exactly(value).nonzero().flatten()
        return r[keep], c[keep], value[keep]


def _product(vectors: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Products of all of `rows` with all of `columns`, in the type of the vectors."""
    return _select(vectors, rows) @ _select(vectors, columns).T


def _select(vectors: Tensor, rows: Tensor) -> Tensor:
    """Rows of a matrix, as a view when they follow each other."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first == len(rows) - 1 and bool((rows[1:] > rows[:-1]).all()):
        return vectors[first : last + 1]
    return vectors.index_select(0, rows)


def _possible(cosine: Tensor, limits: Thresholds, error: float, most: int) -> Tensor | None:
    """Flat positions of all cosines that may be beyond the limits when off by at most `error`.

    None when there are more than `most`.
    """
    above = None if limits.above is None else limits.above - error
    below = None if limits.below is None else limits.below + error
    lowest, highest = torch.aminmax(cosine)
    # Rounded to the tile's type, as the tile was.
    bounds = torch.tensor([above or 0.0, below or 0.0], dtype=torch.float64).to(cosine.dtype)
    similar = above is not None and bool(highest.cpu() >= bounds[0])
    opposite = below is not None and bool(lowest.cpu() <= bounds[1])
    if not similar and not opposite:
        return torch.empty(0, dtype=torch.int64, device=cosine.device)
    low, high = bounds.tolist()
    if cosine.device.type == "cpu" and cosine.dtype == torch.bfloat16 and similar and low > 0:
        # Positive bfloat16 are ordered as their bits, and NumPy compares those far faster.
        bits = int(bounds[:1].view(torch.int16))
        mask = torch.from_numpy(cosine.view(torch.int16).numpy() >= bits)
        if opposite:
            mask.logical_or_(cosine <= high)
    elif not opposite:
        mask = cosine >= low
    elif not similar:
        mask = cosine <= high
    else:
        mask = (cosine >= low).logical_or_(cosine <= high)
    if int(mask.count_nonzero()) > most:
        return None
    if mask.device.type == "cpu":
        return torch.from_numpy(mask.numpy().ravel().nonzero()[0])
    return mask.flatten().nonzero().flatten()


def vectors(
    source: Directions, units: Tensor, limits: Thresholds, *, screen: torch.dtype | None = None
) -> Vectors:
    """Prepare the units given; `screen` is bfloat16 or float32, by default what is faster here."""
    dtype = screen or screening_type(units.device.type)
    shape = (len(units), source.num_samples)
    rounded = torch.empty(shape, dtype=dtype, device=units.device)
    held = None
    if shape[0] * shape[1] * 8 <= HELD_BYTES:
        held = torch.empty(shape, dtype=torch.float64, device=units.device)
    residual = 0.0
    for part, exact in source.pieces(units):
        rounded[part] = exact
        if held is not None:
            held[part] = exact
        lost = torch.linalg.vector_norm(exact.sub_(rounded[part]), dim=1)
        residual = max(residual, float(lost.amax()))
    rho = residual + 1e-12
    summed = (source.num_samples + 8) * 2.0**-22
    prepared = Vectors(source, units, rounded, held, 2 * rho + rho * rho + summed)
    if screen is None and dtype != torch.float32 and not prepared.is_enough(limits):
        return replace(prepared, screen=prepared.single, error=prepared.single_error)
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
