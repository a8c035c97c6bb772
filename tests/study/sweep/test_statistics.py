from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from secateurs.study.sweep.statistics import summarise


def test_interval_is_students():
    values = [0.41, 0.47, 0.52, 0.44, 0.49]
    summary = summarise(values)
    expected = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (summary.low, summary.high) == pytest.approx(expected)
    assert summary.std == pytest.approx(np.std(values, ddof=1))


def test_one_run_has_no_spread():
    summary = summarise([0.5])
    assert (summary.mean, summary.std, summary.low, summary.high) == (0.5, None, None, None)


def test_interval_stays_within_zero_and_one():
    summary = summarise([0.9, 1.0])
    assert summary.high == 1.0
    assert summarise([0.0, 0.1]).low == 0.0
