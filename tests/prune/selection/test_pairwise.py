from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.errors import InputError
from secateurs.prune.selection.pairwise import pairwise
from secateurs.prune.similarity.angles import angle_histogram, similar_pairs
from secateurs.prune.similarity.tiles import Vectors


def reference(x, low, high, order):
    """Greedy survivors by a plain loop over centred columns in float64."""
    x = np.asarray(x, dtype=np.float64)
    x = x - x.mean(0)
    x = x / np.linalg.norm(x, axis=0)
    kept = []
    for unit in order:
        angles = np.degrees(np.arccos(np.clip(x[:, unit] @ x[:, kept], -1, 1)))
        if np.all((low <= angles) & (angles <= high)):
            kept.append(unit)
    return kept


def activations(seed, samples=12, units=60):
    return torch.randn(samples, units, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), block=st.sampled_from([1, 7, 32, 512]))
def test_greedy_equals_a_plain_loop_whatever_the_block(seed, block):
    x = activations(seed)
    chosen = pairwise(x, low_deg=50, high_deg=130, normalise="centre", block=block)
    assert chosen.survivors.tolist() == reference(x, 50, 130, range(60))


def test_by_norm_the_stronger_unit_survives():
    x = activations(1)
    order = np.argsort(-np.linalg.norm(x.double().numpy(), axis=0), kind="stable")
    chosen = pairwise(x, low_deg=50, high_deg=130, normalise="centre", survivor="norm")
    assert chosen.survivors.tolist() == sorted(reference(x, 50, 130, order))


def test_parent_is_the_nearest_survivor_beyond_a_threshold():
    x = activations(2)
    chosen = pairwise(x, low_deg=50, high_deg=130, normalise="centre")
    unit = (x - x.mean(0)).double()
    unit = (unit / unit.norm(dim=0)).numpy()
    survivors = chosen.survivors.tolist()
    for removed, parent, angle in zip(
        chosen.removed.tolist(), chosen.parent.tolist(), chosen.angle_deg.tolist(), strict=True
    ):
        angles = np.degrees(np.arccos(unit[:, survivors].T @ unit[:, removed]))
        line = np.where((angles < 50) | (angles > 130), np.minimum(angles, 180 - angles), 999)
        assert parent == survivors[int(line.argmin())]
        assert angle == pytest.approx(angles[int(line.argmin())], abs=1e-5)


def test_survivors_and_removed_share_out_all_units():
    x = activations(3)
    chosen = pairwise(x, low_deg=60, normalise="centre")
    both = torch.cat([chosen.survivors, chosen.removed]).sort().values
    assert both.tolist() == list(range(60)) and chosen.num_units == 60


def test_permuted_units_by_norm_give_permuted_survivors():
    x = activations(4)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    plain = pairwise(x, low_deg=60, normalise="centre", survivor="norm")
    moved = pairwise(x[:, order], low_deg=60, normalise="centre", survivor="norm")
    assert sorted(order[moved.survivors].tolist()) == plain.survivors.tolist()


def test_dead_and_constant_units_go_first_without_a_parent():
    x = torch.tensor([[0.0, 2.0, 1.0, 1.0], [0.0, 2.0, 3.0, 3.0]])
    chosen = pairwise(x)
    assert chosen.survivors.tolist() == [2]
    assert chosen.parent.tolist() == [-1, -1, 2]
    assert chosen.angle_deg.isnan().tolist() == [True, True, False]
    assert chosen.num_dead == 1 and chosen.constant.tolist() == [False, True, False, False]


def test_units_inside_the_norm_filter_stay_and_make_nothing_go():
    x = torch.tensor([[1.0, 1.0, 1.0, 9.0, 9.0], [1.1, 1.1, 1.2, 1.0, 1.0]])
    chosen = pairwise(x, low_deg=20, norm_std=1.0, normalise="none")
    assert chosen.survivors.tolist() == [0, 1, 2, 3]
    assert chosen.parent.tolist() == [3]


def test_without_upper_threshold_opposites_survive():
    x = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert len(pairwise(x, high_deg=None, normalise="none").survivors) == 2
    assert len(pairwise(x, high_deg=165, normalise="none").survivors) == 1


def test_one_unit_survives_alone():
    assert pairwise(torch.tensor([[1.0], [2.0]])).survivors.tolist() == [0]


def test_a_layer_that_would_lose_every_unit_is_refused():
    with pytest.raises(InputError, match=r"every one of 3 units .* dead or constant"):
        pairwise(torch.zeros(4, 3))


def test_bad_words_and_thresholds():
    with pytest.raises(InputError, match="survivor: expected index or norm, got 'best'"):
        pairwise(activations(0), survivor="best")  # pyright: ignore
    with pytest.raises(InputError, match="low_deg"):
        pairwise(activations(0), low_deg=170)


def alike(units, samples=12):
    """Non-negative sparse activations of which more than half of all pairs are below 15 degrees."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, units, generator=generator).mul_(0.15).add_(1)
    x[0, ::5] = 40
    x[:, ::50] = 0
    return x


@pytest.mark.parametrize("block", [64, 512])
def test_no_list_of_pairs_is_made_where_half_of_all_are_similar(monkeypatch, block):
    x = alike(2000)
    counts = angle_histogram(x, normalise="none", bins=12, max_units=2000).counts
    assert counts[0] > counts.sum() / 2
    largest = []
    beyond = Vectors.beyond

    def watch(self, rows, columns, *, upper=False):
        result = beyond(self, rows, columns, upper=upper)
        largest.append(len(result[0]))
        return result

    monkeypatch.setattr(Vectors, "beyond", watch)
    chosen = pairwise(x, low_deg=15, normalise="none", block=block)
    assert 0 < max(largest) <= block * block
    assert sum(largest) < int(counts[0]) / 2
    with pytest.raises(InputError, match="select survivors without the list"):
        similar_pairs(x, 15, 165, normalise="none", max_pairs=10**6)
    assert 0 < len(chosen.survivors) < 200


def peak_mib():
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no resettable peak here")
def test_memory_of_a_selection_does_not_hold_its_pairs():
    x = alike(6000)
    pairwise(x[:, :600], low_deg=15, normalise="none")
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_mib()
    chosen = pairwise(x, low_deg=15, normalise="none")
    added = peak_mib() - before
    # More than 9 million pairs, each with two int64 and a float64, would take 200 MiB.
    assert added < 60
    assert len(chosen.survivors) < 200


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), low=st.sampled_from([5, 30, 60]))
def test_the_order_of_samples_changes_nothing(seed, low):
    x = torch.relu(activations(seed))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    plain, moved = pairwise(x, low_deg=low), pairwise(x[order], low_deg=low)
    assert torch.equal(plain.survivors, moved.survivors)
    assert torch.equal(plain.parent, moved.parent)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_huge_and_tiny_scales_change_no_selection(scale):
    x = activations(5).double()
    plain = pairwise(x, low_deg=50, normalise="centre")
    moved = pairwise(x * scale, low_deg=50, normalise="centre")
    assert torch.equal(plain.survivors, moved.survivors)
    assert torch.equal(plain.parent, moved.parent)


def test_values_that_are_not_finite_are_refused():
    x = activations(6)
    x[4, 17] = float("nan")
    with pytest.raises(InputError, match="unit 17 is nan at sample 4"):
        pairwise(x)


def test_without_a_threshold_every_live_unit_stays():
    x = activations(7)
    x[:, 3] = 0
    chosen = pairwise(x, low_deg=0, high_deg=None)
    assert chosen.removed.tolist() == [3]
