"""Freed memory: kept where it is asked for again in every step, or given back to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Generator
from contextlib import contextmanager

# Parameters of glibc's mallopt, and the values it starts with.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_DEFAULTS = {_TRIM_THRESHOLD: 128 * 1024, _MMAP_MAX: 65536}
_KEEP = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_MAX: 0}


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    names = ("mallopt", "malloc_trim", "gnu_get_libc_version")
    return library if all(hasattr(library, name) for name in names) else None


@contextmanager
def memory_kept() -> Generator[None]:
    """Let freed memory stay with the process while the block runs; nothing where there is no glibc.

    Gradients of AlexNet's linear layers are blocks of 150 MB. The C library maps such blocks again
    for each step, and the kernel clears every page of them: half of a step's time on a CPU. In the
    end what is free is given back and the C library's defaults hold again.
    """
    library = _glibc()
    if library is None:
        yield
        return
    try:
        for parameter, value in _KEEP.items():
            library.mallopt(parameter, value)
        yield
    finally:
        for parameter, value in _DEFAULTS.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)


def give_memory_back() -> None:
    """Give the system what is free; nothing where there is no glibc.

    Blocks below 32 MB that lie between others stay with the process otherwise: after a pass over a
    network that may be as much as what is held.
    """
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)
