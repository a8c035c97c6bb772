"""Waiting for another process that computes the same, so that it can be stopped and is said."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag

WAIT_S = 0.5  # between looks at what another process holds


@contextmanager
def held(
    path: Path, what: str, *, stop: StopFlag | None = None, progress: Progress = SILENT
) -> Generator[None]:
    """Hold the lock file `path` as soon as no other process does; `what` names the work in words.

    The file goes when the work is done; whoever has opened it meanwhile finds the work done too.
    The system frees it when its holder ends in whatever way. Raises StopRequested when asked to
    stop while waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    if not _acquired(lock):
        with progress.task(f"waiting for another process: {what}", 1) as advance:
            while not _acquired(lock):
                if stop is not None:
                    stop.check()
                time.sleep(WAIT_S)
            advance(1)
    try:
        yield
        with contextlib.suppress(OSError):  # Windows removes no file that is open
            path.unlink()
    finally:
        lock.release()


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True
