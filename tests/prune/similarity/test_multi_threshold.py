from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from secateurs.prune.similarity.multi_threshold import pair_levels
from secateurs.prune.similarity.normalise import directions
from secateurs.prune.similarity.tiles import thresholds

ANGLES = (10.0, 25.0, 40.0)


def levels_of(x: torch.Tensor, units: torch.Tensor, **options):
    source = directions(x, normalise="none")
    limits = [thresholds(angle, 180 - angle) for angle in ANGLES]
    return pair_levels(source, units, limits, **options)


@pytest.mark.parametrize("tile", [1, 7, 64])
def test_each_pair_has_the_first_angle_that_it_is_beyond(tile: int):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 40, generator=generator, dtype=torch.float64)
    units = torch.arange(0, 40, 2)
    found = levels_of(x, units, tile=tile, with_cosine=True)
    for a, i in enumerate(units.tolist()):
        for b, j in enumerate(units.tolist()):
            u, v = x[:, i].tolist(), x[:, j].tolist()
            dot = sum(p * q for p, q in zip(u, v, strict=True))
            cosine = max(-1.0, min(1.0, dot / math.hypot(*u) / math.hypot(*v)))
            angle = math.degrees(math.acos(cosine))
            expected = sum(not (angle < t or angle > 180 - t) for t in ANGLES)
            assert found.level[a, b] == expected
            assert found.cosine[a, b] == pytest.approx(cosine, abs=1e-14)


def test_some_of_the_units_have_the_same_levels():
    x = torch.randn(5, 30, generator=torch.Generator().manual_seed(1))
    whole = levels_of(x, torch.arange(30), with_cosine=True)
    keep = np.arange(30) % 3 == 0
    some = whole.of(keep)
    direct = levels_of(x, torch.arange(0, 30, 3), with_cosine=True)
    assert some.units.tolist() == direct.units.tolist()
    assert np.array_equal(some.level, direct.level)
    assert np.allclose(some.cosine, direct.cosine, atol=1e-14)
    assert whole.of(np.ones(30, dtype=bool)) is whole


def test_a_unit_without_direction_is_beyond_every_angle():
    x = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert levels_of(x, torch.arange(3)).level.tolist() == [[0, 0, 3], [0, 0, 0], [3, 0, 0]]


def test_rows_and_greedy_agree_with_loops():
    x = torch.randn(3, 25, generator=torch.Generator().manual_seed(2))
    found = levels_of(x, torch.arange(25))
    for k in range(len(ANGLES)):
        pairs = {(i, j) for i, js in found.rows(k) for j in js.tolist()}
        expected = {(i, j) for i in range(25) for j in range(i + 1, 25) if found.level[i, j] <= k}
        assert pairs == expected
        alive: list[int] = []
        for j in range(25):
            if not any((i, j) in expected for i in alive):
                alive.append(j)
        assert np.flatnonzero(found.greedy(k)).tolist() == alive
