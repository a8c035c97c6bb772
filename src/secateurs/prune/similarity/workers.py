"""Pieces of work shared out among threads, one for each place where the data lie.

Threads are enough: PyTorch and NumPy let go of the interpreter while they compute, nothing is
copied, and no program has to be written so that processes can import it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import torch

from secateurs.errors import InputError

Location = TypeVar("Location")
Result = TypeVar("Result")
AHEAD = 2  # pieces begun for each place before the first is asked for
WORTH_SHARING = 2**19  # numbers, of which an operation takes some tenth of a millisecond


def in_order(
    work: Callable[[Location, int], Result], places: Sequence[Location], pieces: Sequence[int]
) -> Generator[Result]:
    """Yield `work(place, piece)` for every piece in order, each at whichever place is free.

    PyTorch's threads are shared out among the places and given back. Raises RuntimeError from the
    first piece that fails, naming it; what is not begun by then never is.

    >>> list(in_order(lambda place, piece: place * piece, [2.0, 2.0], [1, 2, 3]))
    [2.0, 4.0, 6.0]
    """
    places = places[: len(pieces)]
    if len(places) <= 1:
        for piece in pieces:
            yield work(places[0], piece)
        return
    threads = torch.get_num_threads()
    free: SimpleQueue[Location] = SimpleQueue()
    for place in places:
        free.put(place)

    def run(piece: int) -> Result:
        place = free.get()
        try:
            return work(place, piece)
        finally:
            free.put(place)

    pool = ThreadPoolExecutor(
        len(places),
        thread_name_prefix="secateurs",
        initializer=torch.set_num_threads,
        initargs=(max(1, threads // len(places)),),
    )
    begun: deque[tuple[int, Future[Result]]] = deque()
    try:
        for piece in pieces:
            begun.append((piece, pool.submit(run, piece)))
            if len(begun) > AHEAD * len(places):
                yield _result(*begun.popleft())
        while begun:
            yield _result(*begun.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def each(
    work: Callable[[int], None], pieces: Sequence[int], *, numbers: int, device: torch.device
) -> None:
    """Do `work` for every piece of so many `numbers`, on a CPU in threads if it is worth it.

    Operations on a large piece are shared out among as many threads as PyTorch uses. Those on a
    small one take some ten microseconds: two threads would wait for each other longer than that,
    whether in the interpreter or within an operation, so one does them all.
    """
    threads = torch.get_num_threads()
    own = threads if device.type == "cpu" and numbers >= WORTH_SHARING else 1
    if device.type == "cpu" and own < threads:
        torch.set_num_threads(1)
    try:
        for _ in in_order(lambda _, piece: work(piece), [None] * own, pieces):
            pass
    finally:
        torch.set_num_threads(threads)


def _result(piece: int, future: Future[Result]) -> Result:
    try:
        return future.result()
    except InputError:
        raise
    except Exception as error:
        raise RuntimeError(
            f"worker: the piece from unit {piece} failed with {type(error).__name__}: {error}"
        ) from error
