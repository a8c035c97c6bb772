from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.errors import InputError
from secateurs.prune.similarity.angles import similar_pairs
from secateurs.prune.similarity.low_precision import at_least, at_least_numpy, in_single
from secateurs.prune.similarity.normalise import directions
from secateurs.prune.similarity.tiles import thresholds, vectors


def reference(x, low, high, normalise="minmax", norm_std=None):
    """A double loop in float64 over the columns that are not constant."""
    x = np.asarray(x, dtype=np.float64)
    varies = x.max(0) > x.min(0)
    if normalise == "minmax":
        x = (x - x.min()) / (x.max() - x.min()) - 0.5
    elif normalise == "centre":
        x = x - x.mean(0)
    norms = np.sqrt((x**2).sum(0))
    keep = varies.copy()
    if norm_std is not None:
        keep &= np.abs(norms - norms.mean()) > norm_std * norms.std()
    found = {}
    for i in range(x.shape[1]):
        for j in range(i + 1, x.shape[1]):
            if keep[i] and keep[j]:
                cosine = np.dot(x[:, i], x[:, j]) / (norms[i] * norms[j])
                angle = math.degrees(math.acos(min(1.0, max(-1.0, cosine))))
                if angle < low or (high is not None and angle > high):
                    found[i, j] = angle
    return found


def as_dict(pairs):
    keys = zip(pairs.i.tolist(), pairs.j.tolist(), strict=True)
    return dict(zip(keys, pairs.angle_deg.tolist(), strict=True))


def assert_same(pairs, expected):
    got = as_dict(pairs)
    assert list(got) == list(expected)
    for key, angle in expected.items():
        assert got[key] == pytest.approx(angle, abs=1e-6)


