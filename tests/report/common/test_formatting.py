from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.report.common import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10.0 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (57_032_519, "57.0 M"),
        (710_147_072, "710 M"),
        (None, "not known"),
    ],
)
def test_counts_have_three_digits(value: float | None, text: str) -> None:
    assert formatting.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (228_150_000, "228 MB"), (9.996e6, "10.0 MB")],
)
def test_sizes_are_decimal(value: float, text: str) -> None:
    assert formatting.size(value) == text


@given(st.floats(min_value=10_000, max_value=9e14))
def test_a_scaled_number_is_right_to_three_digits(value: float) -> None:
    text, unit = formatting.size(value).split()
    factor = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert float(text) * factor == pytest.approx(value, rel=0.0051)
    assert len(text.replace(".", "")) == 3


def test_a_fraction_carries_its_interval() -> None:
    assert formatting.percent_interval(90 / 135, 0.583, 0.741) == "66.7% (58–74)"
    assert formatting.percent_interval(None, 0.5, 0.6) == "not known"
    assert formatting.percent_interval(0.5, None, 0.6) == "50.0%"


def test_a_small_share_is_not_called_zero() -> None:
    assert formatting.share(1e-5) == "under 0.1%"
    assert formatting.share(1 - 1e-5) == "over 99.9%"
    assert formatting.share(0) == "0%"


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (100, 100.5, "unchanged"),
        (100, 71, "29% smaller"),
        (100, 50, "2.0 times smaller"),
        (57e6, 4.2e6, "14 times smaller"),
        (100, 120, "20% larger"),
        (0, 1, "not known"),
        (None, 1, "not known"),
    ],
)
def test_changes(before: float | None, after: float, text: str) -> None:
    assert formatting.change(before, after) == text


@given(st.floats(0, 1e6))
def test_seconds_never_show_sixty(value: float) -> None:
    numbers = re.findall(r"[\d.]+", formatting.seconds(value))
    assert all(float(part) < 60 for part in numbers[-1:])
    assert len(numbers) == (1 if value < 59.95 else 2)


def test_sentences_of_lists() -> None:
    assert formatting.listed([]) == ""
    assert formatting.listed(["a", "b", "c"]) == "a, b and c"
    assert formatting.plural(0, "image") == "0 images"
    assert formatting.plural(2, "class", "classes") == "2 classes"


@given(st.text(max_size=40), st.integers(2, 20))
def test_shortened_text_fits(text: str, limit: int) -> None:
    assert len(formatting.shorten(text, limit)) <= max(limit, 0)
    if len(text) <= limit:
        assert formatting.shorten(text, limit) == text
