"""Memory that one phase has freed, given back to the system before the next."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Let the C library give back the pages that nothing uses; nothing where it is not glibc.

    What is between blocks still in use stays with the process otherwise: after the sums of a large
    network's layers were let go, hundreds of megabytes.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
