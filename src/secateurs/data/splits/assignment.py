"""Whole groups assigned to the sides of a split, so that each side has its share of each class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

EVEN = 1e-4  # every class within a percent of its share on every side
TRIES = 24
FEW_GROUPS = 9  # so few that all 3^9 ways are simply compared
SWAP_GROUPS = 800  # among more groups than this, moving single ones makes sides even enough
SWAPS_TRIED = 32

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SplitCost:
    """Groups to be assigned: `table` (groups, classes) images, `wanted` (sides, classes) counts."""

    table: Floats
    wanted: Floats

    @cached_property
    def scale(self) -> Floats:
        """One over the size of each class (classes,)."""
        return 1 / np.maximum(self.table.sum(axis=0), 1)

    @cached_property
    def _is_wanted(self) -> NDArray[np.bool_]:
        return self.wanted > 0

    def counts(self, side: Indices) -> Floats:
        """Images of each side and class (sides, classes) when group g is on side[g]."""
        return np.stack([self.table[side == k].sum(axis=0) for k in range(len(self.wanted))])

    def cost(self, counts: Floats) -> float:
        """Squared deviations as shares of each class; a side without a class is worse than any."""
        missing = 100.0 * np.count_nonzero((counts == 0) & self._is_wanted)
        return float((((counts - self.wanted) * self.scale) ** 2).sum()) + missing


def best_sides(problem: SplitCost, *, seed: int) -> Indices:
    """The side of each group (groups,) at the lowest cost that is found.

    Up to 9 groups all ways are compared, and equals drawn from by `seed`. With more, each of 24
    seeded tries assigns the groups and improves that by moving and swapping; the first of the best
    is taken, at once if it is even.
    """
    if len(problem.table) <= FEW_GROUPS:
        return _compare_all(problem, np.random.default_rng(seed))
    best: tuple[float, Indices] | None = None
    for number in range(TRIES):
        generator = np.random.default_rng([seed, number])
        side = improve(problem, assign_in_turn(problem, generator, largest_first=number % 2 == 0))
        cost = problem.cost(problem.counts(side))
        if best is None or cost < best[0]:
            best = (cost, side)
        if cost < EVEN:
            break
    assert best is not None, "there is at least one try"
    return best[1]


def _compare_all(problem: SplitCost, generator: np.random.Generator) -> Indices:
    ways = np.array(list(product(range(len(problem.wanted)), repeat=len(problem.table))))
    costs = np.array([problem.cost(problem.counts(side)) for side in ways])
    equals = np.flatnonzero(costs <= costs.min() + 1e-9)
    return ways[equals[generator.integers(len(equals))]]


def assign_in_turn(
    problem: SplitCost, generator: np.random.Generator, *, largest_first: bool = True
) -> Indices:
    """Each group in turn to the side that it brings nearest to its wanted counts."""
    table, wanted, scale = problem.table, problem.wanted, problem.scale
    order = generator.permutation(len(table))
    if largest_first:
        order = order[np.argsort(-table[order].sum(axis=1), kind="stable")]
    side = np.full(len(table), -1, dtype=np.int64)
    counts = np.zeros_like(wanted)
    for group in order:
        gaps = (wanted - counts) * scale  # what is still missing, as shares
        gain = (2 * gaps * table[group] * scale - (table[group] * scale) ** 2).sum(axis=1)
        side[group] = int(gain.argmax())
        counts[side[group]] += table[group]
    return side


def improve(problem: SplitCost, side: Indices) -> Indices:
    """Move single groups, and where no move helps swap two, as long as the cost falls."""
    side = side.copy()
    while True:
        _move(problem, side)
        if problem.cost(problem.counts(side)) < EVEN or not _swap(problem, side):
            return side


def _move(problem: SplitCost, side: Indices) -> None:
    counts = problem.counts(side)
    cost, better = problem.cost(counts), True
    while better:
        better = False
        for group, images in enumerate(problem.table):
            for other in range(len(problem.wanted)):
                old = side[group]
                if other == old:
                    continue
                moved = counts.copy()
                moved[old] -= images
                moved[other] += images
                new = problem.cost(moved)
                if new < cost - 1e-12:
                    side[group], counts, cost, better = other, moved, new, True


def _swap(problem: SplitCost, side: Indices) -> bool:
    # Swap the two groups on different sides whose swap lowers the cost most; False when none does.
    if len(side) > SWAP_GROUPS:
        return False
    counts = problem.counts(side)
    cost = problem.cost(counts)
    shares = problem.table * problem.scale  # (groups, classes)
    over = (counts - problem.wanted) * problem.scale  # (sides, classes)
    # Of g on side a and h on side b, e = shares[h] - shares[g] comes to a and leaves b: the
    # squared deviations change by 2 |e|^2 + 2 e . (over[a] - over[b]).
    pull = shares @ over.T  # (groups, sides)
    own = pull[np.arange(len(side)), side]
    away = pull[:, side]  # [g, h]: shares[g] . over[side of h]
    squares = (shares**2).sum(axis=1)
    apart = squares[:, None] + squares[None, :] - 2 * shares @ shares.T
    change = 2 * (apart + away + away.T - own[:, None] - own[None, :])
    change[side[:, None] == side[None, :]] = 0.0
    change = np.triu(np.round(change, 12))
    for flat in np.argsort(change, axis=None, kind="stable")[:SWAPS_TRIED]:
        if change.flat[flat] > -1e-9:
            return False
        left, right = divmod(int(flat), len(side))
        swapped = side.copy()
        swapped[[left, right]] = side[[right, left]]
        # The formula does not know of sides left without a class.
        if problem.cost(problem.counts(swapped)) < cost - 1e-9:
            side[:] = swapped
            return True
    return False
