"""A way to stop long work between two steps, so that it can go on later."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class StopRequested(Exception):
    """Work stopped at a safe point because it was asked to; what was done is kept."""


class StopFlag:
    """False until `request` is called; long functions poll it between steps.

    >>> flag = StopFlag()
    >>> flag.requested
    False
    >>> flag.request(); flag.requested
    True
    """

    def __init__(self) -> None:
        self.requested = False

    def request(self) -> None:
        """Ask the work to stop at its next safe point."""
        self.requested = True

    def check(self) -> None:
        """Raise StopRequested when a stop was asked for."""
        if self.requested:
            raise StopRequested


@contextmanager
def stop_on_interrupt() -> Generator[StopFlag]:
    """Turn the first Ctrl-C into a request to stop; a second one interrupts at once.

    Outside the main thread, where signals cannot be caught, the flag is simply never set.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if flag.requested:
            raise KeyboardInterrupt
        flag.request()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)
