from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneGroupOut, LeaveOneOut, cross_val_predict
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from secateurs.errors import InputError
from secateurs.prune.compensation import ridge as ridge_module
from secateurs.prune.compensation.ridge import fit_ridge, fit_ridge_stream, left_out, left_out_error
from secateurs.prune.compensation.ridge_factors import least_error


@pytest.fixture(params=[False, True], ids=["eigenvectors", "factors"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As few samples are solved, and as many are."""
    if request.param:
        monkeypatch.setattr(ridge_module, "LARGE", 1)


def problem(samples, inputs, outputs=3, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, inputs)) * rng.uniform(0.1, 3, inputs) + shift
    y = x @ rng.normal(size=(inputs, outputs)) + rng.normal(size=(samples, outputs)) + 5
    return x, y


def scale(x):
    return float(np.square(x - x.mean(0)).sum()) / min(x.shape)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(("samples", "inputs"), [(30, 8), (8, 30), (12, 12)])
@pytest.mark.parametrize("ridge", [1e-6, 1e-2, 10.0])
def test_coefficients_against_scikit_learn(samples, inputs, ridge):
    x, y = problem(samples, inputs, shift=3.0)
    weight, bias, _ = fit_ridge(torch.tensor(x), torch.tensor(y), [ridge])
    plain = Ridge(alpha=ridge * scale(x), solver="svd").fit(x, y)
    np.testing.assert_allclose(weight, plain.coef_, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(bias, plain.intercept_, rtol=1e-6)


@pytest.mark.parametrize(("samples", "inputs"), [(40, 6), (20, 35)])
def test_the_ridge_is_the_one_of_the_least_leave_one_out_error(samples, inputs):
    x, y = problem(samples, inputs, seed=1)
    ridges = [1e-3, 1e-2, 1e-1, 1.0, 10.0]
    _, _, chosen = fit_ridge(torch.tensor(x), torch.tensor(y), ridges)
    errors = []
    for ridge in ridges:
        # The penalty is that of the whole data, as in the closed form.
        model = Ridge(alpha=ridge * scale(x), solver="svd")
        errors.append(np.square(cross_val_predict(model, x, y, cv=LeaveOneOut()) - y).sum())
    assert chosen == ridges[int(np.argmin(errors))]


def views(images, inputs, copies, seed=3):
    """Samples that are so many views of the same images, view by view, nearly alike."""
    x, y = problem(images, inputs, seed=seed)
    rng = np.random.default_rng(seed)
    near = [x + rng.normal(scale=0.05, size=x.shape) for _ in range(copies)]
    return np.concatenate(near), np.tile(y, (copies, 1))


@pytest.mark.parametrize(("images", "inputs", "copies"), [(30, 25, 2), (25, 90, 2), (16, 12, 3)])
def test_views_of_an_image_are_left_out_together(images, inputs, copies):
    x, y = views(images, inputs, copies)
    ridges = [float(r) for r in np.logspace(-4, 0, 17)]
    _, _, chosen = fit_ridge(torch.tensor(x), torch.tensor(y), ridges, copies=copies)
    groups = np.tile(np.arange(images), copies)
    errors = []
    for ridge in ridges:
        model = Ridge(alpha=ridge * scale(x), solver="svd")
        left = cross_val_predict(model, x, y, groups=groups, cv=LeaveOneGroupOut())
        errors.append(np.square(left - y).sum())
    assert chosen == ridges[int(np.argmin(errors))]
    # One view left out alone is told by the others: less regularisation would seem enough.
    assert fit_ridge(torch.tensor(x), torch.tensor(y), ridges)[2] < chosen


def test_a_stream_of_views_equals_the_whole():
    x, y = (torch.tensor(a) for a in views(40, 12, 2))
    ridges = [float(r) for r in np.logspace(-4, 2, 25)]

    def batches():
        for part in torch.arange(80).view(2, 40).split(9, dim=1):
            yield x[part.flatten()], y[part.flatten()]

    whole = fit_ridge(x, y, ridges, copies=2)
    parts = fit_ridge_stream(batches, ridges=ridges, copies=2)
    assert whole[2] == parts[2]
    torch.testing.assert_close(whole[0], parts[0])
    with pytest.raises(InputError, match="ridge: 80 samples are not 3 views of the same images"):
        fit_ridge(x, y, ridges, copies=3)


@pytest.mark.parametrize("pieces", [1, 7, 40])
def test_a_stream_equals_the_whole(pieces):
    x, y = (torch.tensor(a) for a in problem(120, 10, shift=1e4))
    calls = 0

    def batches():
        nonlocal calls
        calls += 1
        return zip(x.tensor_split(pieces), y.tensor_split(pieces), strict=True)

    weight, bias, ridge = fit_ridge_stream(batches, ridges=[1e-4, 1e-2, 1.0])
    plain = Ridge(alpha=ridge * scale(x.numpy()), solver="svd").fit(x, y)
    np.testing.assert_allclose(weight, plain.coef_, rtol=1e-6)
    np.testing.assert_allclose(bias, plain.intercept_, rtol=1e-6)
    assert calls == 2


def test_an_exact_fit_is_found_to_rounding():
    x, _ = problem(50, 6)
    true = np.random.default_rng(2).normal(size=(2, 6))
    weight, bias, ridge = fit_ridge(torch.tensor(x), torch.tensor(x @ true.T + 7))
    np.testing.assert_allclose(weight, true, atol=1e-6)
    np.testing.assert_allclose(bias, [7, 7], atol=1e-6)
    assert ridge == 1e-8


def test_inputs_that_never_change_give_the_mean():
    weight, bias, _ = fit_ridge(torch.ones(5, 2), torch.arange(5.0)[:, None])
    assert weight.tolist() == [[0.0, 0.0]] and bias.tolist() == [2.0]
    weight, bias, _ = fit_ridge(torch.ones(2, 5), torch.arange(2.0)[:, None])
    assert weight.abs().sum() == 0 and bias.tolist() == [0.5]


def test_bad_requests():
    with pytest.raises(InputError, match="ridges: expected positive numbers"):
        fit_ridge(torch.ones(5, 2), torch.ones(5, 1), [0.0])
    with pytest.raises(InputError, match="no sample"):
        fit_ridge_stream(lambda: iter(()))


@pytest.mark.parametrize(("images", "inputs", "copies"), [(30, 6, 1), (14, 40, 1), (15, 50, 2)])
def test_the_left_out_error_is_that_of_leaving_out(images, inputs, copies):
    x, y = views(images, inputs, copies)
    ridges = [1e-3, 1e-1, 1.0]
    groups = np.tile(np.arange(images), copies)
    errors = []
    for ridge in ridges:
        model = Ridge(alpha=ridge * scale(x), solver="svd")
        away = cross_val_predict(model, x, y, groups=groups, cv=LeaveOneGroupOut())
        errors.append(np.square(away - y).sum() / len(x))
    found = left_out_error(torch.tensor(x), torch.tensor(y), ridges=ridges, copies=copies)
    assert found == pytest.approx(min(errors), rel=1e-6)


def test_the_left_out_error_of_inputs_that_never_change_is_the_variance():
    y = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    assert left_out_error(torch.ones(2, 3), y) == pytest.approx(1.0)


@pytest.mark.parametrize(("images", "inputs", "copies"), [(30, 4, 1), (40, 12, 2), (16, 60, 3)])
def test_what_is_left_out_is_foretold_from_the_others(images, inputs, copies):
    x, y = views(images, inputs, copies)
    ridge = 0.1
    found = left_out(torch.tensor(x), torch.tensor(y), ridges=[ridge], copies=copies).numpy()
    groups = np.tile(np.arange(images), copies)
    model = Ridge(alpha=ridge * scale(x), solver="svd")
    expected = cross_val_predict(model, x, y, groups=groups, cv=LeaveOneGroupOut())
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize(("samples", "inputs"), [(60, 90), (90, 60)])
def test_factors_give_what_eigenvectors_give(
    samples: int, inputs: int, copies: int, monkeypatch: pytest.MonkeyPatch
):
    x, y = (torch.tensor(values) for values in views(samples // copies, inputs, copies))
    expected = fit_ridge(x, y, copies=copies)
    monkeypatch.setattr(ridge_module, "LARGE", 1)
    found = fit_ridge(x, y, copies=copies)
    assert found[2] == expected[2]
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-7, atol=1e-9)
    constant, mean, _ = fit_ridge(torch.ones(6, inputs), y[:6])
    assert constant.abs().sum() == 0 and torch.allclose(mean, y[:6].mean(0))


def test_smaller_ridges_are_not_tried_once_the_error_rises():
    tried: list[float] = []

    def error(ridge: float) -> tuple[float, torch.Tensor]:
        tried.append(ridge)
        return {1.0: 3.0, 0.1: 2.0, 0.01: 2.0, 1e-3: 2.5}[ridge], torch.tensor(ridge)

    assert least_error([1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0], error)[0] == 0.01
    assert tried == [1.0, 0.1, 0.01, 1e-3]


class _Largest(TorchDispatchMode):
    """Notices the bytes of the largest tensor that any operation makes."""

    nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.nbytes = max(self.nbytes, value.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("outputs", [3, 300])
def test_many_views_take_no_more_memory_than_the_gram_matrix(outputs):
    # As in a convolution, whose 49 positions in two views are 98 copies of an image.
    images, copies = 4, 50
    x, y = torch.randn(images * copies, 250), torch.randn(images * copies, outputs)
    with _Largest() as seen:
        fit_ridge(x, y, copies=copies)
    # The products of an image's rows, held at once, were 50 times the samples' Gram matrix.
    assert seen.nbytes <= 8 * max(len(x) ** 2, x.numel(), y.numel(), 250 * outputs)
