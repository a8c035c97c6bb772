"""Requests that wait while a batch is computed are the next batch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future

import pytest

from secateurs.serve.batching import Batches, best_size


class Slow:
    """Doubles numbers; each batch waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.sharing: list[int] = []
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, numbers: Sequence[int], sharing: int) -> list[int]:
        self.batches.append(list(numbers))
        self.sharing.append(sharing)
        self.begun.release()
        assert self.go.acquire(timeout=30)
        if 13 in numbers:
            raise ValueError("unlucky")
        return [2 * n for n in numbers]


def test_what_waits_is_the_next_batch_in_order_and_no_larger_than_allowed():
    slow = Slow()
    with Batches(slow, largest=3) as batches:
        futures = [batches.submit(0)]
        assert slow.begun.acquire(timeout=30)
        futures += [batches.submit(n) for n in range(1, 6)]
        slow.go.release(3)
        assert [future.result(30) for future in futures] == [2 * n for n in range(6)]
    assert slow.batches == [[0], [1, 2, 3], [4, 5]]
    assert slow.sharing == [1, 1, 1]


def test_several_workers_share_what_waits_and_know_how_many_they_are():
    slow = Slow()
    with Batches(slow, largest=3, workers=2) as batches:
        futures = [batches.submit(0)]
        assert slow.begun.acquire(timeout=30)
        futures.append(batches.submit(1))
        assert slow.begun.acquire(timeout=30)
        futures += [batches.submit(n) for n in range(2, 7)]
        slow.go.release(7)
        assert [future.result(30) for future in futures] == [2 * n for n in range(7)]
    assert slow.batches[:2] == [[0], [1]] and slow.sharing[:2] == [1, 2]
    assert sorted(n for batch in slow.batches for n in batch) == list(range(7))
    assert len(slow.batches) <= 5 and max(slow.sharing) == 2


def test_an_error_is_that_of_its_batch_only():
    slow = Slow()
    with Batches(slow, largest=2) as batches:
        first = batches.submit(0)
        assert slow.begun.acquire(timeout=30)
        bad = [batches.submit(n) for n in (13, 1)]
        good = batches.submit(2)
        slow.go.release(3)
        assert (first.result(30), good.result(30)) == (0, 4)
        for future in bad:
            with pytest.raises(ValueError, match="unlucky"):
                future.result(30)


def test_cancelled_requests_are_not_computed():
    slow = Slow()
    with Batches(slow, largest=4) as batches:
        first = batches.submit(0)
        assert slow.begun.acquire(timeout=30)
        gone: list[Future[int]] = [batches.submit(n) for n in (1, 2)]
        assert all(future.cancel() for future in gone)
        slow.go.release(2)
        assert first.result(30) == 0
        last = batches.submit(3)
        assert last.result(30) == 6
        with pytest.raises(CancelledError):
            gone[0].result(1)
    assert slow.batches == [[0], [3]]


def test_the_end_finishes_what_was_submitted_and_takes_no_more():
    with Batches(lambda numbers, sharing: [n + 1 for n in numbers], largest=2) as batches:
        futures = [batches.submit(n) for n in range(9)]
    assert [future.result(0) for future in futures] == list(range(1, 10))
    with pytest.raises(RuntimeError, match="have ended"):
        batches.submit(1)


def test_the_batch_is_the_one_with_the_least_time_per_image():
    each = {1: 37.0, 2: 33.0, 4: 29.0, 8: 36.5, 16: 72.0, 32: 1.0}
    asked: list[int] = []

    def seconds_of(number: int) -> float:
        asked.append(number)
        return number * each[number]

    assert best_size(seconds_of, 32) == 4
    assert asked == [1, 2, 4, 8]  # no larger ones once they lose
    assert best_size(seconds_of, 3) == 2
    assert best_size(lambda number: number * (1.0 - 0.001 * number), 32) == 1  # no real gain
    assert best_size(lambda number: 1.0, 48) == 32
