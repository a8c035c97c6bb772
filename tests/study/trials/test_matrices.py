"""Pairs and sums of products by tasks, against the functions of one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from backwards import Backwards

from secateurs.errors import InputError
from secateurs.prune.similarity.angles import similar_pairs
from secateurs.study.trials import matrices
from secateurs.study.trials.matrices import Limits, gram_over, pairs_over


def _activations(samples: int, units: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    generator = np.random.default_rng(3)
    base = generator.random((samples, 12))
    found = base[:, generator.integers(0, 12, units)] + 0.1 * generator.random((samples, units))
    found[:, 5:6] = 0
    return found.astype(np.float32)


@pytest.mark.parametrize("blocks", [1, 3])
def test_row_blocks_give_the_pairs_of_one_machine_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int
):
    monkeypatch.setattr(matrices, "TILE", 16)
    activations = _activations(20, 100)
    limits = Limits(15, 165, norm_std=0.1)
    crew = Backwards(tmp_path, lost=1)
    found = pairs_over(crew, activations, limits, folder=tmp_path, blocks=blocks)
    here = similar_pairs(torch.from_numpy(activations), 15, 165, norm_std=0.1, tile=16)
    assert len(here) > 100 and crew.num > 2
    for name in ("i", "j", "angle_deg", "dead", "constant", "candidates", "norm"):
        assert torch.equal(getattr(found, name), getattr(here, name)), name


def test_no_pairs_of_a_single_unit(tmp_path: Path):
    crew = Backwards(tmp_path)
    found = pairs_over(crew, _activations(4, 1), Limits(15), folder=tmp_path)
    assert len(found) == 0 and crew.num == 0


def test_every_block_is_dealt_to_one_task():
    tops = list(range(0, 100, 7))
    for number in (1, 4, 9):
        dealt = [matrices._dealt(tops, at, number) for at in range(number)]
        assert sorted(top for share in dealt for top in share) == tops
        sums = [sum(100 - top for top in share) for share in dealt]
        assert max(sums) - min(sums) <= 100


def test_parts_of_a_sum_give_the_normal_equations_whatever_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(matrices, "PART_ROWS", 8)
    rows = np.random.default_rng(4).standard_normal((50, 6))
    one = gram_over(Backwards(tmp_path), rows, folder=tmp_path)
    other = gram_over(Backwards(tmp_path, lost=2), rows, folder=tmp_path)
    assert torch.equal(one, other)
    np.testing.assert_allclose(one.numpy(), rows.T @ rows, rtol=1e-12)


def test_results_that_are_lost_every_time_are_said(tmp_path: Path):
    crew = Backwards(tmp_path, lost=100)
    with pytest.raises(InputError, match="outer products: all results were lost"):
        gram_over(crew, np.ones((3, 2)), folder=tmp_path)
