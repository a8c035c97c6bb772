from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge

from secateurs.errors import InputError
from secateurs.prune.compensation.outgoing_weights import (
    add,
    affine,
    drop,
    fit_ridge,
    least_squares,
)
from secateurs.prune.selection.pairwise import pairwise


def problem(seed=0, samples=50, units=30, outputs=4):
    generator = torch.Generator().manual_seed(seed)
    x = torch.relu(torch.randn(samples, units, generator=generator))
    weight = torch.randn(outputs, units, generator=generator)
    bias = torch.randn(outputs, generator=generator)
    return x, weight, bias


def outputs(x, selection, outgoing):
    return x[:, selection.survivors] @ outgoing.weight.T + outgoing.bias


@pytest.mark.parametrize(("samples", "inputs"), [(40, 10), (20, 35), (30, 30)])
@pytest.mark.parametrize("ridge", [1e-4, 1.0])
def test_ridge_equals_scikit_learn(samples, inputs, ridge):
    rng = np.random.default_rng(samples)
    x, y = rng.normal(size=(samples, inputs)) + 2, rng.normal(size=(samples, 3)) - 1
    change, offset, _ = fit_ridge(torch.tensor(x), torch.tensor(y), [ridge])
    singular = np.linalg.svd(x - x.mean(0), compute_uv=False)
    expected = Ridge(alpha=ridge * (singular**2).sum() / min(x.shape), solver="svd").fit(x, y)
    np.testing.assert_allclose(change, expected.coef_, atol=1e-9)
    np.testing.assert_allclose(offset, expected.intercept_, atol=1e-9)


@pytest.mark.parametrize(("samples", "inputs"), [(25, 8), (15, 30)])
def test_the_ridge_chosen_is_the_one_of_a_real_leave_one_out(samples, inputs):
    rng = np.random.default_rng(inputs)
    x = rng.normal(size=(samples, inputs))
    y = x[:, :3] @ rng.normal(size=(3, 2)) + rng.normal(size=(samples, 2))
    ridges = [1e-4, 1e-2, 0.1, 1.0, 10.0]
    scale = (np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2).sum() / min(x.shape)
    errors = []
    for ridge in ridges:
        error = 0.0
        for k in range(samples):
            rest = np.arange(samples) != k
            model = Ridge(alpha=ridge * scale, solver="svd").fit(x[rest], y[rest])
            error += ((model.predict(x[k : k + 1]) - y[k]) ** 2).sum()
        errors.append(error)
    _, _, chosen = fit_ridge(torch.tensor(x), torch.tensor(y), ridges)
    assert chosen == ridges[int(np.argmin(errors))]
    assert int(np.argmin(errors)) > 0


def test_least_squares_is_anchored_to_the_present_weights():
    x, weight, bias = problem()
    selection = pairwise(x, low_deg=40)
    strong = least_squares(x, weight, bias, selection, ridges=[1e12])
    torch.testing.assert_close(strong.weight, weight[:, selection.survivors])
    missing = x[:, selection.removed] @ weight[:, selection.removed].T
    torch.testing.assert_close(strong.bias, bias + missing.mean(0))


def test_least_squares_fits_a_target_instead():
    x, weight, bias = problem(samples=80)
    selection = pairwise(x, low_deg=40)
    target = torch.randn(80, 4, generator=torch.Generator().manual_seed(1))
    fitted = least_squares(x, weight, bias, selection, target=target, ridges=[1e-12])
    kept = x[:, selection.survivors].double().numpy()
    expected = LinearRegression().fit(kept, target.double().numpy())
    np.testing.assert_allclose(fitted.weight, expected.coef_, atol=1e-4)
    np.testing.assert_allclose(fitted.bias, expected.intercept_, atol=1e-4)


def test_drop_leaves_weights_alone():
    x, weight, bias = problem()
    selection = pairwise(x, low_deg=40)
    outgoing = drop(x, weight, bias, selection)
    assert torch.equal(outgoing.weight, weight[:, selection.survivors])
    assert torch.equal(outgoing.bias, bias)


@pytest.mark.parametrize("step", [add, affine, least_squares])
def test_duplicates_merge_with_the_output_unchanged(step):
    x, weight, bias = problem()
    x = torch.cat([x, x[:, [3, 3, 7]]], 1)
    weight = torch.cat([weight, torch.randn(4, 3)], 1)
    selection = pairwise(x, low_deg=0.01, high_deg=None)
    assert selection.removed.tolist() == [30, 31, 32]
    outgoing = step(x, weight, bias, selection)
    assert float((outputs(x, selection, outgoing) - (x @ weight.T + bias)).abs().max()) < 1e-5


