from __future__ import annotations

import numpy as np
import torch

from secateurs.prune.coupling.union_find import UnionFind, compact, varying


def naive(count: int, pairs: list[tuple[int, int]]) -> list[set[int]]:
    """Sets of tied numbers, merged one pair at a time."""
    sets = [{number} for number in range(count)]
    for a, b in pairs:
        both = [one for one in sets if a in one or b in one]
        sets = [one for one in sets if one not in both] + [set().union(*both)]
    return sets


def test_units_are_what_pairs_connect():
    generator = np.random.default_rng(0)
    for _ in range(20):
        ties = UnionFind()
        ties.fresh(30)
        pairs = generator.integers(1, 31, (12, 2))
        for a, b in pairs.tolist():
            ties.tie(torch.tensor([a], dtype=torch.int32), torch.tensor([b], dtype=torch.int32))
        unit, stays, _ = ties.units()
        found = [set(np.flatnonzero(unit == one).tolist()) for one in np.unique(unit)]
        assert sorted(map(sorted, found)) == sorted(map(sorted, naive(31, pairs.tolist())))
        assert unit[0] == 0 and (unit[1:] > 0).all() and not stays


def test_numbers_that_do_not_change_are_kept_once():
    numbers = torch.tensor([[[1, 2]], [[1, 2]]]).expand(2, 3, 2)
    assert compact(numbers).tolist() == [[[1, 2]]]
    assert varying(compact(numbers)) == [2]
    assert compact(torch.ones(2, 2)).shape == (1, 1)


def test_beside_what_cannot_be_cut_units_stay():
    ties = UnionFind()
    rows = ties.fresh(3)
    assert ties.combine([((3,), rows), ((2, 1), None)]) is not None  # the other has no such axis
    assert not ties.fixed
    assert ties.combine([((3,), rows), ((2, 3), None)], "why") is None
    unit, stays, _ = ties.units()
    assert stays == {int(unit[number]): "why" for number in rows.tolist()}


def test_only_places_without_a_number_hold_what_is_beside_them():
    ties = UnionFind()
    left, right = ties.fresh(4), ties.fresh(4)
    right[1] = 0
    ties.combine([((4,), left), ((4,), right)])
    unit, stays, _ = ties.units()
    assert list(stays) == [unit[left[1]]]
    assert all(unit[left[k]] == unit[right[k]] for k in (0, 2, 3))


def test_an_axis_in_several_goes_along_the_longest():
    ties = UnionFind()
    numbers = ties.fresh(6).view(2, 3)
    ties.split(numbers)
    unit, _, _ = ties.units()
    assert unit[numbers.numpy()].tolist() == [unit[[1, 2, 3]].tolist()] * 2
    assert len(np.unique(unit)) == 4
