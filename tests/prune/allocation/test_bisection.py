from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateurs.prune.allocation.bisection import first_within, last_within, thinned
from secateurs.prune.allocation.budget import Price, Step


def trajectory(num: int, each: float = 0.9) -> list[Step]:
    return [Step({"a": num - k}, Price(100 * each**k, 10 * each**k), float(k)) for k in range(num)]


@given(st.integers(1, 40), st.data())
def test_the_first_good_step_is_found_as_by_looking_at_all(num: int, data: st.DataObject):
    steps = trajectory(num)
    least = data.draw(st.integers(0, num))
    asked: list[Step] = []

    def is_good(step: Step) -> bool:
        asked.append(step)
        return step.loss >= least

    expected = next((step for step in steps if step.loss >= least), None)
    assert first_within(steps, is_good, lambda: None) is expected
    assert len(asked) <= 1 + num.bit_length()


@given(st.integers(1, 40), st.data())
def test_the_last_good_step_is_found_as_by_looking_at_all(num: int, data: st.DataObject):
    steps = trajectory(num)
    most = data.draw(st.integers(0, num - 1))
    calls: list[int] = []
    found = last_within(steps, lambda step: step.loss <= most, lambda: calls.append(1))
    assert found is [step for step in steps if step.loss <= most][-1]
    assert len(calls) <= num.bit_length()


@pytest.mark.parametrize(("each", "expected"), [(0.9, 20), (0.995, 5), (1.0, 2)])
def test_steps_that_hardly_differ_are_left_out(each: float, expected: int):
    steps = trajectory(20, each)
    found = thinned(steps)
    assert found[0] is steps[0] and found[-1] is steps[-1]
    assert len(found) == expected
    assert all(b.price.macs <= 0.98 * a.price.macs for a, b in pairwise(found[:-1]))
