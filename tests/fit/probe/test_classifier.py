"""The closed form of leave-one-group-out against classifiers that are fitted without each group."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.fit.probe import classifier
from secateurs.fit.probe.classifier import fit_classifier


def _problem(
    views: int, images: int, width: int, *, seed: int = 0
) -> tuple[torch.Tensor, NDArray[np.int64]]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (images,), generator=generator)
    centres = torch.randn(3, width, generator=generator)
    noise = torch.randn(views, images, width, generator=generator)
    return 5 + 3 * (centres[labels] + noise), labels.numpy()


def _refit(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    weight: NDArray[np.float64],
    penalty: float,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Ridge regression with an unpenalised intercept, by the normal equations written out."""
    whole = np.concatenate([x, np.ones((len(x), 1))], 1)
    left = whole.T @ (weight[:, None] * whole)
    left[:-1, :-1] += penalty * np.eye(x.shape[1])
    solved = np.linalg.solve(left, whole.T @ (weight[:, None] * y))
    return solved[:-1], solved[-1]


def _reference(
    features: torch.Tensor,
    labels: NDArray[np.int64],
    groups: list[str] | None,
    ridges: list[float],
    *,
    balanced: bool,
) -> tuple[float, NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    views, images, width = features.shape
    x = features.double().numpy().reshape(-1, width)
    label = np.tile(labels, views)
    y = np.eye(3)[label]
    weight = np.ones(len(x))
    if balanced:
        counts = np.bincount(label, minlength=3)
        weight = len(label) / np.count_nonzero(counts) / counts[label]
    mean = np.average(x, 0, weight)
    std = np.sqrt(np.average((x - mean) ** 2, 0, weight))
    x = (x - mean) / std
    own = np.tile(groups or [str(k) for k in range(images)], views)
    scaled = np.sqrt(weight)[:, None] * x
    penalty = (np.linalg.svd(scaled, compute_uv=False) ** 2).sum() / np.linalg.matrix_rank(scaled)
    errors, scores = [], []
    for ridge in ridges:
        out = np.empty_like(y)
        for group in np.unique(own):
            rest = own != group
            w, b = _refit(x[rest], y[rest], weight[rest], ridge * penalty)
            out[~rest] = x[~rest] @ w + b
        errors.append((weight[:, None] * (y - out) ** 2).sum())
        scores.append(out)
    best = int(np.argmin(errors))
    w, b = _refit(x, y, weight, ridges[best] * penalty)
    w = w / std[:, None]
    return ridges[best], scores[best].reshape(views, images, 3), w.T, b - mean @ w


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("width", [6, 70])
@pytest.mark.parametrize("grouped", [False, True])
def test_it_equals_classifiers_fitted_without_each_group(
    monkeypatch: pytest.MonkeyPatch, width: int, *, balanced: bool, grouped: bool
):
    monkeypatch.setattr(classifier, "ROWS", 11)
    features, labels = _problem(2, 24, width)
    # Groups of one image, of a few, and one that is larger than the rank of the narrow features.
    groups = [str(min(k // 2, 6)) for k in range(24)] if grouped else None
    ridges = [0.01, 0.1, 1.0, 10.0]
    found = fit_classifier(features, labels, 3, groups, balanced=balanced, ridges=ridges)
    ridge, scores, weight, bias = _reference(features, labels, groups, ridges, balanced=balanced)
    assert found.ridge == ridge
    np.testing.assert_allclose(found.left_out.numpy(), scores, atol=1e-8)
    np.testing.assert_allclose(found.weight.numpy(), weight, atol=1e-8)
    np.testing.assert_allclose(found.bias.numpy(), bias, atol=1e-8)


def test_the_order_of_images_and_the_scale_of_features_change_nothing():
    features, labels = _problem(2, 20, 5)
    groups = [str(k // 3) for k in range(20)]
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    found = fit_classifier(features, labels, 3, groups)
    scaled = fit_classifier(
        features[:, order].double() * torch.tensor([1e-3, 1, 7, 100, 2]) - 4,
        labels[order.numpy()],
        3,
        [groups[k] for k in order.tolist()],
    )
    np.testing.assert_allclose(scaled.left_out, found.left_out[:, order], atol=1e-9)


def test_scores_are_the_linear_function_that_was_fitted():
    features, labels = _problem(1, 20, 4)
    found = fit_classifier(features, labels, 3)
    accuracy = (found.scores(features[0]).argmax(1).numpy() == labels).mean()
    assert accuracy > 0.6  # of 1/3 by chance
    assert found.errors[classifier.RIDGES.index(found.ridge)] == min(found.errors)


def test_constant_features_and_classes_without_images_are_no_error():
    features, labels = _problem(2, 12, 3)
    features[:, :, 1] = 7.0
    with_constant = fit_classifier(features, labels, 5)
    without = fit_classifier(features[:, :, [0, 2]], labels, 5)
    np.testing.assert_allclose(with_constant.left_out, without.left_out, atol=1e-9)
    assert with_constant.weight[:, 1].abs().max() == 0
    assert with_constant.left_out[:, :, 3:].abs().max() < 1e-9
    nothing = fit_classifier(torch.ones(1, 12, 2), labels, 3)
    assert nothing.weight.abs().max() == 0
    assert bool(nothing.left_out.isfinite().all())


def test_one_group_is_no_group():
    features, labels = _problem(2, 12, 3)
    one = fit_classifier(features, labels, 3, ["a"] * 12)
    none = fit_classifier(features, labels, 3)
    assert torch.equal(one.left_out, none.left_out)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": torch.zeros(12, 3)}, "features must be (views, 12 images, features)"),
        ({"groups": ["a"]}, "1 groups for 12 images"),
        ({"ridges": [0.0]}, "ridges: expected positive numbers, got [0.0]"),
    ],
)
def test_bad_input_is_named(changes: dict[str, object], words: str):
    features, labels = _problem(1, 12, 3)
    with pytest.raises(InputError, match=re.escape(words)):
        fit_classifier(**({"features": features, "labels": labels, "num_classes": 3} | changes))  # type: ignore[arg-type]
