"""All pairs of some units against several angles at once: one byte a pair says from which on."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.prune.similarity.normalise import Directions
from secateurs.prune.similarity.tiles import Thresholds

TILE = 1024


@dataclass(frozen=True)
class Levels:
    """How many of some ascending angles each pair of `units` is not beyond; row k is `units[k]`.

    A pair is beyond the k-th angle's limits when its level is at most k; a level of as many as
    there are angles is beyond none. Only the part above the diagonal is meant to be read.
    """

    units: NDArray[np.int64]  # (m,) sorted
    level: NDArray[np.uint8]  # (m, m)
    cosine: NDArray[np.float64] | None  # (m, m), where it was asked for

    def of(self, keep: NDArray[np.bool_]) -> Levels:
        """The same for some of the units; `keep` (m,)."""
        if keep.all():
            return self
        rows = np.flatnonzero(keep)
        square = np.ix_(rows, rows)
        cosine = None if self.cosine is None else self.cosine[square]
        return Levels(self.units[rows], self.level[square], cosine)

    def greedy(self, k: int) -> NDArray[np.bool_]:
        """(m,) units that survive at the k-th angle, each removing the later ones beyond it."""
        alive = np.ones(len(self.units), dtype=np.bool_)
        for row in range(len(alive)):
            if alive[row]:
                alive[row + 1 :] &= self.level[row, row + 1 :] > k
        return alive

    def nearest(self, stays: NDArray[np.bool_]) -> NDArray[np.int64]:
        """For each unit that goes, in order, the one of `stays` (m,) most in line with it.

        Needs the cosines. At one of the angles that is also its parent: what goes is beyond the
        limits of a survivor, hence of the one most in line.
        """
        assert self.cosine is not None
        left, lost = np.flatnonzero(stays), np.flatnonzero(~stays)
        if len(lost) == 0:
            return self.units[:0]
        strength = np.abs(self.cosine[np.ix_(lost, left)])
        return self.units[left[strength.argmax(1)]]

    def rows(self, k: int) -> Generator[tuple[int, NDArray[np.int64]]]:
        """Each unit i that has pairs i < j beyond the k-th angle, with those j, in order."""
        for row in range(len(self.units)):
            later = np.flatnonzero(self.level[row, row + 1 :] <= k)
            if len(later):
                yield int(self.units[row]), self.units[row + 1 + later]


def cosine_tiles(
    source: Directions, units: Tensor, tile: int = TILE
) -> Generator[tuple[slice, slice, Tensor]]:
    """Cosines of all pairs of `units`, float64, tile by tile with the rows and columns of each."""
    vectors = source.exact(units)
    for top in range(0, len(units), tile):
        for left in range(0, len(units), tile):
            rows, columns = slice(top, top + tile), slice(left, left + tile)
            yield rows, columns, (vectors[rows] @ vectors[columns].T).clamp_(-1, 1)


def pair_levels(
    source: Directions,
    units: Tensor,
    limits: Sequence[Thresholds],
    *,
    with_cosine: bool = False,
    tile: int = TILE,
) -> Levels:
    """Decide every pair of `units` (sorted) against every limit, in float64, tile by tile.

    `limits` belong to ascending angles, fewer than 256, each wider than the one before. Keeps
    one byte a pair, and with `with_cosine` eight more. Units without a direction (norm 0) have an
    undefined angle, which the paper's program counts as opposite: beyond every limit.

    >>> from secateurs.prune.similarity.normalise import directions
    >>> from secateurs.prune.similarity.tiles import thresholds
    >>> source = directions(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.5, 1.0]]), normalise="none")
    >>> both = [thresholds(30, 150), thresholds(70, 110)]
    >>> pair_levels(source, torch.arange(3), both).level.tolist()
    [[0, 0, 2], [0, 0, 1], [2, 1, 0]]
    """
    assert len(limits) < 256
    m = len(units)
    level = np.empty((m, m), dtype=np.uint8)
    cosines = np.empty((m, m), dtype=np.float64) if with_cosine else None
    undefined = source.norm[units] == 0
    for rows, columns, cosine in cosine_tiles(source, units, tile):
        found = torch.zeros(cosine.shape, dtype=torch.uint8, device=cosine.device)
        for limit in limits:
            found += ~limit.exactly(cosine)
        found[undefined[rows]] = 0
        found[:, undefined[columns]] = 0
        level[rows, columns] = found.cpu().numpy()
        if cosines is not None:
            cosines[rows, columns] = cosine.cpu().numpy()
    return Levels(units.cpu().numpy(), level, cosines)
