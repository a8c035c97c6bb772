"""How many threads PyTorch computes on."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Generator[None]:
    """Compute on one thread meanwhile; how many there were is restored after, also on an error.

    Decompositions and solutions of a few hundred rows are thousands of short parallel steps: two
    threads are little faster than one on an idle machine, and up to hundreds of times slower on a
    busy one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
