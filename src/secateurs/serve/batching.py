"""A network that answers many requests at once: what waits while it is busy is its next batch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Generic, TypeVar

PAYS = 0.9  # of the time per image, which a larger batch has to reach
LOST = 1.2  # of the best time per image, from which on larger batches are not tried
Given = TypeVar("Given")
Found = TypeVar("Found")


class Batches(Generic[Given, Found]):
    """Runs `run` in a thread of its own, on at most `largest` of what was submitted at a time.

    A batch is what has arrived while the batch before was computed, so that a single request does
    not wait for others, and under load the batches grow by themselves.

    >>> with Batches(lambda numbers: [2 * n for n in numbers], largest=8) as batches:
    ...     batches.submit(3).result()
    6
    """

    def __init__(self, run: Callable[[Sequence[Given]], Sequence[Found]], *, largest: int) -> None:
        self._run, self._largest = run, largest
        self._waiting: deque[tuple[Given, Future[Found]]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)

    def __enter__(self) -> Batches[Given, Found]:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish what has been submitted, then end the thread."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def submit(self, given: Given) -> Future[Found]:
        """The future result for one input; an error of its batch is that of each of its members."""
        future: Future[Found] = Future()
        with self._changed:
            if self._ended:
                raise RuntimeError("the batches have ended")
            self._waiting.append((given, future))
            self._changed.notify_all()
        return future

    def _work(self) -> None:
        while batch := self._next():
            try:
                found = self._run([given for given, _ in batch])
            except Exception as error:  # the thread goes on: the next batch may be a good one
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), result in zip(batch, found, strict=True):
                future.set_result(result)

    def _next(self) -> list[tuple[Given, Future[Found]]]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            batch: list[tuple[Given, Future[Found]]] = []
            while self._waiting and len(batch) < self._largest:
                given, future = self._waiting.popleft()
                if future.set_running_or_notify_cancel():  # its client may have gone
                    batch.append((given, future))
            # All that waited were cancelled: look again, unless this is the end.
            if batch or (self._ended and not self._waiting):
                return batch
        return self._next()


def best_size(seconds_of: Callable[[int], float], largest: int) -> int:
    """The number of images, up to `largest`, at which a network takes the least time for each.

    `seconds_of` runs it on so many and measures. Powers of two are tried until they no longer pay:
    on a processor large batches often take longer per image than single ones, as what a layer
    leaves for the next no longer fits its cache.

    >>> best_size(lambda number: 1.0 + 0.1 * number, 32), best_size(lambda number: number**1.5, 32)
    (32, 1)
    """
    best, least = 1, seconds_of(1)
    size = 2
    while size <= largest:
        each = seconds_of(size) / size
        if each < PAYS * least:
            best, least = size, each
        elif each > LOST * least:
            break
        size *= 2
    return best
