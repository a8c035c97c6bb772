from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from secateurs.errors import InputError
from secateurs.fit.paired import paired_difference


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    one = np.array([True] * (both + first) + [False] * (second + neither))
    other = np.array([True] * both + [False] * first + [True] * second + [False] * neither)
    return one, other


@pytest.mark.parametrize("counts", [(40, 9, 2, 9), (50, 3, 3, 4), (10, 0, 12, 1), (0, 1, 0, 0)])
def test_the_p_value_is_that_of_the_exact_binomial_test(counts: tuple[int, int, int, int]):
    found = paired_difference(*answers(*counts))
    _, first, second, _ = counts
    reference = stats.binomtest(first, first + second, 0.5).pvalue
    assert found.p_value == pytest.approx(min(1.0, reference), rel=1e-9)
    assert found.difference == pytest.approx((first - second) / sum(counts))


def test_the_interval_is_walds_with_a_half_added_to_each_count():
    both, first, second, neither = 40.5, 9.5, 2.5, 9.5
    total = both + first + second + neither
    p, q = first / total, second / total
    half = 1.959964 * math.sqrt((p + q - (p - q) ** 2) / total)
    found = paired_difference(*answers(40, 9, 2, 9))
    assert found.low == pytest.approx(p - q - half, abs=1e-6)
    assert found.high == pytest.approx(p - q + half, abs=1e-6)


def test_the_interval_holds_the_true_difference_about_95_times_in_100():
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        kind = generator.choice(4, 120, p=[0.6, 0.15, 0.08, 0.17])
        found = paired_difference(kind <= 1, (kind == 0) | (kind == 2))
        inside += found.low <= 0.07 <= found.high
    assert 0.93 <= inside / 2000 <= 0.97


def test_with_groups_whole_groups_are_what_varies():
    generator = np.random.default_rng(1)
    inside = groups_inside = 0
    for _ in range(1000):
        # All five images of a group are answered alike: 30 groups, not 150 images.
        kind = np.repeat(generator.choice(4, 30, p=[0.6, 0.15, 0.08, 0.17]), 5)
        names = [str(number // 5) for number in range(150)]
        one, other = kind <= 1, (kind == 0) | (kind == 2)
        plain, grouped = paired_difference(one, other), paired_difference(one, other, names)
        inside += plain.low <= 0.07 <= plain.high
        groups_inside += grouped.low <= 0.07 <= grouped.high
    assert inside / 1000 < 0.75
    assert 0.92 <= groups_inside / 1000 <= 0.98


def test_groups_of_one_image_give_students_t_of_the_differences():
    one, other = answers(40, 9, 2, 9)
    gap = one.astype(float) - other
    found = paired_difference(one, other, [str(number) for number in range(len(gap))])
    reference = stats.ttest_1samp(gap, 0.0)
    interval = reference.confidence_interval(0.95)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_rows_of_other_lengths_are_refused():
    with pytest.raises(InputError, match="two equal rows"):
        paired_difference(np.array([True]), np.array([True, False]))
    with pytest.raises(InputError, match="two equal rows"):
        paired_difference(np.zeros(0, bool), np.zeros(0, bool))
