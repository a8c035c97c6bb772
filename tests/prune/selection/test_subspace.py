from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.errors import InputError
from secateurs.prune.compensation.outgoing_weights import least_squares
from secateurs.prune.selection.subspace import subspace


def activations(seed=0, samples=40, units=25):
    generator = torch.Generator().manual_seed(seed)
    return torch.relu(torch.randn(samples, units, generator=generator) + 0.5)


@pytest.mark.parametrize(("samples", "units"), [(40, 25), (15, 60), (200, 20)])
@pytest.mark.parametrize("keep", [1, 5, 12])
def test_survivors_are_the_pivots_of_qr(samples, units, keep):
    x = activations(1, samples, units)
    centred = x.double().numpy() - x.double().numpy().mean(0)
    _, _, pivots = scipy.linalg.qr(centred, pivoting=True, mode="economic")
    assert subspace(x, keep=keep).survivors.tolist() == sorted(pivots[:keep].tolist())


def test_weighted_survivors_are_the_pivots_of_scaled_columns():
    x = activations(2)
    weight = torch.rand(3, 25, generator=torch.Generator().manual_seed(0)) ** 4
    centred = x.double().numpy() - x.double().numpy().mean(0)
    scaled = centred * np.linalg.norm(weight.double().numpy(), axis=0)
    _, _, pivots = scipy.linalg.qr(scaled, pivoting=True, mode="economic")
    assert subspace(x, keep=6, weight=weight).survivors.tolist() == sorted(pivots[:6].tolist())
    assert subspace(x, keep=6).survivors.tolist() != sorted(pivots[:6].tolist())


def span_angles(x, survivors, removed):
    """Angles to the span of the survivors and the constant vector, by SciPy's least squares."""
    x = x.double().numpy()
    x = x - x.mean(0)
    fitted, _, _, _ = scipy.linalg.lstsq(x[:, survivors], x[:, removed])
    residual = np.linalg.norm(x[:, survivors] @ fitted - x[:, removed], axis=0)
    return np.degrees(np.arcsin(residual / np.linalg.norm(x[:, removed], axis=0)))


@pytest.mark.parametrize("angle", [25.0, 45.0, 70.0])
def test_every_removed_unit_is_within_the_angle_of_the_span(angle):
    x = activations(3, 60, 50)
    chosen = subspace(x, angle_deg=angle)
    expected = span_angles(x, chosen.survivors.tolist(), chosen.removed.tolist())
    np.testing.assert_allclose(chosen.span_deg, expected, atol=1e-5)
    assert len(expected) and float(chosen.span_deg.max()) <= angle + 1e-6


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_survivors_follow_a_permutation_of_units(seed):
    x = activations(seed)
    order = torch.randperm(25, generator=torch.Generator().manual_seed(seed))
    plain = subspace(x, keep=8).survivors.tolist()
    assert sorted(order[subspace(x[:, order], keep=8).survivors].tolist()) == plain


def test_sums_scaled_copies_and_duplicates_are_rebuilt_exactly():
    x = activations(4, 60, 12)
    extra = [x[:, [0]] + x[:, [1]], 3 * x[:, [2]] + 1, x[:, [3]], 2 - x[:, [4]]]
    x = torch.cat([x, *extra], 1)
    weight = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    chosen = subspace(x, angle_deg=0.01)
    assert len(chosen.survivors) == 12
    fitted = least_squares(x, weight, None, chosen)
    rebuilt = x[:, chosen.survivors] @ fitted.weight.T + fitted.bias
    assert float((rebuilt - x @ weight.T).abs().max()) < 1e-5


def test_no_more_are_kept_than_the_rank():
    x = activations(5, samples=8, units=30)
    assert len(subspace(x, keep=30).survivors) == 7
    assert len(subspace(x, angle_deg=0).survivors) == 7


def test_dead_and_constant_units_go_first():
    x = activations(6)
    x[:, 3], x[:, 9] = 0, 2
    chosen = subspace(x, keep=25)
    assert chosen.removed.tolist() == [3, 9]
    assert chosen.span_deg.isnan().all() and chosen.parent.tolist() == [-1, -1]


def test_bad_input():
    x = activations()
    with pytest.raises(InputError, match="expected angle_deg or keep"):
        subspace(x)
    with pytest.raises(InputError, match=r"angle_deg: expected within 0..90 degrees, got 91"):
        subspace(x, angle_deg=91)
    with pytest.raises(InputError, match="keep: expected at least 1 unit, got 0"):
        subspace(x, keep=0)
    with pytest.raises(InputError, match=r"weight: expected \(outputs, 25\), got \(3, 24\)"):
        subspace(x, keep=3, weight=torch.ones(3, 24))
    with pytest.raises(InputError, match="dead or constant"):
        subspace(torch.zeros(4, 3), keep=1)
