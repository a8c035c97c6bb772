"""Activation vectors made comparable: normalisations, norms, and the units that have no direction.

All of it is decided in float64 on the activations as given, whatever their type; powers of two are
taken out of float64 ones first, so that neither huge nor tiny scales overflow or vanish.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.similarity.workers import each

Normalise = Literal["minmax", "centre", "none"]
CHUNK = 131_072  # activations converted to float64 at a time: 1 MiB, within the cache
LINE = 32  # neighbouring units lie side by side in memory: fewer would read it over and over
DEVICE_CHUNK = 2**24  # on an accelerator, where many small steps would wait for each other
HELD_BYTES = 512 * 2**20  # a copy with each unit's values side by side is held up to this size


@dataclass(frozen=True)
class Directions:
    """Activation vectors of a layer with what is needed to turn any of them into a unit vector."""

    activations: Tensor  # (samples, units), as given
    by_unit: Tensor | None  # (units, samples), the same row after row; None when it is too large
    normalise: Normalise
    scale: Tensor  # (units,) float64 powers of two, multiplied in first; 1 unless they are float64
    offset: Tensor  # (units,) float64, subtracted from the scaled activations
    inverse_norm: Tensor  # (units,) float64, of the scaled and shifted vectors; 0 where they vanish
    norm: Tensor  # (units,) float64, length of the normalised activation vector
    dead: Tensor  # (units,) bool, never anything but zero
    constant: Tensor  # (units,) bool, always the same value, not zero

    @property
    def num_samples(self) -> int:
        """Length of an activation vector."""
        return self.activations.shape[0]

    @property
    def num_units(self) -> int:
        """Number of activation vectors."""
        return self.activations.shape[1]

    @property
    def live(self) -> Tensor:
        """(units,) bool: neither dead nor constant."""
        return ~(self.dead | self.constant)

    def to(self, device: torch.device) -> Directions:
        """The same on another device; itself where it is there already."""
        if device == self.activations.device:
            return self
        moved = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)

    def values(self, units: Tensor) -> Tensor:
        """Activations of the units given, (len(units), samples) row after row, as they are."""
        if self.by_unit is not None:
            return self.by_unit.index_select(0, units)
        # Gathered first and transposed then: so it is fast on a CPU.
        return self.activations.index_select(1, units).T.contiguous()

    def exact(self, units: Tensor) -> Tensor:
        """Float64 unit vectors of the units given, (len(units), samples); zero if undefined."""
        vectors = self.values(units).double()
        if vectors.dtype == self.activations.dtype:
            vectors = vectors.mul_(self.scale[units, None])
        return vectors.sub_(self.offset[units, None]).mul_(self.inverse_norm[units, None])

    def pieces(self, units: Tensor) -> Generator[tuple[slice, Tensor]]:
        """Yield the same piece by piece, with the place of each piece, row after row in memory."""
        step = piece_size(self.activations)
        for start in range(0, len(units), step):
            part = slice(start, start + step)
            yield part, self.exact(units[part])


def check_activations(activations: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each unit, (units,) both.

    Raises InputError unless `activations` are finite and (samples >= 2, units).
    """
    if activations.ndim != 2:
        raise InputError(
            f"activations: expected (samples, units), got shape {tuple(activations.shape)}"
        )
    if not activations.is_floating_point():
        raise InputError(f"activations: expected a floating-point type, got {activations.dtype}")
    samples, units = activations.shape
    if samples < 2:
        raise InputError(f"activations: an angle needs at least 2 samples, got {samples}")
    if units < 1:
        raise InputError("activations: no unit to look at")
    low, high = activations.amin(0), activations.amax(0)
    # NaN and infinity survive both extremes: no mask of the size of the input is needed.
    finite = torch.isfinite(low) & torch.isfinite(high)
    if not bool(finite.all()):
        unit = int((~finite).nonzero()[0])
        column = activations[:, unit]
        sample = int((~torch.isfinite(column)).nonzero()[0])
        raise InputError(
            f"activations: unit {unit} is {float(column[sample])} at sample {sample}; "
            "angles need finite values"
        )
    return low, high


def check_normalise(normalise: str) -> None:
    """Raise InputError unless `normalise` is one of the known words."""
    if normalise not in get_args(Normalise):
        raise InputError(
            f"normalise: expected one of {', '.join(get_args(Normalise))}, got {normalise!r}"
        )


