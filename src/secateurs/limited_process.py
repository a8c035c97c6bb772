"""Work that may never end or eat all memory, done in a child process with limits on both."""

from __future__ import annotations

import json
import math
import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any

from secateurs.stopping import stop_signals

MIB = 2**20


def can_fork() -> bool:
    """Whether this system can set work apart in a copy of the process."""
    return hasattr(os, "fork")


def bounded(work: Callable[[], Any], *, seconds: float, mib: int) -> Any:
    """The result of `work()` (plain data), from a copy of this process that is ended at its limits.

    The child sees all that this process has in memory and changes none of it. It may take `mib`
    MiB more than there are now (where the system holds processes to that, as Linux does). Work
    that computes with several threads may not run in it: they are not copied. Raises TimeoutError,
    MemoryError, or RuntimeError with the type and text of what was raised by the work.

    >>> bounded(lambda: sum(range(10)), seconds=10, mib=256)
    45
    """
    inlet, outlet = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads are not needed
        pid = os.fork()
    if pid == 0:
        os.close(inlet)
        _child(work, outlet, seconds, mib)
    os.close(outlet)
    try:
        answer = _read(inlet, time.monotonic() + seconds)
    finally:
        os.close(inlet)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if answer is None:
        raise TimeoutError(f"more than {seconds:g} s")
    if not answer:
        raise MemoryError(f"more than {mib} MiB")
    found = json.loads(answer)
    if "result" in found:
        return found["result"]
    if found["error"] == "MemoryError":
        raise MemoryError(f"more than {mib} MiB")
    raise RuntimeError(f"{found['error']}: {found['text']}")


def _child(work: Callable[[], Any], outlet: int, seconds: float, mib: int) -> None:
    """Do the work, send what came of it, and end without any of this process's own endings."""
    try:
        _leave_signals_to_parent(seconds)
        _hold_to(mib)
        try:
            answer = {"result": work()}
            sent = json.dumps(answer).encode()
        except BaseException as error:
            lines = str(error).strip().splitlines()
            text = lines[0] if lines else ""
            sent = json.dumps({"error": type(error).__name__, "text": text[:500]}).encode()
        with os.fdopen(outlet, "wb") as file:
            file.write(sent)
    finally:
        os._exit(0)


def _leave_signals_to_parent(seconds: float) -> None:
    """Ctrl-C reaches all processes of a terminal: the parent decides, and ends this one.

    Should the parent be killed, the system ends this one when its time is over.
    """
    for number in stop_signals():
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(seconds) + 1)


def _hold_to(mib: int) -> None:
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + mib * MIB
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    except (ImportError, OSError, ValueError):  # macOS has no /proc and no such limit
        return


def _read(inlet: int, until: float) -> bytes | None:
    """All that comes until the other end is closed; None when the time is over before."""
    parts: list[bytes] = []
    while True:
        left = until - time.monotonic()
        if left <= 0 or not select.select([inlet], [], [], left)[0]:
            return None
        part = os.read(inlet, MIB)
        if not part:
            return b"".join(parts)
        parts.append(part)
