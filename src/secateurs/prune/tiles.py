"""Exact cosine thresholds on tiles of the matrix of all pairs, which is never held whole.

A tile is computed in float32. The error of such a product of unit vectors of n samples is below
(n + 4) * 2^-24 whatever the order of summation (Higham, Accuracy and Stability of Numerical
Algorithms, section 3.1), so only entries nearer than that to a threshold are computed again, in
float64, as are the angles that are reported. A cosine within `TIE` of a threshold counts as equal
to it, and hence as not beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.normalise import Directions

TIE = 4e-15  # float64 rounding of a cosine from unit vectors
PAIRS_AT_A_TIME = 2048
MANY = 100  # a pair by itself costs as much as so many in a matrix product


@dataclass(frozen=True)
class Thresholds:
    """Cosines beyond which a pair is similar (`above`) or opposite (`below`); None: never."""

    above: float | None
    below: float | None

    def exactly(self, cosine: Tensor) -> Tensor:
        """Decide float64 cosines."""
        result = torch.zeros_like(cosine, dtype=torch.bool)
        if self.above is not None:
            result |= cosine > self.above + TIE
        if self.below is not None:
            result |= cosine < self.below - TIE
        return result

    def possibly(self, cosine: Tensor, error: float) -> Tensor:
        """All that can pass when cosines are off by at most `error`; certainly: minus `error`."""
        if self.above is None and self.below is None:
            return torch.zeros_like(cosine, dtype=torch.bool)
        if self.below is None:
            assert self.above is not None
            return cosine > self.above - error
        if self.above is None:
            return cosine < self.below + error
        return (cosine > self.above - error).logical_or_(cosine < self.below + error)


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


def product_error(num_samples: int) -> float:
    """Largest error of a float32 cosine from float32-rounded unit vectors of that length."""
    return (num_samples + 4) * 2.0**-24 * (1 + 1e-3)


@contextmanager
def full_precision() -> Generator[None]:
    """Keep float32 products in float32 (no TF32, no bfloat16), whatever the caller has set."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def pair_cosines(source: Directions, i: Tensor, j: Tensor) -> Tensor:
    """Float64 cosines of the pairs (i, j) of units, (pairs,)."""
    result = torch.empty(len(i), dtype=torch.float64, device=i.device)
    for start in range(0, len(i), PAIRS_AT_A_TIME):
        part = slice(start, start + PAIRS_AT_A_TIME)
        result[part] = (source.exact(i[part]) * source.exact(j[part])).sum(1)
    return result.clamp_(-1, 1)


def tile_cosines(source: Directions, rows: Tensor, columns: Tensor) -> Tensor:
    """Float64 cosines of all units in `rows` with all in `columns`, (rows, columns)."""
    return (source.exact(rows) @ source.exact(columns).T).clamp_(-1, 1)


def exact_cosines(
    source: Directions, rows: Tensor, columns: Tensor, r: Tensor, c: Tensor
) -> Tensor:
    """Float64 cosines of rows[r] with columns[c], (pairs,): by pairs, or all when they are many."""
    if len(r) * MANY < len(rows) * len(columns):
        return pair_cosines(source, rows[r], columns[c])
    return tile_cosines(source, rows, columns)[r, c]
