"""A network that answers many requests at once: what waits while it is busy is its next batch."""

from __future__ import annotations

import math
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
    """Runs `run` in threads of its own, on at most `largest` of what was submitted at a time.

    A batch is what has arrived while all `workers` were busy, so that a single request does not
    wait for others, and under load the batches grow by themselves. The second argument of `run` is
    how many batches have to share the processor, this one included.

    >>> with Batches(lambda numbers, sharing: [2 * n for n in numbers], largest=8) as batches:
    ...     batches.submit(3).result()
    6
    """

    def __init__(
        self,
        run: Callable[[Sequence[Given], int], Sequence[Found]],
        *,
        largest: int,
        workers: int = 1,
    ) -> None:
        self._run, self._largest = run, largest
        self._waiting: deque[tuple[Given, Future[Found]]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._num_running = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"batches-{number}", daemon=True)
            for number in range(workers)
        ]

    def __enter__(self) -> Batches[Given, Found]:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish what has been submitted, then end the threads."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def submit(self, given: Given) -> Future[Found]:
        """The future result for one input; an error of its batch is that of each of its members."""
        future: Future[Found] = Future()
        with self._changed:
            if self._ended:
                raise RuntimeError("the batches have ended")
            self._waiting.append((given, future))
            self._changed.notify()
        return future

    def _work(self) -> None:
        while batch := self._next():
            pairs, sharing = batch
            try:
                found = self._run([given for given, _ in pairs], sharing)
            except Exception as error:  # the thread goes on: the next batch may be a good one
                for _, future in pairs:
                    future.set_exception(error)
                continue
            finally:
                with self._changed:
                    self._num_running -= 1
            for (_, future), result in zip(pairs, found, strict=True):
                future.set_result(result)

    def _next(self) -> tuple[list[tuple[Given, Future[Found]]], int] | None:
        """The next batch and how many share the processor; None at the end."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return None
                # What waits is divided among all workers that are free.
                free = len(self._threads) - self._num_running
                most = min(self._largest, math.ceil(len(self._waiting) / free))
                batch: list[tuple[Given, Future[Found]]] = []
                while self._waiting and len(batch) < most:
                    given, future = self._waiting.popleft()
                    if future.set_running_or_notify_cancel():  # its client may have gone
                        batch.append((given, future))
                if batch:
                    self._num_running += 1
                    sharing = self._num_running + len(self._waiting)
                    return batch, min(len(self._threads), sharing)


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
