"""Which units go in the cells of a grid: each cell as its rule decides it, pairs looked at once."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.prune.selection.pairwise import Selection, make_selection, pairwise
from secateurs.prune.selection.published_rule import Pairs
from secateurs.prune.similarity.angles import scan
from secateurs.prune.similarity.multi_threshold import Levels, pair_levels
from secateurs.prune.similarity.normalise import Directions, outside_norms
from secateurs.prune.similarity.tiles import thresholds


@dataclass(frozen=True)
class Cut:
    """What one cell's rule decides: units that stay and, where they are asked for, parents."""

    num_candidates: int
    alive: Tensor  # (units,) bool
    selection: Selection | None = None


@dataclass(frozen=True)
class Candidates:
    """The units that a rule looks at under one norm threshold, and their pairs.

    `levels` holds the pairs against every angle of `angles_deg` (ascending); None where that
    would be too large, so that each cell looks for its own.
    """

    source: Directions
    angles_deg: tuple[float, ...]
    chosen: Tensor  # (units,) bool
    norm_std: float
    levels: Levels | None

    def narrowed(self, norm_std: float) -> Candidates:
        """The candidates of a larger norm threshold, which are some of these."""
        chosen = self.chosen & outside_norms(self.source.norm, norm_std)
        levels = self.levels
        if levels is not None:
            levels = levels.of(chosen.cpu().numpy()[levels.units])
        return replace(self, chosen=chosen, norm_std=norm_std, levels=levels)

    def pairwise(self, k: int, *, parents: bool) -> Cut:
        """The cut of `pairwise` at the k-th angle, with its selection where `parents` are wanted.

        Where every unit is dead or constant none stays, which is no error here.
        """
        source, num = self.source, int(self.chosen.sum())
        if not bool(source.live.any()):
            return Cut(num, source.live)
        if self.levels is None:
            angle = self.angles_deg[k]
            selection = pairwise(
                source.activations,
                low_deg=angle,
                high_deg=180 - angle,
                norm_std=self.norm_std,
            )
            alive = torch.zeros_like(source.dead)
            alive[selection.survivors] = True
            return Cut(num, alive, selection)
        stays = self.levels.greedy(k)
        gone = torch.from_numpy(self.levels.units[~stays]).to(source.dead.device)
        alive = source.live.clone()
        alive[gone] = False
        if not parents:
            return Cut(num, alive)
        nearest = torch.full_like(alive, -1, dtype=torch.int64)
        nearest[gone] = torch.from_numpy(self.levels.nearest(stays)).to(gone.device)
        return Cut(num, alive, make_selection("pairwise", source, alive, nearest))

    def pairs(self, k: int) -> Pairs:
        """Each i with the j > i to which the k-th angle pairs it, as the published program does.

        An undefined angle counts as opposite.
        """
        if self.levels is not None:
            return self.levels.rows(k)
        return self._scanned(self.angles_deg[k])

    def _scanned(self, angle: float) -> Generator[tuple[int, NDArray[np.int64]]]:
        defined = (self.chosen & (self.source.norm > 0)).nonzero().flatten()
        units = self.chosen.nonzero().flatten().cpu().numpy()
        undefined = (self.source.norm == 0).cpu().numpy()
        later: dict[int, NDArray[np.int64]] = {}
        for i, j, _ in scan(self.source, defined, thresholds(angle, 180 - angle), tile=1024):
            starts, counts = torch.unique_consecutive(i.cpu(), return_counts=True)
            found = j.cpu().split(counts.tolist())
            later |= {int(a): b.numpy() for a, b in zip(starts.tolist(), found, strict=True)}
        for i in units.tolist():
            after = units[units > i] if undefined.any() else units[:0]
            js = later.get(i, units[:0])
            if len(after):
                js = after if undefined[i] else np.union1d(js, after[undefined[after]])
            if len(js):
                yield i, js


def candidates(
    source: Directions,
    eligible: Tensor,
    angles_deg: tuple[float, ...],
    norm_std: float,
    *,
    with_cosine: bool,
    budget_bytes: int,
) -> Candidates:
    """The candidates among `eligible` (units,) of a norm threshold, their pairs looked at once.

    Pairs are kept where one byte each, or nine with cosines, is within `budget_bytes`.
    """
    chosen = eligible & outside_norms(source.norm, norm_std)
    units = chosen.nonzero().flatten()
    levels = None
    if len(units) ** 2 * (9 if with_cosine else 1) <= budget_bytes:
        limits = [thresholds(angle, 180 - angle) for angle in angles_deg]
        levels = pair_levels(source, units, limits, with_cosine=with_cosine)
    return Candidates(source, angles_deg, chosen, norm_std, levels)
