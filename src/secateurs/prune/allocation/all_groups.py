"""The eliminations of all groups of a network, shared between a graphics card and the processor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from secateurs.prune.allocation.elimination import Elimination, Reader, eliminate

SMALL_INPUTS, MOST_WORKERS = 640, 8  # of readers, beside a graphics card


def eliminate_all(
    groups: Iterable[tuple[str, Sequence[Reader]]],
    *,
    done: Callable[[], None] = lambda: None,
    small: int = SMALL_INPUTS,
) -> dict[str, Elimination]:
    """The elimination of every group of readers, by name.

    On a graphics card those with up to `small` inputs are handed to threads of the processor, which
    computes them in less time than it takes to launch the work on the card. `done` is called once a
    group.
    """
    found: dict[str, Elimination] = {}
    order: list[str] = []
    handed: dict[str, Future[Elimination]] = {}
    threads = torch.get_num_threads()
    workers = max(1, min(MOST_WORKERS, threads // 2))
    pool: ThreadPoolExecutor | None = None
    try:
        for name, readers in groups:
            order.append(name)
            if is_for_a_thread(readers, small):
                pool = pool or ThreadPoolExecutor(
                    workers, initializer=torch.set_num_threads, initargs=(1,)
                )
                handed[name] = pool.submit(eliminate, [reader.on_cpu() for reader in readers])
            else:
                found[name] = eliminate(readers)
            done()
        found |= {name: future.result() for name, future in handed.items()}
        return {name: found[name] for name in order}
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)


def is_for_a_thread(readers: Sequence[Reader], small: int) -> bool:
    """Whether readers of a graphics card have so few inputs that a processor is the faster."""
    on_card = readers[0].weight.device.type != "cpu"
    return on_card and max(len(reader.weight) for reader in readers) <= small
