from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as reference

from secateurs.errors import InputError
from secateurs.fit.metrics import (
    evaluate,
    grouped_interval,
    predict_logits,
    wilson_interval,
)

CLASSES = ("a", "b", "c", "d")


def _logits(predicted: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(predicted), 4).float() * 3


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(0, 2**31))
def test_measures_agree_with_scikit_learn(num: int, seed: int):
    generator = np.random.default_rng(seed)
    true, predicted = generator.integers(0, 4, num), generator.integers(0, 4, num)
    result = evaluate(_logits(predicted), torch.from_numpy(true), CLASSES)
    assert result.accuracy == pytest.approx(reference.accuracy_score(true, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are predicted and not there
        balanced = reference.balanced_accuracy_score(true, predicted)
    assert result.balanced_accuracy == pytest.approx(balanced)
    constant = np.full(num, np.bincount(true).argmax())
    assert result.majority_accuracy == pytest.approx(reference.accuracy_score(true, constant))
    matrix = reference.confusion_matrix(true, predicted, labels=range(4))
    assert np.array_equal(np.array(result.confusion), matrix)
    precision, recall, _, support = reference.precision_recall_fscore_support(
        true, predicted, labels=range(4), zero_division=0
    )
    for k, score in enumerate(result.per_class):
        assert score.num_true == support[k]
        assert (score.precision or 0) == pytest.approx(precision[k])
        assert (score.recall or 0) == pytest.approx(recall[k])
        assert (score.precision is None) == ((predicted == k).sum() == 0)
        assert (score.recall is None) == ((true == k).sum() == 0)
        others = true != k
        if others.any():
            # Specificity is the recall of "not this class".
            expected = reference.recall_score(others, predicted != k)
            assert score.specificity == pytest.approx(expected)
        else:
            assert score.specificity is None
    assert result.loss == pytest.approx(
        reference.log_loss(true, _logits(predicted).double().softmax(1), labels=range(4)), rel=1e-5
    )


def test_the_order_of_images_does_not_matter():
    generator = np.random.default_rng(0)
    logits, labels = torch.randn(40, 4), torch.from_numpy(generator.integers(0, 4, 40))
    order = torch.randperm(40)
    a, b = evaluate(logits, labels, CLASSES), evaluate(logits[order], labels[order], CLASSES)
    assert a.confusion == b.confusion
    assert a.loss == pytest.approx(b.loss)


def test_missing_and_never_predicted_classes_are_said():
    result = evaluate(_logits(np.array([0, 0, 1])), torch.tensor([0, 2, 1]), CLASSES)
    assert result.notes == (
        "class d has no image here",
        "class c was never predicted",
        "class d was never predicted",
    )
    assert result.per_class[2].precision is None
    assert result.per_class[3].recall is None
    assert result.per_class[3].specificity == 1.0
    assert result.to_json()["per_class"][2]["class"] == "c"


def test_a_constant_answer_is_no_better_than_its_baseline():
    true = torch.tensor([0] * 60 + [1] * 8 + [2] * 6)
    result = evaluate(_logits(np.zeros(74, dtype=np.int64)), true, CLASSES)
    assert result.accuracy == result.majority_accuracy == pytest.approx(60 / 74)
    assert result.balanced_accuracy == pytest.approx(1 / 3)
    assert result.to_json()["majority_accuracy"] == result.majority_accuracy


@pytest.mark.parametrize(("right", "images"), [(0, 1), (0, 9), (1, 1), (67, 134), (998, 1000)])
def test_the_interval_is_that_of_scipy(right: int, images: int):
    expected = binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, images) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_papers_best_model_has_the_interval_of_67_in_134():
    low, high = wilson_interval(67, 134)
    # Closed form of Wilson's interval at p = 1/2.
    z = 1.959963984540054
    half = z * np.sqrt(0.25 / 134 + z * z / (4 * 134**2)) / (1 + z * z / 134)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half))


def test_bad_input():
    with pytest.raises(InputError, match=r"logits must be .* = \(3, 4\), got \(3, 2\)"):
        evaluate(torch.zeros(3, 2), torch.zeros(3, dtype=torch.long), CLASSES)
    with pytest.raises(InputError, match="nothing to evaluate"):
        evaluate(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), CLASSES)


def test_predict_restores_modes_after_an_error():
    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("broken")

    model = torch.nn.Sequential(torch.nn.Dropout(), Broken())
    model[0].eval()
    with pytest.raises(RuntimeError, match="broken"):
        predict_logits(model, torch.zeros(2, 3))
    assert [part.training for part in model] == [False, True]
    assert model.training


def test_predict_is_the_same_in_any_batch():
    model = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.Linear(3, 4))
    inputs = torch.randn(7, 3)
    whole = predict_logits(model, inputs, batch_size=7)
    assert torch.allclose(predict_logits(model, inputs, batch_size=2), whole, atol=1e-6)
    assert torch.allclose(whole, model[1](inputs), atol=1e-6)


def test_the_grouped_interval_is_as_wide_as_a_bootstrap_of_groups():
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 6)
    easy = generator.random(60) < 0.7
    correct = np.where(generator.random(360) < 0.8, easy[groups], generator.random(360) < 0.5)
    low, high = grouped_interval(correct, [str(group) for group in groups])
    table = correct.reshape(60, 6).mean(1)
    drawn = table[generator.integers(0, 60, (4000, 60))].mean(1)
    assert abs((high - low) / np.subtract(*np.quantile(drawn, [0.975, 0.025])) - 1) < 0.1
    plain_low, plain_high = wilson_interval(int(correct.sum()), 360)
    assert high - low > 1.5 * (plain_high - plain_low)


def test_the_grouped_interval_of_images_without_groups_is_wilsons():
    correct = np.arange(50) < 31
    assert grouped_interval(correct) == wilson_interval(31, 50)
    assert grouped_interval(correct, ["a"] * 50) == wilson_interval(31, 50)
    assert grouped_interval(correct | True, ["a", "b"] * 25) == wilson_interval(50, 50)


def test_the_interval_of_an_evaluation_respects_groups():
    logits = torch.tensor([[1.0, 0.0]] * 40)
    labels = torch.tensor([0, 0, 0, 1] * 10).sort().values
    groups = tuple(f"group {row // 4}" for row in range(40))
    plain = evaluate(logits, labels, ["a", "b"])
    grouped = evaluate(logits, labels, ["a", "b"], groups)
    assert plain.accuracy == grouped.accuracy == 0.75
    assert (plain.accuracy_low, plain.accuracy_high) == wilson_interval(30, 40)
    expected = grouped_interval((labels == 0).numpy(), groups)
    assert (grouped.accuracy_low, grouped.accuracy_high) == expected
    assert grouped.accuracy_low < plain.accuracy_low - 0.05