def layer(seed, samples=40, units=70):
    """Non-negative sparse activations with a few dead units and directions in common."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(samples, 8, generator=generator)
    x = torch.relu(hidden @ torch.randn(8, units, generator=generator) - 0.5)
    x[:, ::17] = 0
    return x


@pytest.mark.parametrize("normalise", ["minmax", "centre", "none"])
@pytest.mark.parametrize("tile", [1, 7, 64, 70, 1024])
def test_pairs_equal_a_double_loop_whatever_the_tile(normalise, tile):
    x = layer(0)
    pairs = similar_pairs(x, 25, 110, normalise=normalise, tile=tile)
    expected = reference(x, 25, 110, normalise)
    assert len(expected) > 2
    assert_same(pairs, expected)
    assert pairs.dead.nonzero().flatten().tolist() == list(range(0, 70, 17))


@pytest.mark.parametrize("norm_std", [0.0, 0.5, 1.0])
def test_norm_filter_needs_both_units_of_a_pair_outside(norm_std):
    x = layer(1)
    expected = reference(x, 40, 140, norm_std=norm_std)
    pairs = similar_pairs(x, 40, 140, norm_std=norm_std)
    assert 0 < len(expected) < len(similar_pairs(x, 40, 140)) or norm_std == 0
    assert_same(pairs, expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), samples=st.integers(2, 30), units=st.integers(1, 40))
def test_pairs_follow_a_permutation_of_units_and_ignore_that_of_samples(seed, samples, units):
    x = torch.randn(samples, units, generator=torch.Generator().manual_seed(seed))
    order = torch.randperm(units, generator=torch.Generator().manual_seed(seed + 1))
    plain = as_dict(similar_pairs(x, 40, 150, normalise="centre", tile=8))
    moved = as_dict(similar_pairs(x.flip(0)[:, order], 40, 150, normalise="centre", tile=8))
    back = {tuple(sorted((int(order[i]), int(order[j])))): a for (i, j), a in moved.items()}
    assert back.keys() == plain.keys()
    for key, angle in plain.items():
        assert back[key] == pytest.approx(angle, abs=1e-6)


def rotated(angles_deg):
    """Units in the plane of the first two samples at these angles from the first."""
    angles = np.radians(np.asarray(angles_deg, dtype=np.float64))
    return torch.tensor(np.stack([np.cos(angles), np.sin(angles)]))


@pytest.mark.parametrize("angle", [15.0, 30.0, 45.0, 60.0, 90.0, 165.0])
def test_an_angle_equal_to_a_threshold_is_not_beyond_it(angle):
    x = rotated([0.0, angle])
    assert len(similar_pairs(x, angle, 180, normalise="none")) == 0
    assert len(similar_pairs(x, 0, angle, normalise="none")) == 0


@pytest.mark.parametrize("angle", [15.0, 60.0, 165.0])
def test_float64_decides_within_float32_rounding_of_a_threshold(angle):
    near = 1e-9  # degrees; a float32 cosine cannot tell
    x = rotated([0.0, angle - near, angle + near])
    below = as_dict(similar_pairs(x, angle, None, normalise="none"))
    assert (0, 1) in below and (0, 2) not in below
    above = as_dict(similar_pairs(x, 0, angle, normalise="none"))
    assert (0, 2) in above and (0, 1) not in above


def test_many_ties_in_a_tile_are_decided_exactly():
    x = rotated([0.0, 60.0, 60.0 - 1e-9, 60.0 + 1e-9] * 30)
    pairs = as_dict(similar_pairs(x, 60, None, normalise="none", tile=50))
    kind = {0: 0.0, 1: 60.0, 2: 60.0 - 1e-9, 3: 60.0 + 1e-9}
    expected = {
        (i, j)
        for i in range(120)
        for j in range(i + 1, 120)
        if abs(kind[i % 4] - kind[j % 4]) < 60.0
    }
    assert pairs.keys() == expected
    assert pairs[0, 4] == pytest.approx(0, abs=2e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1.0, 1e150, 1e300])
@pytest.mark.parametrize("normalise", ["minmax", "centre", "none"])
def test_huge_and_tiny_scales_change_no_angle(scale, normalise):
    x = layer(3).double()
    assert_same(
        similar_pairs(x * scale, 30, 120, normalise=normalise),
        reference(x, 30, 120, normalise),
    )


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e38])
def test_float32_extremes(scale):
    x = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]) * scale
    pairs = similar_pairs(x, 50, 89, normalise="none")
    assert as_dict(pairs) == pytest.approx({(0, 1): 45.0, (0, 2): 90.0})


def test_one_huge_unit_among_tiny_ones_is_no_trouble_without_mapping():
    x = layer(4).double()
    expected = reference(x, 30, 120, "centre")
    x = x * torch.logspace(-200, 200, x.shape[1], dtype=torch.float64)
    assert_same(similar_pairs(x, 30, 120, normalise="centre"), expected)


def test_dead_and_constant_units_are_reported_apart_and_in_no_pair():
    x = torch.tensor([[0.0, 3.0, 1.0, 1.0], [0.0, 3.0, 2.0, 2.1], [0.0, 3.0, 0.0, 0.0]])
    for normalise in ("minmax", "centre", "none"):
        pairs = similar_pairs(x, 20, 160, normalise=normalise)
        assert as_dict(pairs).keys() == {(2, 3)}
        assert pairs.dead.tolist() == [True, False, False, False]
        assert pairs.constant.tolist() == [False, True, False, False]


@pytest.mark.parametrize("screen", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("samples", [2, 100])
def test_copies_and_opposites_of_one_vector(screen, samples):
    one = torch.randn(samples, generator=torch.Generator().manual_seed(0)).double()
    x = one[:, None] * torch.tensor([1.0, -1.0, 2.0, -0.1] * 30).double()
    pairs = similar_pairs(x, 1e-3, 179.999, normalise="none", screen=screen, tile=32)
    assert len(pairs) == 120 * 119 // 2
    opposite = (pairs.i + pairs.j) % 2 == 1
    assert float((pairs.angle_deg - 180.0 * opposite).abs().max()) < 3e-6


@pytest.mark.parametrize("screen", [torch.bfloat16, torch.float32])
def test_a_few_units_far_from_all_others_are_judged_as_well_as_these(screen):
    generator = torch.Generator().manual_seed(0)
    x = 1 + 0.02 * torch.randn(50, 120, generator=generator)
    x[0, ::10] = 300
    x[1, ::20] = -300
    x[:, 5] = 1e-38  # hardly there, and all of the common direction
    x[:, 5] += 1e-39 * torch.arange(50)
    for low, high in ((1.5, 130), (0, 89), (0.01, None)):
        pairs = similar_pairs(x, low, high, normalise="none", screen=screen, tile=50)
        assert_same(pairs, reference(x, low, high, "none"))


def test_a_layer_of_nothing_but_zeros_has_no_pair():
    pairs = similar_pairs(torch.zeros(5, 9), 15, 165)
    assert len(pairs) == 0 and pairs.i.dtype == torch.int64 and bool(pairs.dead.all())


def test_bfloat16_and_gradients_are_taken_as_they_are():
    x = layer(5).bfloat16().requires_grad_()
    pairs = similar_pairs(x, 30, 160)
    assert_same(pairs, reference(x.detach().double(), 30, 160))
    assert not pairs.angle_deg.requires_grad


@pytest.mark.parametrize("screen", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("low", "high"), [(3, None), (20, 165), (0, 100), (89, 91), (95, None)])
def test_the_screen_never_changes_the_result(screen, low, high):
    x = layer(7, samples=90, units=120)
    for normalise in ("minmax", "centre"):
        pairs = similar_pairs(x, low, high, normalise=normalise, screen=screen, tile=50)
        assert_same(pairs, reference(x, low, high, normalise))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    samples=st.integers(2, 400),
    mean=st.sampled_from([0.0, 1.0, 30.0, 1e4]),
    limits=st.sampled_from([(15, 165), (2, None), (0, 150), (0.01, 179)]),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
    kind=st.sampled_from(["minmax", "centre", "none"]),
    given_as=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    scale=st.sampled_from([1.0, 1e-30, 1e30]),
)
def test_the_screen_is_never_below_the_cosine_nor_far_above(
    seed, samples, mean, limits, dtype, kind, given_as, scale
):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 50, generator=generator).exp() + mean
    x[:, ::7] *= -1  # opposite ones, and far from the common vector
    x[0, 3] = 1e6
    x = x.mul_(scale).to(given_as)
    limits = thresholds(*limits)
    prepared = vectors(directions(x, normalise=kind), torch.arange(50), limits, screen=dtype)
    rows = torch.arange(50)
    screen = prepared.screen
    over = screen.sign * (prepared.tile(rows, rows) - screen.shift)
    step = 1 / 128 if dtype == torch.bfloat16 else 1e-6  # of the tile itself
    value = screen.value(rows, rows).double()
    assert bool((value >= over - step * over.abs()).all())
    assert bool((value <= over + screen.slack + step * (over.abs() + screen.slack)).all())
    assert bool((value[over > 0] > 0).all())
    beyond = limits.exactly(prepared.tile(rows, rows)).flatten().nonzero().flatten()
    flat = screen.possible(rows, rows, 2500)
    assert flat is None or set(beyond.tolist()) <= set(flat.tolist())


@cache
def fan(gap):
    """Directions, and the angle of every pair."""
    x = rotated(np.arange(0, 181, gap))
    return x, reference(x, 181, None, "none")


@pytest.mark.parametrize("screen", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("gap", [0.97, 0.3001])
def test_a_fan_of_directions_is_cut_where_the_thresholds_are(screen, gap):
    x, every = fan(gap)
    assert len(every) == x.shape[1] * (x.shape[1] - 1) // 2
    for low, high in ((15, 165), (0, 165), (15, None), (40, 140)):
        pairs = similar_pairs(x, low, high, normalise="none", screen=screen, tile=100)
        beyond = {
            pair: angle
            for pair, angle in every.items()
            if angle < low or (high is not None and angle > high)
        }
        assert_same(pairs, beyond)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    least=st.integers(-40, 40),
)
def test_positions_of_large_integers_are_the_same_on_every_device(seed, shape, least):
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(-40, 40, shape, generator=generator).to(torch.int16)
    expected = [k for k, value in enumerate(bits.flatten().tolist()) if value >= least]
    for find in (at_least, at_least_numpy):
        assert find(bits, least, len(expected)).tolist() == expected
        assert not expected or find(bits, least, len(expected) - 1) is None


def test_units_that_point_nearly_one_way_are_told_apart_in_bfloat16():
    x = 1 + 0.01 * torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    source = directions(x, normalise="none")
    rows = torch.arange(300)
    prepared = vectors(source, rows, thresholds(0.7, None), screen=torch.bfloat16)
    assert prepared.common is not None and prepared.screen.slack < 1e-5
    flat = prepared.screen.possible(rows, rows, 2 * 300)
    assert flat is not None and len(flat) >= 300
    assert_same(similar_pairs(x, 0.7, None, normalise="none"), reference(x, 0.7, None, "none"))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    tile=st.integers(1, 60),
    low=st.floats(0.5, 80),
    kind=st.sampled_from(["minmax", "centre", "none"]),
    screen=st.sampled_from([torch.bfloat16, torch.float32, None]),
)
def test_pairs_of_layers_drawn_at_random_equal_a_double_loop(seed, tile, low, kind, screen):
    x = layer(seed, samples=15, units=45)
    pairs = similar_pairs(x, low, 180 - low, normalise=kind, tile=tile, screen=screen)
    assert_same(pairs, reference(x, low, 180 - low, kind))


def test_vectors_made_when_needed_give_the_same(monkeypatch):
    x = layer(8)
    expected = as_dict(similar_pairs(x, 30, 120))
    monkeypatch.setattr("secateurs.prune.similarity.normalise.HELD_BYTES", 0)
    assert directions(x).by_unit is None
    assert as_dict(similar_pairs(x, 30, 120)) == pytest.approx(expected, abs=1e-9)


def test_activations_that_lie_unit_by_unit_are_not_copied_and_give_the_same():
    x = layer(8)
    turned = x.T.contiguous().T
    before = turned.clone()
    by_unit = directions(turned).by_unit
    assert by_unit is not None and by_unit.data_ptr() == turned.data_ptr()
    assert as_dict(similar_pairs(turned, 30, 120)) == as_dict(similar_pairs(x, 30, 120))
    assert torch.equal(turned, before)


@pytest.mark.parametrize("mean", [0.0, 3.0, 1e3, 1e6])
def test_float32_is_trusted_with_the_first_look_where_means_are_near(mean):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(80, 40, generator=generator)
    x[:, ::5] = x[:, 1::5] + 0.05 * torch.randn(80, 8, generator=generator)
    x += mean
    source = directions(x, normalise="centre")
    assert (in_single(source, torch.arange(40)) is not None) == (mean < 1e3)
    assert_same(similar_pairs(x, 20, 150, normalise="centre"), reference(x, 20, 150, "centre"))


def test_a_low_matmul_precision_of_the_caller_changes_nothing():
    x = layer(6, samples=300, units=200)
    expected = as_dict(similar_pairs(x, 30, 100))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert as_dict(similar_pairs(x, 30, 100)) == expected
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (165, 15, "expected less than high_deg, got 165 >= 15"),
        (20, 20, "got 20 >= 20"),
        (-1, 165, "low_deg: expected an angle within 0..180 degrees, got -1"),
        (15, 181, "high_deg: expected an angle within 0..180 degrees, got 181"),
        (float("nan"), 165, "got nan"),
    ],
)
def test_bad_thresholds(low, high, words):
    with pytest.raises(InputError, match=words):
        similar_pairs(layer(0), low, high)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_named(value):
    x = layer(0)
    x[3, 11] = value
    with pytest.raises(InputError, match=rf"unit 11 is {value} at sample 3"):
        similar_pairs(x, 15, 165)


def test_other_bad_input():
    with pytest.raises(InputError, match="at least 2 samples, got 1"):
        similar_pairs(torch.ones(1, 4), 15, 165)
    with pytest.raises(InputError, match=r"expected \(samples, units\), got shape \(4,\)"):
        similar_pairs(torch.ones(4), 15, 165)
    with pytest.raises(InputError, match="floating-point"):
        similar_pairs(torch.ones(4, 2, dtype=torch.int64), 15, 165)
    with pytest.raises(InputError, match="normalise: expected one of minmax, centre, none"):
        similar_pairs(layer(0), 15, 165, normalise="zscore")  # pyright: ignore
    with pytest.raises(InputError, match="norm_std"):
        similar_pairs(layer(0), 15, 165, norm_std=-1.0)


def test_a_list_that_would_not_fit_says_how_many_pairs_there_are():
    x = layer(0)
    num = len(similar_pairs(x, 40, 140))
    assert len(similar_pairs(x, 40, 140, max_pairs=num)) == num
    with pytest.raises(InputError, match=f"{num} pairs are more than max_pairs = {num - 1}"):
        similar_pairs(x, 40, 140, max_pairs=num - 1, tile=16)
