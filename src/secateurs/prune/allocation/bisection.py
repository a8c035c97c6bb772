"""Steps of a trajectory that meet a budget which has to be measured, found by bisection."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secateurs.prune.allocation.budget import Step

FINEST = 0.98  # of the cost of the step before: nearer ones are not worth a measurement


def first_within(
    steps: Sequence[Step], is_good: Callable[[Step], bool], done: Callable[[], None]
) -> Step | None:
    """The first step that is good, where later ones are no worse; None when the last is not.

    `done` is called after each measurement.
    """
    low, high = -1, len(steps) - 1
    if not is_good(steps[high]):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if is_good(steps[middle]):
            high = middle
        else:
            low = middle
        done()
    return steps[high]


def last_within(
    steps: Sequence[Step], is_good: Callable[[Step], bool], done: Callable[[], None]
) -> Step:
    """The last step that is good, where earlier ones are no worse and the first is good."""
    low, high = 0, len(steps)
    while high - low > 1:
        middle = (low + high) // 2
        if is_good(steps[middle]):
            low = middle
        else:
            high = middle
        done()
    return steps[low]


def thinned(trajectory: Sequence[Step]) -> list[Step]:
    """Steps that differ by at least two per cent in price, the first and the last among them."""
    steps = [trajectory[0]]
    for step in trajectory[1:]:
        last = steps[-1].price
        if (
            step.price.macs <= FINEST * last.macs
            or step.price.parameters <= FINEST * last.parameters
        ):
            steps.append(step)
    return steps if steps[-1] is trajectory[-1] else [*steps, trajectory[-1]]
