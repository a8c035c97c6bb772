from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from secateurs.errors import InputError
from secateurs.prune.selection import cluster as by_angle
from secateurs.prune.selection.cluster import cluster, cluster_members, prepare
from secateurs.prune.selection.rules import SelectOptions, exactly, select


def grouped(seed=0, num_groups=5, each=12, samples=40, noise=0.05):
    """Units (samples, groups * each) around a few directions, at many scales, in mixed order."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(samples, num_groups))
    truth = rng.permutation(np.repeat(np.arange(num_groups), each))
    units = centres[:, truth] + noise * rng.normal(size=(samples, len(truth)))
    return torch.from_numpy(units * rng.uniform(0.01, 100, len(truth))), truth


def label(selection):
    """The survivor that each unit belongs to."""
    found = torch.arange(selection.num_units)
    found[selection.removed] = selection.parent
    return found.numpy()


@pytest.mark.parametrize("seed", range(4))
def test_groups_by_angle_are_found_whatever_the_scale(seed):
    units, truth = grouped(seed)
    chosen = cluster(units, keep=12, normalise="none", seed=seed)
    # More groups than there are: none may mix two directions.
    for survivor in chosen.survivors.tolist():
        assert len(set(truth[label(chosen) == survivor])) == 1
    assert float(chosen.angle_deg.max()) < 15


def test_against_a_plain_loop_from_the_same_start():
    """Lloyd's rounds of spherical k-means written one unit at a time."""
    units, _ = grouped(3, noise=0.8)
    few = cluster(units, keep=4, normalise="centre", rounds=200)
    vectors = (units - units.mean(0)).numpy()
    norm = np.linalg.norm(vectors, axis=0)
    share, vectors = norm**2, vectors / norm
    found = label(few)
    # A fixed point: with each group's weighted mean direction nobody is nearer to another's.
    centres = {
        k: sum(share[u] * vectors[:, u] for u in np.flatnonzero(found == k))
        for k in np.unique(found)
    }
    centres = {k: c / np.linalg.norm(c) for k, c in centres.items()}
    for u in range(vectors.shape[1]):
        nearest = max(centres, key=lambda k: centres[k] @ vectors[:, u])
        assert nearest == found[u]
    for k, centre in centres.items():
        members = np.flatnonzero(found == k)
        assert k == max(members, key=lambda u: centre @ vectors[:, u])


