"""Work on many files in a few threads, with results in the order of the files."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_workers() -> int:
    """Threads to decode with: one per core that this process may use, at most 16."""
    if hasattr(os, "sched_getaffinity"):
        return min(16, len(os.sched_getaffinity(0)))
    return min(16, os.cpu_count() or 1)


def in_order(
    items: Iterable[Item], job: Callable[[Item], Result], *, workers: int | None = None
) -> Generator[Result]:
    """Yield job(item) for each item, in order, computed by `workers` threads.

    At most four results a thread wait to be taken, so memory stays bounded. Pillow lets go of the
    interpreter lock while it decodes and resizes. An exception of a job is raised at its turn.

    >>> list(in_order([3, 1, 2], lambda x: x * x, workers=2))
    [9, 1, 4]
    """
    num_threads = max(1, workers if workers is not None else default_workers())
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="images")
    try:
        for item in items:
            waiting.append(pool.submit(job, item))
            if len(waiting) >= 4 * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # A generator that was left half read may be closed by the collector of garbage in one of
        # these very threads, which cannot wait for itself.
        pool.shutdown(wait=False, cancel_futures=True)
