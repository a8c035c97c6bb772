"""Calibration against scikit-learn and formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve

from secateurs.errors import InputError
from secateurs.fit.confidence import (
    answered_at,
    coverage_curve,
    fit_temperature,
    reliability,
    thinned,
    threshold_for,
)


def _problem(num: int = 400) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, num)
    logits = generator.normal(size=(num, 3)) + 2 * np.eye(3)[labels]
    p = np.exp(2 * logits)
    return p / p.sum(1, keepdims=True), labels


def test_bins_are_those_of_scikit_learn():
    p, labels = _problem()
    found = reliability(p, labels, num_bins=10)
    accuracy, confidence = calibration_curve(p.argmax(1) == labels, p.max(1), n_bins=10)
    filled = [one for one in found.bins if one.num_images]
    assert [one.accuracy for one in filled] == pytest.approx(list(accuracy))
    assert [one.confidence for one in filled] == pytest.approx(list(confidence))
    assert sum(one.num_images for one in found.bins) == len(labels)


def test_the_error_is_that_of_the_formula_written_out():
    p, labels = _problem()
    confidence, correct = p.max(1), p.argmax(1) == labels
    expected = 0.0
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert reliability(p, labels, num_bins=15).error == pytest.approx(expected)
    perfect = np.eye(3)[labels]
    assert reliability(perfect, labels).error == 0


def test_the_curve_is_a_threshold_at_every_confidence():
    p, labels = _problem(60)
    curve = coverage_curve(p, labels)
    assert len(curve) == 60
    assert curve[0].coverage == 1
    for one in curve:
        kept = p.max(1) >= one.threshold
        assert one.num_images == kept.sum()
        assert one.accuracy == pytest.approx((p.argmax(1) == labels)[kept].mean())
    found = answered_at(p, labels, curve[20].threshold)
    assert found == curve[20]
    assert answered_at(p, labels, 1.1) is None


def test_images_of_the_same_confidence_are_answered_together():
    p = np.array([[0.8, 0.2], [0.8, 0.2], [0.7, 0.3]])
    curve = coverage_curve(p, np.array([0, 1, 0]))
    assert [one.num_images for one in curve] == [3, 2]


def _bound(right: int, num: int) -> float:
    return binomtest(right, num, alternative="greater").proportion_ci(0.95, "exact").low


def test_the_threshold_answers_as_many_as_the_target_allows_with_confidence():
    p, labels = _problem()
    curve = coverage_curve(p, labels)
    bounds = [_bound(round(one.accuracy * one.num_images), one.num_images) for one in curve]
    found = threshold_for(curve, 0.9)
    assert found is not None
    wanted = next(place for place, bound in enumerate(bounds) if bound >= 0.9)
    assert found == (curve[wanted], pytest.approx(bounds[wanted]))
    wrong = np.eye(3)[(labels + 1) % 3]
    assert threshold_for(coverage_curve(wrong, labels), 0.5) is None


def test_on_few_images_the_threshold_has_the_highest_bound():
    p, labels = _problem(30)
    curve = coverage_curve(p, labels)
    bounds = [_bound(round(one.accuracy * one.num_images), one.num_images) for one in curve]
    found = threshold_for(curve, 0.95)
    assert found is not None and max(bounds) < 0.95
    assert found == (curve[int(np.argmax(bounds))], pytest.approx(max(bounds)))


def test_answers_above_the_threshold_are_as_accurate_as_promised_on_other_images():
    p, labels = _problem(8000)
    promised = kept = 0
    for first in range(0, 8000, 100):
        some = slice(first, first + 100)
        found = threshold_for(coverage_curve(p[some], labels[some]), 0.95)
        assert found is not None
        promised += 1
        answered = answered_at(p, labels, found[0].threshold)
        kept += answered is not None and answered.accuracy >= found[1]
    assert kept / promised > 0.8  # with the plain accuracy it is a third


def test_a_long_curve_is_thinned_between_its_ends():
    curve = coverage_curve(*_problem())
    few = thinned(curve, 50)
    assert len(few) == 50
    assert (few[0], few[-1]) == (curve[0], curve[-1])
    assert thinned(few, 50) is few


def test_shapes_are_checked():
    with pytest.raises(InputError, match="probabilities must be"):
        reliability(np.zeros((0, 3)), np.zeros(0, dtype=np.int64))


def test_smoothed_targets_have_a_temperature_where_every_image_is_right():
    scores = torch.tensor([[4.0, 0.0], [0.0, 4.0], [4.0, 0.0]])
    labels = np.array([0, 1, 0])
    # The most likely probability of the right class is that of the smoothed target.
    found = fit_temperature(scores, labels, smoothing=0.1)
    assert torch.softmax(scores / found, 1)[0, 0] == pytest.approx(0.95, abs=1e-6)
    assert fit_temperature(scores, labels) < found / 10