@pytest.mark.parametrize("step", [affine, least_squares])
def test_scaled_and_shifted_units_merge_with_the_output_unchanged(step):
    x, weight, bias = problem()
    x = torch.cat([x, 2.5 * x[:, [3]] + 1, 2 - 0.5 * x[:, [4]]], 1)
    weight = torch.cat([weight, torch.randn(4, 2)], 1)
    selection = pairwise(x, low_deg=0.01, high_deg=179.99, normalise="centre")
    assert selection.removed.tolist() == [30, 31] and selection.parent.tolist() == [3, 4]
    outgoing = step(x, weight, bias, selection)
    assert float((outputs(x, selection, outgoing) - (x @ weight.T + bias)).abs().max()) < 1e-5


def test_add_subtracts_an_exact_opposite():
    x, weight, bias = problem()
    x = torch.cat([x, 1 - x[:, [5]]], 1)
    weight = torch.cat([weight, torch.randn(4, 1)], 1)
    selection = pairwise(x, low_deg=0.01, high_deg=179.99, normalise="centre")
    outgoing = add(x, weight, bias, selection)
    assert float((outputs(x, selection, outgoing) - (x @ weight.T + bias)).abs().max()) < 1e-5


@pytest.mark.parametrize("step", [add, affine, least_squares])
def test_a_constant_unit_goes_into_the_bias_and_a_dead_one_nowhere(step):
    x, weight, bias = problem(units=5)
    x[:, 1], x[:, 2] = 3.0, 0.0
    selection = pairwise(x, low_deg=0.01)
    outgoing = step(x, weight, bias, selection)
    torch.testing.assert_close(outgoing.weight, weight[:, [0, 3, 4]], atol=1e-5, rtol=0)
    torch.testing.assert_close(outgoing.bias, bias + 3 * weight[:, 1], atol=1e-5, rtol=0)


def test_affine_equals_one_regression_a_unit():
    x, weight, bias = problem()
    selection = pairwise(x, low_deg=45)
    expected = weight[:, selection.survivors].double().numpy()
    offset = bias.double().numpy()
    position = {int(unit): k for k, unit in enumerate(selection.survivors)}
    for unit, parent in zip(selection.removed.tolist(), selection.parent.tolist(), strict=True):
        line = LinearRegression().fit(x[:, [parent]].double().numpy(), x[:, unit].double().numpy())
        outgoing = weight[:, unit].double().numpy()
        expected[:, position[parent]] += outgoing * line.coef_[0]
        offset = offset + outgoing * line.intercept_
    got = affine(x, weight, bias, selection)
    np.testing.assert_allclose(got.weight, expected, atol=1e-5)
    np.testing.assert_allclose(got.bias, offset, atol=1e-5)


def test_refitting_comes_nearest_to_what_the_next_layer_received():
    x, weight, bias = problem(samples=200)
    selection = pairwise(x, low_deg=42)
    assert len(selection.removed) > 0
    whole = x @ weight.T + bias
    errors = [
        float((outputs(x, selection, step(x, weight, bias, selection)) - whole).square().mean())
        for step in (drop, add, affine, partial(least_squares, ridges=[1e-9]))
    ]
    assert errors[3] == min(errors) and errors[2] < min(errors[:2])


def test_a_layer_without_bias():
    x, weight, _ = problem()
    selection = pairwise(x, low_deg=40)
    torch.testing.assert_close(
        least_squares(x, weight, None, selection).weight,
        least_squares(x, weight, torch.zeros(4), selection).weight,
    )


def test_inputs_are_left_as_they_were():
    x, weight, bias = problem()
    before = [tensor.clone() for tensor in (x, weight, bias)]
    selection = pairwise(x, low_deg=40)
    for step in (drop, add, affine, least_squares):
        step(x, weight, bias, selection)
    assert all(map(torch.equal, before, (x, weight, bias)))


def test_shapes_that_do_not_fit():
    x, weight, bias = problem()
    selection = pairwise(x, low_deg=40)
    with pytest.raises(InputError, match=r"weight: expected \(outputs, 30\), got \(4, 29\)"):
        add(x, weight[:, 1:], bias, selection)
    with pytest.raises(InputError, match=r"activations: expected \(samples, 30\)"):
        drop(x[:, 1:], weight, bias, selection)
    with pytest.raises(InputError, match=r"bias: expected \(4,\), got \(3,\)"):
        affine(x, weight, bias[1:], selection)
    with pytest.raises(InputError, match=r"target: expected shape \(50, 4\), got \(49, 4\)"):
        least_squares(x, weight, bias, selection, target=torch.zeros(49, 4))
    with pytest.raises(InputError, match="ridges: expected positive numbers"):
        least_squares(x, weight, bias, selection, ridges=[0.0])
