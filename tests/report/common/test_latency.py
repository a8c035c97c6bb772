from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.report.common import latency


def row(before: float, after: float | None, *, p25: float | None, p75: float | None) -> Any:
    return {
        "runtime": "pytorch", "device": "cpu", "batch": 64,
        "before_ms": {"median": before}, "after_ms": {"median": after},
        "ratio_p25": p25, "ratio_p75": p75,
    }  # fmt: skip


@given(st.floats(0.1, 1e5), st.floats(0.1, 1e5))
def test_a_network_is_never_called_faster_when_it_is_slower(before: float, after: float) -> None:
    text = latency.verdict(row(before, after, p25=None, p75=None))
    if after > before * 1.031:
        assert "more time" in text
    elif after < before * 0.969:
        assert "less time" in text or "faster" in text
    else:
        assert text == "no significant difference" or "%" in text


def test_a_difference_within_noise_is_named_with_its_range() -> None:
    found = row(3630.0, 3430.0, p25=0.88, p75=1.04)
    assert latency.verdict(found) == "no significant difference"
    (text,) = latency.speed_warnings([found])
    assert text == (
        "No significant speed-up in 1 of 1 latency measurement: PyTorch, cpu, batch 64, 94.5% of "
        "the time before (88% to 104%). In brackets: the middle half of the rounds. Differences "
        "below 3%, and ranges that include 100%, are within the noise of the measurement."
    )


def test_slower_networks_are_not_called_noise() -> None:
    found = row(100.0, 120.0, p25=1.1, p75=1.3)
    assert latency.verdict(found) == "20.0% more time"
    (text,) = latency.speed_warnings([found, row(100.0, 50.0, p25=0.4, p75=0.6)])
    assert text.startswith("Slower after pruning in 1 of 2 latency measurements: ")
    assert "noise" not in text


def test_the_measurement_with_the_smallest_gain_is_shown() -> None:
    rows = [row(10, 3, p25=None, p75=None), row(10, 9, p25=None, p75=None)]
    assert latency.least_gain(rows) is rows[1]
    assert latency.least_gain([row(10, None, p25=None, p75=None)]) is None


@pytest.mark.parametrize("after", [None, 0.0])
def test_an_unknown_time_has_no_verdict(after: float | None) -> None:
    found = row(0.0, after, p25=None, p75=None)
    assert latency.verdict(found) == ""
    assert latency.speed_warnings([found]) == []


def test_the_ratio_lies_between_its_bounds() -> None:
    found = row(1644.0, 2282.0, p25=1.0, p75=1.23) | {"ratio_p50": 1.12}
    assert latency.measured(found) == "112% of the time before (100% to 123%)"
    assert latency.measured(row(10.0, 9.0, p25=None, p75=None)) == "90.0% of the time before"
