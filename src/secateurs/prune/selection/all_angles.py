"""The cosines of all pairs of a layer, held whole, from which the cut at any angle is read off.

For a person who moves an angle: a layer of 4096 units takes 128 MiB once, and a cut some
milliseconds. Where that is too much memory each cut looks at the pairs anew, with the same result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.selection.pairwise import Selection, pairwise
from secateurs.prune.selection.rules import smallest_angle
from secateurs.prune.similarity.multi_threshold import cosine_tiles
from secateurs.prune.similarity.normalise import Directions, directions, outside_norms
from secateurs.prune.similarity.tiles import TIE

BUDGET_BYTES = 512 * 2**20  # eight bytes a pair: up to 8192 units
MEMORY = 64  # angles whose survivors are remembered

Alive = NDArray[np.bool_]


@dataclass(frozen=True)
class Cosines:
    """Strengths of all pairs of the units that are neither dead nor constant.

    A pair's strength is the size of its cosine, so that one number says how nearly the two are
    similar or opposite; `opposite` is where the cosine is negative. None where they do not fit.
    """

    source: Directions
    units: NDArray[np.int64]  # (live,) sorted
    strength: NDArray[np.float64] | None  # (live, live)
    opposite: NDArray[np.bool_] | None  # (live, live)
    known: dict[tuple[float, float | None], Alive] = field(default_factory=dict)

    def survivors(self, low_deg: float, norm_std: float | None) -> Alive:
        """(units,) those that `pairwise` keeps at `low_deg` and 180 less `low_deg` degrees.

        Nothing survives where every unit is dead or constant. Raises InputError unless the angle
        is at least 0 and below 90, and on a negative `norm_std`.
        """
        if not 0 <= low_deg < 90:
            raise InputError(f"angle: expected degrees, at least 0 and below 90, got {low_deg:g}")
        key = low_deg, norm_std
        if key not in self.known:
            found = self._survivors(low_deg, norm_std)
            while len(self.known) >= MEMORY:
                del self.known[next(iter(self.known))]
            self.known[key] = found
        return self.known[key]

    def _survivors(self, low_deg: float, norm_std: float | None) -> Alive:
        live = self.source.live.cpu().numpy()
        if not live.any():
            return live
        if self.strength is None:
            chosen = pairwise(
                self.source.activations,
                low_deg=low_deg,
                high_deg=180 - low_deg,
                norm_std=norm_std,
            )
            alive = np.zeros_like(live)
            alive[chosen.survivors.cpu().numpy()] = True
            return alive
        candidate = outside_norms(self.source.norm, norm_std).cpu().numpy()[self.units]
        left = candidate.copy()
        limit = math.cos(math.radians(low_deg)) + TIE if low_deg > 0 else 2.0
        for row in np.flatnonzero(candidate).tolist() if low_deg > 0 else ():
            if left[row]:
                left[row + 1 :] &= self.strength[row, row + 1 :] <= limit
        alive = live.copy()
        alive[self.units[candidate & ~left]] = False
        return alive

    def angle_for(self, keep: int, norm_std: float | None) -> float:
        """The angle in degrees at which `pairwise` leaves `keep` units or fewer, as rules do it.

        Raises InputError when there is none.
        """

        return smallest_angle(lambda deg: int(self.survivors(deg, norm_std).sum()), keep)

    def selection(self, alive: Alive, low_deg: float, norm_std: float | None) -> Selection:
        """The record that `pairwise` gives for its survivors, parents included.

        Raises InputError when nothing survives.
        """
        source = self.source
        if not alive.any():
            reason = "all are dead or constant" if not bool(source.live.any()) else "rule pairwise"
            raise InputError(f"every one of {len(alive)} units would be removed ({reason})")
        if self.strength is None or self.opposite is None:
            return pairwise(
                source.activations, low_deg=low_deg, high_deg=180 - low_deg, norm_std=norm_std
            )
        candidate = outside_norms(source.norm, norm_std).cpu().numpy()[self.units]
        stays = alive[self.units]
        gone, left = np.flatnonzero(~stays), np.flatnonzero(stays & candidate)
        parent = np.full(len(alive), -1, dtype=np.int64)
        angle = np.full(len(alive), np.nan)
        if len(gone):
            near = self.strength[np.ix_(gone, left)].argmax(1)
            nearest = left[near]
            parent[self.units[gone]] = self.units[nearest]
            degrees = np.degrees(np.arccos(self.strength[gone, nearest]))
            angle[self.units[gone]] = np.where(self.opposite[gone, nearest], 180 - degrees, degrees)
        kept = torch.from_numpy(alive).to(source.dead.device)
        removed = (~kept).nonzero().flatten()
        rows = removed.cpu().numpy()
        return Selection(
            rule="pairwise",
            survivors=kept.nonzero().flatten(),
            removed=removed,
            parent=torch.from_numpy(parent[rows]).to(removed.device),
            angle_deg=torch.from_numpy(angle[rows]).to(removed.device),
            dead=source.dead,
            constant=source.constant,
            norm=source.norm,
        )


def cosines(activations: Tensor, *, budget_bytes: int = BUDGET_BYTES) -> Cosines:
    """Look at all pairs of (samples, units) once; beyond `budget_bytes` nothing is held.

    Raises InputError as `directions` does.

    >>> table = cosines(torch.tensor([[1.0, 0.9, 0.0, 0.0], [0.0, 0.1, 1.0, 0.0]]))
    >>> table.survivors(20, None).tolist()
    [True, False, False, False]
    """
    source = directions(activations)
    live = source.live.nonzero().flatten()
    units = live.cpu().numpy()
    m = len(units)
    if 9 * m * m > budget_bytes or m == 0:
        return Cosines(source, units, None, None)
    strength = np.empty((m, m), dtype=np.float64)
    opposite = np.empty((m, m), dtype=np.bool_)
    for rows, columns, cosine in cosine_tiles(source, live):
        opposite[rows, columns] = (cosine < 0).cpu().numpy()
        strength[rows, columns] = cosine.abs_().cpu().numpy()
    return Cosines(source, units, strength, opposite)
