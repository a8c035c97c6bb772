"""A way to stop long work between two steps, so that it can go on later.

Ctrl-C (SIGINT), SIGTERM (Docker, Slurm and systemd send it) and SIGHUP (a closed terminal) ask for
a stop alike, each where the system has it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any


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


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that ask for a stop, of those that this system has."""
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


_received: list[int] = []


def exit_code() -> int:
    """128 and the number of the signal that asked for the stop; 130 (as of Ctrl-C) for none."""
    return 128 + (_received[-1] if _received else int(signal.SIGINT))


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _handling(handle: Callable[[int, FrameType | None], None]) -> Generator[None]:
    """Call `handle` for every signal that asks for a stop and is not ignored (as under nohup)."""
    before: dict[int, Any] = {}
    for number in stop_signals():
        now = signal.getsignal(number)
        if now is not None and now is not signal.SIG_IGN:  # None: not set by Python
            before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    raise KeyboardInterrupt


@contextmanager
def interrupted_by_signals() -> Generator[None]:
    """Make every signal that asks for a stop a KeyboardInterrupt, so that files are tidied up.

    Outside the main thread, where signals cannot be caught, nothing changes.
    """
    if not _in_main_thread():
        yield
        return
    with _handling(_interrupt):
        yield


@contextmanager
def stop_on_interrupt() -> Generator[StopFlag]:
    """Turn the first signal (see `stop_signals`) into a request to stop; a second one interrupts.

    Outside the main thread, where signals cannot be caught, the flag is simply never set.
    """
    flag = StopFlag()
    if not _in_main_thread():
        yield flag
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if flag.requested:
            _interrupt(number, frame)
        _received.append(number)
        flag.request()

    with _handling(handle):
        yield flag