def plain_rounds(vectors, share, first, rounds):
    """Lloyd's rounds from the vectors `first` on, in float64, one unit at a time."""
    centres = [vectors[k] for k in first]
    found = [-1] * len(vectors)
    for _ in range(rounds):
        new = [int(np.argmax([c @ v for c in centres])) for v in vectors]
        if new == found:
            break
        found = new
        for k in range(len(centres)):
            total = sum((share[u] * vectors[u] for u in range(len(found)) if found[u] == k), 0.0)
            if np.linalg.norm(total) > 0:
                centres[k] = total / np.linalg.norm(total)
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rounds", [1, 3, 30])
def test_rounds_by_vectors_and_by_pairs_against_a_plain_loop(seed, rounds):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(60, 12))
    # The two first directions are the same: nobody ever comes to the second.
    vectors[1] = vectors[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    share = rng.uniform(size=60) ** 8
    share[7] = 0.0
    first = [0, 1, 7, 20, 33]
    expected = plain_rounds(vectors, share, first, rounds)
    given = torch.from_numpy(vectors).float(), torch.from_numpy(share).float()
    start = torch.tensor(first)
    by_vectors = by_angle._by_vectors(*given, start, rounds)
    by_pairs = by_angle._by_pairs(given[0] @ given[0].T, given[1], start, rounds)
    assert by_vectors[0].tolist() == by_pairs[0].tolist() == expected
    torch.testing.assert_close(by_vectors[1], by_pairs[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("keep", [1, 3, 12, 40])
def test_pairs_held_or_not_give_the_same_groups(keep, monkeypatch):
    units, _ = grouped(4, noise=1.0)
    weight = torch.rand(3, 60)
    held = prepare(units, weight=weight, num_groups=1000)
    assert held.cosine is not None and held.cosine.shape == (60, 60)
    monkeypatch.setattr(by_angle, "HELD_BYTES", 0)
    bare = prepare(units, weight=weight, num_groups=1000)
    assert bare.cosine is None
    one, two = (cluster_members(given, keep=keep, seed=3) for given in (held, bare))
    alone = cluster(units, keep=keep, weight=weight, seed=3)
    for name in ("survivors", "removed", "parent", "angle_deg"):
        assert torch.equal(getattr(one, name), getattr(two, name))
        assert torch.equal(getattr(one, name), getattr(alone, name))


def test_pairs_are_looked_at_only_where_many_groups_are_asked_for():
    units, _ = grouped()  # 60 units
    assert prepare(units, num_groups=3).cosine is None
    assert prepare(units, num_groups=4).cosine is not None


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 9))
def test_every_unit_is_accounted_for(seed, keep):
    units, _ = grouped(seed % 7, num_groups=3, each=4)
    chosen = cluster(units, keep=keep, seed=seed)
    everyone = torch.cat([chosen.survivors, chosen.removed]).sort().values
    assert everyone.tolist() == list(range(12))
    assert 1 <= len(chosen.survivors) <= keep
    assert set(chosen.parent.tolist()) <= set(chosen.survivors.tolist())


@pytest.mark.parametrize("add", [by_angle.weighted_sums, by_angle.weighted_sums_dense])
def test_sums_of_groups_against_a_plain_loop(add):
    rng = np.random.default_rng(0)
    pairs = torch.from_numpy(rng.normal(size=(9, 9)).astype(np.float32))
    groups = {0: [1, 4, 8], 1: [], 2: [0, 2]}
    share = torch.from_numpy(rng.uniform(size=9).astype(np.float32))
    row = torch.tensor([group for group, members in groups.items() for _ in members])
    inside = torch.tensor([member for members in groups.values() for member in members])
    found = add(pairs, row, inside, share[inside], 3)
    for group, members in groups.items():
        expected = np.zeros(9)
        for member in members:
            expected += float(share[member]) * pairs[member].double().numpy()
        assert np.abs(found[group].numpy() - expected).max() < 1e-6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("keep", [5, 40])
def test_cuda_finds_the_same_groups(keep):
    units, _ = grouped(1)
    expected = cluster(units, keep=keep, seed=3)
    found = cluster(units.cuda(), keep=keep, seed=3)
    assert found.survivors.tolist() == expected.survivors.tolist()
    assert found.parent.tolist() == expected.parent.tolist()


def test_duplicates_share_a_survivor():
    units, _ = grouped(1, num_groups=6, each=1)
    twice = torch.cat([units, 3 * units], 1)
    chosen = cluster(twice, keep=6, normalise="none")
    assert adjusted_rand_score(label(chosen) % 6, np.tile(np.arange(6), 2)) == 1.0
    assert torch.allclose(chosen.angle_deg, torch.zeros(6).double(), atol=1e-5)


def test_dead_and_constant_units_go_first_and_few_units_all_stay():
    units = torch.tensor([[1.0, 0.0, 2.0, 0.5], [0.0, 0.0, 2.0, 3.0], [2.0, 0.0, 2.0, 1.0]])
    chosen = cluster(units, keep=3)
    assert chosen.survivors.tolist() == [0, 3]
    assert chosen.parent.tolist() == [-1, -1] and chosen.num_dead == 1
    assert cluster(units, keep=1).parent.tolist().count(-1) == 2


def test_outgoing_weights_decide_what_is_worth_a_group():
    torch.manual_seed(0)
    units = torch.randn(30, 20)
    weight = torch.full((4, 20), 1e-3)
    weight[:, [4, 11]] = 10.0
    chosen = cluster(units, keep=2, weight=weight)
    assert chosen.survivors.tolist() == [4, 11]


def test_the_same_seed_gives_the_same_groups():
    units, _ = grouped(2, noise=1.0)
    one, two = (cluster(units, keep=6, seed=5) for _ in range(2))
    assert torch.equal(one.survivors, two.survivors) and torch.equal(one.parent, two.parent)


def test_bad_requests():
    units = torch.rand(5, 4)
    with pytest.raises(InputError, match="keep: expected at least 1 unit, got 0"):
        cluster(units, keep=0)
    with pytest.raises(InputError, match="rounds: expected at least 1"):
        cluster(units, keep=1, rounds=0)
    with pytest.raises(InputError, match=r"weight: expected \(outputs, 4\)"):
        cluster(units, keep=2, weight=torch.ones(2, 5))
    with pytest.raises(InputError, match="every one of 3 units"):
        cluster(torch.zeros(5, 3), keep=2)


def layer_outputs(seed: int, samples: int, different: int, copies: int, dead: int) -> torch.Tensor:
    """(samples, units): some units, exact copies of them at other scales, and dead ones."""
    rng = np.random.default_rng(seed)
    some = rng.normal(size=(samples, different))
    scales = rng.choice([0.5, 1.0, 2.0], (copies, 1, different))
    parts = [some, *(some * scale for scale in scales), np.zeros((samples, dead))]
    units = np.concatenate(parts, 1)
    return torch.from_numpy(units[:, rng.permutation(units.shape[1])])


LAYERS = st.tuples(
    st.integers(0, 1000),
    st.integers(2, 12),
    st.integers(1, 6),
    st.integers(0, 6),
    st.integers(0, 4),
)


@settings(max_examples=60, deadline=None)
@given(LAYERS, st.integers(1, 45), st.sampled_from(["centre", "none", "minmax"]), st.booleans())
def test_exactly_as_many_survive_as_were_asked_for(layer, keep, normalise, weighted):
    units = layer_outputs(*layer)
    weight = torch.rand(3, units.shape[1]) if weighted else None
    num_live = int((units.amax(0) > units.amin(0)).sum())
    chosen = cluster(units, keep=keep, normalise=normalise, weight=weight)
    assert len(chosen.survivors) == min(keep, num_live)
    kept = set(chosen.survivors.tolist())
    assert set(chosen.parent[~chosen.dead[chosen.removed]].tolist()) <= kept


@settings(max_examples=40, deadline=None)
@given(LAYERS, st.integers(1, 45), st.sampled_from(["cluster", "subspace", "variance", "l2"]))
def test_a_layer_gets_the_width_that_was_planned(layer, keep, rule):
    units = layer_outputs(*layer)
    num = units.shape[1]
    own, following = torch.rand(num, 4), torch.rand(3, num)
    options = SelectOptions(rule=rule, keep=min(keep, num))
    chosen = exactly(units, options, lambda: select(units, own, following, options))
    assert len(chosen.survivors) == min(keep, num)
    everyone = torch.cat([chosen.survivors, chosen.removed]).sort().values
    assert everyone.tolist() == list(range(num))
    # Dead units only where every other one is kept.
    if bool(chosen.dead[chosen.survivors].any()):
        assert bool(chosen.dead[chosen.removed].all())


def test_a_layer_that_is_dead_keeps_as_many_units_too():
    options = SelectOptions(rule="cluster", keep=3)
    dead, own, following = torch.zeros(4, 5), torch.rand(5, 2), torch.rand(2, 5)
    chosen = exactly(dead, options, lambda: select(dead, own, following, options))
    assert chosen.survivors.tolist() == [0, 1, 2] and chosen.removed.tolist() == [3, 4]
