"""Activation vectors made comparable: normalisations, norms, and the units that have no direction.

All of it is decided in float64 on the activations as given, whatever their type, with powers of
two taken out first so that neither huge nor tiny scales overflow or vanish.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.workers import each

Normalise = Literal["minmax", "centre", "none"]
CHUNK = 65_536  # activations converted to float64 at a time: 512 KiB, within the cache
LINE = 32  # neighbouring units lie side by side in memory: fewer would read it over and over
DEVICE_CHUNK = 2**24  # on an accelerator, where many small steps would wait for each other


@dataclass(frozen=True)
class Directions:
    """Activation vectors of a layer with what is needed to turn any of them into a unit vector."""

    activations: Tensor  # (samples, units), as given
    normalise: Normalise
    scale: Tensor  # (units,) float64 powers of two, multiplied in first
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

    def exact(self, units: Tensor) -> Tensor:
        """Float64 unit vectors of the units given, (len(units), samples); zero if undefined."""
        # Transposed while still small: float64 columns are slow to gather.
        vectors = self.activations.index_select(1, units).T.contiguous().double()
        vectors = vectors.mul_(self.scale[units, None]).sub_(self.offset[units, None])
        return vectors.mul_(self.inverse_norm[units, None])

    def pieces(self, units: Tensor) -> Generator[tuple[slice, Tensor]]:
        """Yield the same piece by piece, with the place of each piece, row after row in memory."""
        step = piece_size(self.activations)
        for start in range(0, len(units), step):
            part = slice(start, start + step)
            yield part, self.exact(units[part]).contiguous()


def check_activations(activations: Tensor) -> Tensor:
    """Return `activations` detached; raises InputError unless finite and (samples >= 2, units)."""
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
    activations = activations.detach()
    # NaN and infinity survive both extremes: no mask of the size of the input is needed.
    finite = torch.isfinite(activations.amax(0)) & torch.isfinite(activations.amin(0))
    if not bool(finite.all()):
        unit = int((~finite).nonzero()[0])
        column = activations[:, unit]
        sample = int((~torch.isfinite(column)).nonzero()[0])
        raise InputError(
            f"activations: unit {unit} is {float(column[sample])} at sample {sample}; "
            "angles need finite values"
        )
    return activations


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
    activations = check_activations(activations)
    low, high = activations.amin(0), activations.amax(0)
    same = low == high
    dead = same & (low == 0)
    low, high = low.double(), high.double()
    size = torch.maximum(low.abs(), high.abs())
    if normalise == "minmax":
        size = size.amax().expand_as(size)
    _, exponent = torch.frexp(torch.where(size > 0, size, torch.ones_like(size)))
    # The largest magnitude becomes 0.5..1; two factors because 2^1074 is no float64.
    exponent = exponent.clamp(-1000, 1000)
    scale = torch.ldexp(torch.ones_like(size), -exponent)
    to_norm = 1 / scale
    offset = torch.zeros_like(size)
    if normalise == "minmax":
        least, most = (low * scale).amin(), (high * scale).amax()
        span = most - least
        # (x - least) / span - 0.5 has the direction of x - (least + span / 2).
        offset = (least + span / 2).expand_as(size).clone()
        to_norm = (1 / span if bool(span > 0) else torch.zeros_like(span)).expand_as(size)
    squares = torch.zeros_like(size)
    step = piece_size(activations)

    def measure(start: int) -> None:
        part = slice(start, start + step)
        vectors = activations[:, part].double() * scale[part]
        if normalise == "centre":
            offset[part] = vectors.mean(0)
        squares[part] = vectors.sub_(offset[part]).square_().sum(0)

    each(measure, range(0, activations.shape[1], step), device=activations.device)
    length = squares.sqrt()
    if normalise == "centre":
        length[same] = 0.0  # the rounding of the mean is no direction
    return Directions(
        activations=activations,
        normalise=normalise,
        scale=scale,
        offset=offset,
        inverse_norm=torch.where(length > 0, 1 / length, torch.zeros_like(length)),
        norm=length * to_norm,
        dead=dead,
        constant=same & ~dead,
    )


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