def directions(activations: Tensor, *, normalise: Normalise = "minmax") -> Directions:
    """Prepare activation vectors (samples, units) for angles.

    `minmax` is the paper's mapping of the whole matrix to [-0.5, 0.5] by one minimum and maximum,
    `centre` subtracts each unit's mean, `none` leaves the vectors as they are. Raises InputError on
    fewer than two samples, NaN or infinity (with the unit's index) and unknown words.

    >>> d = directions(torch.tensor([[0.0, 0.0, 2.0], [0.0, 4.0, 2.0]]))
    >>> d.norm.square().round(decimals=9).tolist(), d.dead.tolist(), d.constant.tolist()
    ([0.5, 0.5, 0.0], [True, False, False], [False, False, True])
    """
    check_normalise(normalise)
    activations = activations.detach()
    low, high = check_activations(activations)
    same = low == high
    dead = same & (low == 0)
    low, high = low.double(), high.double()
    scale = torch.ones_like(low)
    if activations.dtype == torch.float64:
        size = torch.maximum(low.abs(), high.abs())
        if normalise == "minmax":
            size = size.amax().expand_as(size)
        _, exponent = torch.frexp(torch.where(size > 0, size, scale))
        # The largest magnitude becomes 0.5..1; two factors because 2^1074 is no float64.
        scale = torch.ldexp(scale, -exponent.clamp(-1000, 1000))
    to_norm = 1 / scale
    offset = torch.zeros_like(low)
    if normalise == "minmax":
        least, most = (low * scale).amin(), (high * scale).amax()
        span = most - least
        # (x - least) / span - 0.5 has the direction of x - (least + span / 2).
        offset = (least + span / 2).expand_as(low).clone()
        to_norm = (1 / span if bool(span > 0) else torch.zeros_like(span)).expand_as(low)
    by_unit = _room_by_unit(activations)
    squares = torch.zeros_like(low)
    step = piece_size(activations)

    def measure(start: int) -> None:
        part = slice(start, start + step)
        values = activations[:, part].contiguous().T
        if by_unit is not None:
            if by_unit.data_ptr() != activations.data_ptr():
                by_unit[part] = values
            values = by_unit[part]
        vectors = values.double()
        if activations.dtype == torch.float64:
            vectors = vectors * scale[part, None]
        if normalise == "centre":
            torch.mean(vectors, 1, out=offset[part])
        vectors = vectors.sub_(offset[part, None])
        torch.sum(vectors.square_(), 1, out=squares[part])

    numbers = step * activations.shape[0]
    pieces = range(0, activations.shape[1], step)
    each(measure, pieces, numbers=numbers, device=activations.device)
    length = squares.sqrt()
    if normalise == "centre":
        length[same] = 0.0  # the rounding of the mean is no direction
    return Directions(
        activations=activations,
        by_unit=by_unit,
        normalise=normalise,
        scale=scale,
        offset=offset,
        inverse_norm=torch.where(length > 0, 1 / length, torch.zeros_like(length)),
        norm=length * to_norm,
        dead=dead,
        constant=same & ~dead,
    )


def _room_by_unit(activations: Tensor) -> Tensor | None:
    """The activations as (units, samples), row after row, or room for it; None if too large."""
    if activations.T.is_contiguous():
        return activations.T
    if activations.nbytes > HELD_BYTES:
        return None
    return activations.new_empty(activations.shape[::-1])


def piece_size(activations: Tensor) -> int:
    """Units (columns) to convert at a time."""
    chunk = CHUNK if activations.device.type == "cpu" else DEVICE_CHUNK
    return max(LINE, chunk // activations.shape[0])


def contribution(source: Directions, weight: Tensor | None) -> Tensor:
    """What each unit gives to the next layer, (units,) float64: the length of its vector.

    Times the length of its column in the outgoing `weight` (outputs, units) when one is given.
    Raises InputError for a weight of another size.
    """
    if weight is None:
        return source.norm.clone()
    if weight.ndim != 2 or weight.shape[1] != source.num_units:
        raise InputError(
            f"weight: expected (outputs, {source.num_units}), got {tuple(weight.shape)}"
        )
    return source.norm * torch.linalg.vector_norm(weight.detach().double(), dim=0)


def outside_norms(norm: Tensor, norm_std: float | None) -> Tensor:
    """The paper's candidates, (units,) bool: norm outside mean +- `norm_std` * std of all norms.

    `None` makes every unit a candidate. The deviation is that of the population. Raises InputError
    on a negative or NaN `norm_std`.

    >>> outside_norms(torch.tensor([1.0, 1.0, 1.0, 5.0]), 1.0).tolist()
    [False, False, False, True]
    """
    if norm_std is None:
        return torch.ones_like(norm, dtype=torch.bool)
    if not norm_std >= 0:
        raise InputError(f"norm_std: expected a number >= 0 or none, got {norm_std}")
    mean, std = norm.mean(), norm.std(correction=0)
    return (norm < mean - norm_std * std) | (norm > mean + norm_std * std)
