"""Which units survive: the record every rule returns, and the greedy pairwise rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from secateurs.errors import InputError
from secateurs.prune.similarity.normalise import Directions, Normalise, directions, outside_norms
from secateurs.prune.similarity.tiles import (
    Thresholds,
    Vectors,
    full_precision,
    thresholds,
    vectors,
)

EVERY = Thresholds(above=-1.1, below=None)  # no pair is left out
BLOCK = 512  # candidates, and survivors they are compared with, at a time


@dataclass(frozen=True)
class Selection:
    """Survivors and removed units of one layer, and which survivor stands for each removed one."""

    rule: str
    survivors: Tensor  # (kept,) int64, sorted
    removed: Tensor  # (gone,) int64, sorted
    parent: Tensor  # (gone,) int64: the survivor that stands for the unit, -1 for none
    angle_deg: Tensor  # (gone,) float64: angle to it in degrees, NaN for none
    dead: Tensor  # (units,) bool: always zero
    constant: Tensor  # (units,) bool: always the same value, not zero
    norm: Tensor  # (units,) float64: of the normalised activation vectors
    span_deg: Tensor | None = None  # (gone,) float64: angle to the span of the survivors

    @property
    def num_units(self) -> int:
        """Units before the cut."""
        return len(self.dead)

    @property
    def num_dead(self) -> int:
        """Units that are always zero."""
        return int(self.dead.sum())


def pairwise(
    activations: Tensor,
    *,
    low_deg: float = 15.0,
    high_deg: float | None = 165.0,
    norm_std: float | None = None,
    normalise: Normalise = "minmax",
    survivor: Literal["index", "norm"] = "index",
    block: int = BLOCK,
) -> Selection:
    """Remove each unit that is similar or opposite to one that survives, in one greedy pass.

    `activations` is (samples, units). Units are taken by index, or by decreasing length of their
    activation vectors (`survivor="norm"`); a unit goes when its angle to an earlier survivor is
    below `low_deg` or above `high_deg` degrees (Gedeon and Harris, 1995), and its parent is the
    nearest such survivor. Dead and constant units go first, without a parent. With `norm_std` only
    units outside mean +- that many deviations of the norms can go or make others go. No list of
    pairs is made: the memory added is the normalised vectors and a few tiles. Raises InputError as
    `similar_pairs` does, and when no unit would survive.

    >>> x = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.1, 3.0, 0.0]])
    >>> chosen = pairwise(x, normalise="none")
    >>> chosen.survivors.tolist(), chosen.removed.tolist(), chosen.parent.tolist()
    ([0, 2], [1, 3], [0, -1])
    """
    limits = thresholds(low_deg, high_deg)
    if survivor not in ("index", "norm"):
        raise InputError(f"survivor: expected index or norm, got {survivor!r}")
    source = directions(activations, normalise=normalise)
    candidates = source.live & outside_norms(source.norm, norm_std)
    order = candidates.nonzero().flatten()
    if survivor == "norm":
        size = torch.linalg.vector_norm(source.activations, dim=0, dtype=torch.float64)
        order = order[torch.argsort(size[order], descending=True, stable=True)]
    if limits.any and len(order) > 1:
        with full_precision():
            order = order[_greedy(vectors(source, order, limits), block)]
    alive = source.live & ~candidates
    alive[order] = True
    gone = candidates & ~alive
    parents = nearest(source, gone.nonzero().flatten(), order, limits, block=block)
    return make_selection("pairwise", source, alive, parents)


def make_selection(
    rule: str, source: Directions, alive: Tensor, parents: Tensor | None = None
) -> Selection:
    """The record for the units in `alive` (units,) bool; `parents` (units,) int64, -1 for none.

    Without `parents`, each removed live unit's is the survivor at the smallest angle. Raises
    InputError when no unit would survive.
    """
    if not bool(alive.any()):
        reason = "all are dead or constant" if not bool(source.live.any()) else f"rule {rule}"
        raise InputError(f"selection: every one of {len(alive)} units would be removed ({reason})")
    survivors = alive.nonzero().flatten()
    removed = (~alive).nonzero().flatten()
    if parents is None:
        with_direction = (~alive & source.live).nonzero().flatten()
        known = survivors[source.live[survivors]]
        parents = nearest(source, with_direction, known, EVERY)
    parent = parents[removed]
    known = (parent >= 0).nonzero().flatten()
    angle = torch.full_like(parent, float("nan"), dtype=torch.float64)
    for k in known.split(BLOCK):
        cosine = torch.linalg.vecdot(source.exact(removed[k]), source.exact(parent[k]))
        angle[k] = cosine.clamp_(-1, 1).acos().rad2deg()
    return Selection(
        rule=rule,
        survivors=survivors,
        removed=removed,
        parent=parent,
        angle_deg=angle,
        dead=source.dead,
        constant=source.constant,
        norm=source.norm,
    )


def filled(selection: Selection, keep: int) -> Selection:
    """The selection with further survivors, until there are `keep` or every unit is one.

    Live units come first, by the norm of their vectors, then constant and then dead ones by index.
    """
    missing = keep - len(selection.survivors)
    if missing <= 0:
        return selection
    gone = selection.removed
    worth = selection.norm[gone].double() + 1.0
    worth = torch.where(selection.constant[gone], 0.5, worth)
    worth = torch.where(selection.dead[gone], 0.0, worth)
    stays = torch.ones_like(gone, dtype=torch.bool)
    stays[torch.argsort(worth, descending=True, stable=True)[:missing]] = False
    return replace(
        selection,
        survivors=torch.cat([selection.survivors, gone[~stays]]).sort().values,
        removed=gone[stays],
        parent=selection.parent[stays],
        angle_deg=selection.angle_deg[stays],
        span_deg=None if selection.span_deg is None else selection.span_deg[stays],
    )


def _greedy(prepared: Vectors, block: int) -> Tensor:
    """Rows of `prepared` that survive, each compared with the survivors before it."""
    rows = torch.arange(len(prepared.units), device=prepared.units.device)
    kept = rows[:0]
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        for other in range(0, len(kept), block):
            if len(part) == 0:
                break
            r, _, _ = prepared.beyond(part, kept[other : other + block])
            stays = torch.ones_like(part, dtype=torch.bool)
            stays[r] = False
            part = part[stays]
        if len(part) == 0:
            continue
        r, c, _ = prepared.beyond(part, part, upper=True)
        alive = torch.ones(len(part), dtype=torch.bool)
        starts, counts = torch.unique_consecutive(r.cpu(), return_counts=True)
        for k, later in zip(starts.tolist(), c.cpu().split(counts.tolist()), strict=True):
            if alive[k]:
                alive[later] = False
        kept = torch.cat([kept, part[alive.to(part.device)]])
    return kept


def nearest(
    source: Directions,
    units: Tensor,
    survivors: Tensor,
    limits: Thresholds,
    *,
    block: int = BLOCK,
) -> Tensor:
    """For each of `units` the survivor nearest in line with it beyond the limits; (all units,).

    Equal values within rounding go to the lower index.
    """
    parents = torch.full_like(source.dead, -1, dtype=torch.int64)
    best = torch.full_like(source.norm, -1.5)
    survivors = survivors.sort().values
    for start in range(0, len(units), block):
        rows = units[start : start + block]
        exact = source.exact(rows)
        for other in range(0, len(survivors), block):
            columns = survivors[other : other + block]
            cosine = (exact @ source.exact(columns).T).clamp_(-1, 1)
            strength = cosine if limits.below is None else cosine.abs()
            strength = torch.where(limits.exactly(cosine), strength, -2.0)
            value, index = strength.max(1)
            better = value > best[rows] + 1e-12
            best[rows[better]] = value[better]
            parents[rows[better]] = columns[index[better]]
    return parents
