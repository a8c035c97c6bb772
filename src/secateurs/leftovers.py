"""Temporary files beside those that are written, and what killed processes have left of them.

A temporary name says which process writes it: `.NAME.HOST-PROCESS-TOKEN.RANDOM.part`. So whoever
opens a directory can remove what no living process will ever finish, and nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import time
from pathlib import Path

SUFFIX = ".part"
ELSEWHERE_S = 3600.0  # age at which a file of another machine, or of an unknown one, is given up
CLOCKS_S = 5.0  # that the clocks of processes and of files may differ
DEEPEST = 4  # folders below the one that is swept: no output of ours has more
_OWNER = re.compile(
    r"\.(?P<host>[0-9a-f]{6})-(?P<process>\d+)-(?P<token>[0-9a-f]{6})\.[^.]+\.part$"
)
_LONGEST = 120  # of the name itself: a file name may have 255 bytes


def temporary_prefix(name: str) -> str:
    """How a temporary file for `name` begins, when this process writes it.

    >>> temporary_prefix("a.json").startswith(".a.json.")
    True
    """
    return f".{name[:_LONGEST]}.{_host()}-{os.getpid()}-{_token()}."


def is_temporary(name: str) -> bool:
    """Whether a file or folder has a temporary name of ours, of this version or an older one.

    >>> is_temporary(".study.json.x1y2.part"), is_temporary("notes.part")
    (True, False)
    """
    return name.startswith(".") and (name.endswith(SUFFIX) or name.startswith(".part-"))


def sweep(folder: Path, *, deep: bool = True, unnamed: bool = True) -> None:
    """Remove temporary files and folders that no living process writes, below `folder`.

    Links are not followed. Those of a process of this machine stay while it lives, those of
    another machine for an hour after they were last written. With `unnamed` those go as well that
    name no process, as older versions wrote them: only for a folder that is certainly ours, since
    other programs have files of such names. Errors are passed over: what cannot be removed does no
    harm.
    """
    _sweep(folder, DEEPEST if deep else 0, unnamed)


def _sweep(folder: Path, depth: int, unnamed: bool) -> None:
    with contextlib.suppress(OSError):
        with os.scandir(folder) as entries:
            found = list(entries)
        for entry in found:
            with contextlib.suppress(OSError):
                inside = entry.is_dir(follow_symlinks=False)
                if is_temporary(entry.name):
                    known = unnamed or _OWNER.search(entry.name)
                    if known and _abandoned(entry.name, entry.stat(follow_symlinks=False)):
                        _remove(Path(entry.path), folder=inside)
                elif inside and depth:
                    _sweep(Path(entry.path), depth - 1, unnamed)


def sweep_for(path: Path) -> None:
    """Remove what killed processes have left of writing this one file."""
    start = f".{path.name[:_LONGEST]}."
    with contextlib.suppress(OSError):
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(start)]
        for name in names:
            left = path.parent / name
            with contextlib.suppress(OSError):
                if _OWNER.search(name) and _abandoned(name, left.lstat()):
                    _remove(left, folder=stat.S_ISDIR(left.lstat().st_mode))


def _remove(path: Path, *, folder: bool) -> None:
    if folder:
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _abandoned(name: str, found: os.stat_result) -> bool:
    owner = _OWNER.search(name)
    if owner is None:  # an older version's: none of today's processes writes it
        return True
    if owner["host"] != _host():
        return time.time() - found.st_mtime > ELSEWHERE_S
    process = int(owner["process"])
    if process == os.getpid():
        return owner["token"] != _token()  # an earlier process of the same number
    return not _alive(process, found)


def _alive(process: int, found: os.stat_result) -> bool:
    if os.name == "nt":  # there os.kill ends the process that it asks for
        return time.time() - found.st_mtime <= ELSEWHERE_S
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    # Older than the process: that one has only got the number of the one that wrote it.
    started = _started(process)
    return started is None or found.st_mtime > started - CLOCKS_S


def _started(process: int) -> float | None:
    """When a process started, in seconds since the epoch; None where the system does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
        boot = re.search(rb"^btime (\d+)$", Path("/proc/stat").read_bytes(), re.MULTILINE)
        return None if boot is None else int(boot[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


@functools.cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


@functools.cache
def _token() -> str:
    return secrets.token_hex(3)
