"""Leases: who computes what in a directory that several machines see.

A lease is a file that its holder renews. One that has not been renewed for a while belongs to a
machine that is gone, and may be taken. Clocks of machines are never compared: the age of a lease is
what the file system says of it and of a file that is written now. A clock that was set back makes
it younger than it is, so whoever waits also watches whether it changes. Should two machines ever
hold the same lease, both compute the same file, and the second replaces the first by its equal.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RENEW_S = 15.0
EXPIRED_S = 90.0


@contextmanager
def leased(path: Path) -> Generator[bool]:
    """Hold a lease and renew it; gives False when another machine has it.

    One of this machine is taken over at once: between processes of one machine a file lock decides,
    which the caller holds.
    """
    token = secrets.token_hex(8)
    if not _take(path, token):
        yield False
        return
    _HELD.add(path)
    try:
        yield True
    finally:
        _HELD.remove(path)
        if _read(path).get("token") == token:
            with contextlib.suppress(OSError):
                path.unlink()


def held_elsewhere(path: Path) -> bool:
    """Whether another machine holds a lease and has renewed it of late."""
    host = _read(path).get("host")
    return host not in (None, _host()) and not _expired(path)


def keep_renewed(path: Path) -> None:
    """Renew a file every 15 seconds for as long as it is there and this process lives."""
    _HELD.add(path, once_gone=True)


def _take(path: Path, token: str) -> bool:
    for _ in range(2):
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump({"host": _host(), "process": os.getpid(), "token": token}, file)
            return True
        except FileExistsError:
            if not _give_up(path):
                return False
    return False


def _give_up(path: Path) -> bool:
    """Remove a lease of this machine, or one that has expired; False when it is another's."""
    found = _read(path)
    if found.get("host") != _host() and not _expired(path):
        return False
    # Only one of several machines can move it away.
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.lease")
    try:
        path.rename(aside)
    except OSError:
        return not path.exists()
    mine = _read(aside) == found
    if not mine:  # it had been taken over between the look and the move
        with contextlib.suppress(OSError), path.open("x", encoding="utf-8") as file:
            file.write(aside.read_text(encoding="utf-8"))
    with contextlib.suppress(OSError):
        aside.unlink()
    return mine


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, RecursionError):  # not yet written, or damaged
        return {}


def _host() -> str:
    return socket.gethostname()


_WATCHED: dict[Path, tuple[int, float]] = {}  # when each last changed, and since when we see that
MOST_WATCHED = 10_000


def _expired(path: Path) -> bool:
    """Whether a lease is old by its file system, or has not changed while we watched."""
    if _age_s(path) >= EXPIRED_S:
        _WATCHED.pop(path, None)
        return True
    try:
        changed = path.stat().st_mtime_ns
    except OSError:  # it has just gone
        return True
    now = time.monotonic()
    known, since = _WATCHED.get(path, (changed, now))
    if known == changed and now - since >= EXPIRED_S:
        _WATCHED.pop(path, None)
        return True
    if len(_WATCHED) >= MOST_WATCHED:
        _WATCHED.clear()
    _WATCHED[path] = (changed, since if known == changed else now)
    return False


def _age_s(path: Path) -> float:
    """Seconds since a file was written, by the clock of its file system."""
    try:
        handle, name = tempfile.mkstemp(prefix=".now.", suffix=".part", dir=path.parent)
        try:
            now = os.fstat(handle).st_mtime
        finally:
            os.close(handle)
            Path(name).unlink(missing_ok=True)
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


class _Held:
    """The leases of this process, renewed by one thread while there are any."""

    def __init__(self) -> None:
        self._paths: dict[Path, bool] = {}  # with whether it is left once it has gone
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, path: Path, *, once_gone: bool = False) -> None:
        with self._lock:
            self._paths[path] = once_gone
            self._wake.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="leases", daemon=True)
                self._thread.start()

    def remove(self, path: Path) -> None:
        with self._lock:
            self._paths.pop(path, None)

    def _renew(self) -> None:
        while True:
            self._wake.wait(RENEW_S)
            self._wake.clear()
            with self._lock:
                paths = list(self._paths.items())
                if not paths:
                    self._thread = None
                    return
            for path, once_gone in paths:
                try:
                    os.utime(path)
                except FileNotFoundError:
                    if once_gone:
                        self.remove(path)
                except OSError:
                    pass


_HELD = _Held()
