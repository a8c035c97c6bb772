"""A first look at a tile of cosines in a small type, which rules out and never decides.

All the vectors of a layer can point nearly one way (after a min-max mapping they do), and rounding
unit vectors to bfloat16 then hides every difference. So a common vector m is taken out first: with
r = u - m, |<r_i, r_j>| is small, and

    <u_i, u_j> - s = <r_i, r_j> + a_i + a_j    where    a_i = <u_i, m> - <m, m> / 2 - s / 2

for any shift s. With s the cosine of a threshold, what is compared with it is compared with zero,
where a rounded result is sharpest: the rounding of the tile itself keeps signs. The numbers a_i are
appended to the vectors as columns, in as many terms as their type needs, each facing a one; or
they stay apart, in float32, where a kernel adds them to the product before anything is rounded.

The bound. Let r' be r rounded and |r_i - r'_i| <= e n_i for all i, where n_i >= |r_i| and e is
measured (with what making r in float32 can lose, where float64 is not needed for it). Then

    |<r_i, r_j> - <r'_i, r'_j>| <= (2 e + e^2) n_i n_j <= (e + e^2 / 2) (n_i^2 + n_j^2).

Adding k products in float32 in any order errs by at most about k 2^-24 times the sum of their sizes
(Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), four times that where a unit
truncates; the sizes add up to at most (1 + e)^2 (n_i^2 + n_j^2) / 2 + 2 |a_i| + 2 |a_j|. Both
bounds are a sum of one number for each of the two units, so each is added to its a_i: no pair
beyond the threshold then comes out negative. Units far from m pay for themselves alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from secateurs.prune.similarity.normalise import Directions, piece_size
from secateurs.prune.similarity.workers import each

ALIGN = 32  # columns that matrix units take at a time
SLACK = 1e-9  # far above what float32 flushes to zero, far below any rounding here
SMALL = 1e-6  # added to lengths, so that none is zero
FAR = 16  # a mean so many deviations from zero costs four of float32's 24 bits
COMMON = 0.1  # a common vector with less than this of the squared length is not worth taking out
BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
TERMS = {torch.bfloat16: 3, torch.float32: 1}


@dataclass(frozen=True)
class Screen:
    """Rounded residuals of unit vectors with their terms; row k belongs to the k-th unit.

    `value` of a pair is at least cosine - shift (shift - cosine if `sign` is -1) and at most
    `slack` more. A pair may be beyond a limit when the bits of its value, read as a signed integer,
    are at least `least`: all positive numbers are, and the negative ones from some size on.
    """

    matrix: Tensor  # (rows, width): residual, terms, ones, zeros; without terms and ones if apart
    num_samples: int
    shift: float
    sign: int
    slack: float
    least: int | None  # None: nothing can be ruled out
    low: float  # the same for a value in float32: what is negative and above this is ruled out
    apart: Tensor | None = None  # (rows,) float32, the terms, where they are no columns

    def value(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Bounds from above of all of `rows` with all of `columns`, in the type of the screen.

        In float32 where the terms are apart: they must not be rounded to less.
        """
        if self.apart is not None:
            product = select(self.matrix, rows).float() @ select(self.matrix, columns).float().T
            total = (product + self.apart[rows][:, None]).add_(self.apart[columns])
            return total if self.sign > 0 else total.neg_()
        # A copy in which terms and ones change places, so that they face each other.
        left = select(self.matrix, rows).clone()
        terms, first = TERMS[self.matrix.dtype], self.num_samples
        left[:, first + terms : first + 2 * terms] = left[:, first : first + terms]
        left[:, first : first + terms] = 1
        if self.sign < 0:
            left.neg_()
        return left @ select(self.matrix, columns).T

    def possible(self, rows: Tensor, columns: Tensor, most: int) -> Tensor | None:
        """Flat positions in a tile of all pairs that may be beyond, in order; None if > `most`."""
        if self.least is None:
            return None
        value = self.value(rows, columns)
        bits = value.view(BITS[value.dtype])
        return (at_least_numpy if bits.device.type == "cpu" else at_least)(bits, self.least, most)


