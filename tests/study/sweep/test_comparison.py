from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student
from scipy.stats import ttest_rel

from secateurs.errors import InputError
from secateurs.study.sweep.comparison import compare_depths, holm, recommend


def runs(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_two_depths_are_the_paired_t_test():
    a, b = [0.70, 0.74, 0.71, 0.69, 0.75], [0.68, 0.70, 0.71, 0.66, 0.72]
    best, other = compare_depths({3: runs(*a), 5: runs(*b)}, num_images=135)
    plain = ttest_rel(b, a)
    interval = plain.confidence_interval(0.95)
    assert best.is_best and best.p_value is None
    assert other.p_value == pytest.approx(plain.pvalue)
    assert (other.low, other.high) == pytest.approx((interval.low, interval.high))
    assert not other.indistinguishable


def test_three_depths_against_a_linear_model():
    """Two-way layout by least squares, contrasts from its residual variance, Holm by hand."""
    rng = np.random.default_rng(0)
    table = 0.7 + rng.normal(0, 0.02, (3, 4)) + np.array([[0.0], [0.03], [0.01]])
    rows = compare_depths({d: runs(*table[k]) for k, d in enumerate((2, 4, 6))}, num_images=200)
    design = np.zeros((12, 6))
    for k in range(12):
        design[k, k // 4] = 1
        if k % 4:
            design[k, 2 + k % 4] = 1
    fitted, residual, rank, _ = np.linalg.lstsq(design, table.ravel())
    freedom = 12 - rank
    variance = residual[0] / freedom
    best = int(np.argmax(table.mean(1)))
    p_values = {}
    for k in {0, 1, 2} - {best}:
        contrast = np.zeros(6)
        contrast[k], contrast[best] = 1, -1
        scale = np.sqrt(variance * contrast @ np.linalg.inv(design.T @ design) @ contrast)
        p_values[k] = 2 * student.sf(abs(contrast @ fitted) / scale, freedom)
    smaller, larger = sorted(p_values, key=lambda k: p_values[k])
    expected = {smaller: 2 * p_values[smaller]}
    expected[larger] = max(expected[smaller], p_values[larger])
    for k, value in expected.items():
        assert rows[k].p_value == pytest.approx(min(1, value))
        assert rows[k].indistinguishable == (value >= 0.05)
    assert rows[best].is_best


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_by_its_definition(p_values: list[float]):
    corrected = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    for rank, k in enumerate(order):
        steps = [(len(p_values) - r) * p_values[order[r]] for r in range(rank + 1)]
        assert corrected[k] == pytest.approx(min(1.0, max(steps)))


def test_a_single_run_goes_by_wilson():
    rows = compare_depths({3: runs(0.80), 5: runs(0.74), 7: runs(0.40)}, num_images=135)
    assert [row.indistinguishable for row in rows] == [True, True, False]
    assert all(row.low is None and row.p_value is None for row in rows)


def test_two_runs_do_not_hide_a_large_difference():
    """With one degree of freedom a depth they would; the pooled deviation tells."""
    found = {3: runs(0.93, 0.85), 5: runs(0.82, 0.82), 7: runs(0.39, 0.40)}
    rows = {row.depth: row for row in compare_depths(found, num_images=135)}
    assert rows[5].indistinguishable and not rows[7].indistinguishable
    assert recommend(found, {3: 30.0, 5: 20.0, 7: 5.0}, num_images=135).depth == 3


def test_the_deepest_within_a_point_is_recommended():
    found = {2: runs(0.700, 0.712, 0.705), 4: runs(0.703, 0.700, 0.706), 6: runs(0.60, 0.61, 0.6)}
    answer = recommend(found, {2: 40.0, 4: 30.0, 6: 20.0}, num_images=500)
    assert (answer.best, answer.depth) == (2, 4)
    text = " ".join(answer.sentences)
    assert "Freeze 4 layers: 70.3% mean validation accuracy (95% " in text
    assert (
        "Depth 2 has the best mean, 70.6%; the difference of 0.3 points is not significant" in text
    )
    assert answer.cost == "A training at depth 4 takes 30 s; 40 s at 2, 20 s at 6."
    assert "Significantly worse than the best: depth 6." in text
    assert "Not significantly different from the best: depths 2 and 4." in text
    assert "between depths 2 and 4 significant" in text


def test_one_frozen_layer_is_one_layer():
    answer = recommend({1: runs(0.7, 0.71, 0.7)}, {1: 4.0}, num_images=500)
    assert answer.sentences[0].startswith("Freeze 1 layer: 70.3% mean")


def test_of_many_depths_the_shortest_and_the_longest_training_are_named():
    found = {depth: runs(0.7) for depth in range(9)}
    seconds = {depth: 9.0 - depth for depth in range(9)}
    answer = recommend(found, seconds, num_images=500)
    assert answer.depth == 8
    assert answer.cost == "A training at depth 8 takes 1.0 s; 9.0 s at 0, 2.0 s at 7."


def test_runs_that_diverged_are_left_out_of_the_pairs():
    found = {3: {0: 0.7, 1: 0.72, 2: 0.71}, 5: {1: 0.70, 2: 0.70}, 7: {}}
    rows = compare_depths(found, num_images=100)
    assert [row.depth for row in rows] == [3, 5]
    assert rows[1].difference == pytest.approx(-0.015)
    with pytest.raises(InputError, match="no trial ended with a finite loss"):
        compare_depths({3: {}}, num_images=100)


def test_one_depth_and_equal_depths():
    alone = recommend({5: runs(0.7, 0.71)}, {5: 9.0}, num_images=100)
    assert alone.depth == 5 and alone.sentences[-1].startswith("Only one depth was tried")
    same = recommend({3: runs(0.7, 0.7), 5: runs(0.7, 0.7)}, {3: 9.0, 5: 8.0}, num_images=100)
    assert (same.depth, same.best) == (5, 5)
    assert same.sentences[-1] == "Depths 5 and 3 agree; the choice between them is of cost."
    single = recommend({3: runs(0.7), 5: runs(0.6)}, {3: 9.0, 5: 8.0}, num_images=100)
    assert single.depth == 3 and "by Wilson, one run" in single.sentences[0]


def test_layers_frozen_at_random_are_told():
    runs = {5: {0: 0.80, 1: 0.82}, 6: {0: 0.60, 1: 0.61}, 7: {0: 0.50, 1: 0.52}}
    seconds = dict.fromkeys(runs, 1.0)
    frozen = {5: (), 6: ("fc6",), 7: ("fc6", "fc7")}
    found = recommend(runs, seconds, num_images=100, random_frozen=frozen).sentences
    (told,) = [text for text in found if "random weights" in text]
    assert told.startswith("Depth 6 and 7 freeze fc6 and fc7 with random weights")
    plain = recommend(runs, seconds, num_images=100).sentences
    assert [text for text in found if text != told] == list(plain)