def make_screen(
    source: Directions,
    units: Tensor,
    *,
    above: float | None,
    below: float | None,
    dtype: torch.dtype,
    common: Tensor | None,
    apart: int | None = None,
) -> Screen:
    """Round the units given for pairs with a cosine over `above` or under `below`, in `dtype`.

    There is at least one unit and one limit. `common` (samples,) float64 is taken out of the unit
    vectors. With `apart` the terms are no columns of the matrix, and so many columns go together.
    """
    shift, sign = (above, 1) if above is not None else (below, -1)
    assert shift is not None
    samples, terms = source.num_samples, 0 if apart else TERMS[dtype]
    align = apart or ALIGN
    width = -(-(samples + 2 * terms) // align) * align
    matrix = torch.zeros((len(units), width), dtype=dtype, device=units.device)
    towards = torch.zeros(len(units), dtype=torch.float64, device=units.device)
    lost = torch.zeros(len(units), dtype=torch.float32, device=units.device)
    cheap = in_single(source, units)
    taken = None if common is None else common.float()
    step = piece_size(source.activations)

    def fill_in(start: int) -> None:
        part = slice(start, start + step)
        if cheap is None:
            exact = source.exact(units[part])
            if common is not None:
                torch.mv(exact, common, out=towards[part])
                exact = exact.sub_(common)
            residual = exact.float()
        else:
            residual = source.values(units[part]).float()
            if common is not None:
                torch.mv(residual.double(), common, out=towards[part])
            residual = residual.sub_(cheap.offset[part, None]).mul_(cheap.gain[part, None])
            if taken is not None:
                residual = residual.sub_(taken)
        rounded = matrix[part, :samples]
        rounded.copy_(residual)
        if dtype != torch.float32:
            torch.linalg.vector_norm(residual.sub_(rounded), dim=1, out=lost[part])

    pieces = range(0, len(units), step)
    each(fill_in, pieces, numbers=step * samples, device=units.device)
    square = 0.0 if common is None else float(common @ common)
    if cheap is not None and common is not None:
        towards = (towards - source.offset[units] * common.sum()) * source.inverse_norm[units]
    n_squared = ((1 - 2 * towards + square).clamp_(min=0).sqrt_() + SMALL) ** 2
    # The sum in `lost` rounds; 2^-23: the last step to float32.
    lost = lost * (1 + samples * 2.0**-24) + (0.0 if cheap is None else cheap.error)
    e = float((lost / n_squared.sqrt()).max()) * (1 + 2.0**-16) + 2.0**-23
    summed = (width + 8) * 2.0**-22
    term = towards - square / 2 - shift / 2
    error = (e + e * e / 2 + summed * (1 + e) ** 2 / 2) * n_squared
    # 2^-22: what is lost of a term; its sums are taken on itself with its error.
    error = (error + (2 * summed + 2.0**-22) * term.abs() + SLACK) * (1 + 4 * summed)
    rest = term + sign * error
    for k in range(terms):
        matrix[:, samples + k] = rest
        rest = rest - matrix[:, samples + k]
    matrix[:, samples + terms : samples + 2 * terms] = 1
    slack = 4 * float(error.amax())
    # Of what `value` is in.
    kind = torch.float32 if apart else dtype
    least: int | None = 0
    low = -math.inf
    if above is not None and below is not None:
        # Rounded to the type of the tile, as the tile is: rounding keeps order.
        limit = torch.tensor([below - above + slack], dtype=torch.float64).to(kind)
        low = float(limit)
        least = int(limit.view(BITS[kind])) if low < 0 else None
    return Screen(
        matrix, samples, shift, sign, slack, least, low, apart=rest.float() if apart else None
    )


@dataclass(frozen=True)
class Single:
    """Unit vectors in float32, as (values - offset) * gain."""

    offset: Tensor  # (units,) float32
    gain: Tensor  # (units,) float32
    error: Tensor  # (units,) float64, most that a residual is off (length) before its last rounding


def in_single(source: Directions, units: Tensor) -> Single | None:
    """How to make the unit vectors of these units in float32; None where it would be too coarse."""
    if source.activations.dtype == torch.float64:
        return None
    offset, gain = source.offset[units], source.inverse_norm[units]
    # Each value loses 2^-24 of the offset, of itself three times, and of the common vector.
    ratio = offset.abs() * gain * source.num_samples**0.5
    usual = (gain == 0) | ((gain > 2.0**-60) & (gain < 2.0**60))
    if not bool((usual & (ratio <= FAR)).all()):
        return None
    return Single(offset.float(), gain.float(), (ratio + 6) * 2.0**-24)


def at_least(bits: Tensor, least: int, most: int) -> Tensor | None:
    """Flat positions of all integers from `least` up, in order; None if there are > `most`."""
    mask = (bits >= least).flatten()
    return None if int(mask.count_nonzero()) > most else mask.nonzero().flatten()


def at_least_numpy(bits: Tensor, least: int, most: int) -> Tensor | None:
    """The same by NumPy, which goes over small integers on a CPU far faster than PyTorch."""
    array = bits.numpy()
    # Most rows have nothing to offer, and a row's largest is found fastest.
    hot = (array.max(1) >= least).nonzero()[0]
    mask = (array if len(hot) == len(array) else array[hot]) >= least
    flat = mask.ravel().nonzero()[0]
    if len(flat) > most:
        return None
    if len(hot) != len(array):
        row = flat // array.shape[1]
        flat += (hot[row] - row) * array.shape[1]
    return torch.from_numpy(flat)


def common_vector(source: Directions, units: Tensor, sample: int) -> Tensor | None:
    """Mean (samples,) float64 of the unit vectors of a sample of the units; None if it is short."""
    step = max(1, len(units) // sample)
    mean = source.exact(units[::step]).mean(0)
    return mean if float(mean @ mean) > COMMON else None


def select(vectors: Tensor, rows: Tensor) -> Tensor:
    """Rows of a matrix, as a view when they follow each other."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first == len(rows) - 1 and bool((rows[1:] > rows[:-1]).all()):
        return vectors[first : last + 1]
    return vectors.index_select(0, rows)
