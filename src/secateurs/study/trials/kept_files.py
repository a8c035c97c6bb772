"""The files by content of a machine: kept up to a size, the least recently used go first.

A file that a living process uses is renewed every 15 seconds (see `leases`), and none goes that was
renewed in the last ten minutes. So several processes may use and empty one folder without a lock,
and what a killed process has used goes like the rest.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Container
from pathlib import Path

from secateurs.errors import InputError
from secateurs.leases import keep_renewed
from secateurs.leftovers import sweep

VARIABLE = "SECATEURS_CONTENTS_GIB"
DEFAULT_GIB = 20.0
IN_USE_S = 600.0
_NAME = re.compile(r"[0-9a-f]{64}(\.[^/]*)?")


def limit_bytes() -> int:
    """How much a machine keeps: `$SECATEURS_CONTENTS_GIB`, 20 by default."""
    text = os.environ.get(VARIABLE, "").strip()
    try:
        number = float(text or DEFAULT_GIB)
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**33:
        raise InputError(f"{VARIABLE}: expected a number of GiB, got {text!r}")
    return int(number * 2**30)


def mark_used(path: Path) -> None:
    """Note that this process uses a file from now on until it ends."""
    with contextlib.suppress(OSError):
        os.utime(path)
    keep_renewed(path)


def make_room(folder: Path, needed: int, limit: int, *, keep: Container[str] = ()) -> int:
    """Remove files by content until `needed` more bytes are within `limit`; the bytes that went.

    Only files that have not been used for ten minutes go, nor those of the names in `keep`; what is
    in use may be more than the limit.
    """
    sweep(folder, deep=False, unnamed=False)
    now, found = time.time(), list[tuple[float, int, Path]]()
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    one = entry.stat(follow_symlinks=False)
                    found.append((one.st_mtime, one.st_size, Path(entry.path)))
    over, gone = sum(size for _, size, _ in found) + needed - limit, 0
    for changed, size, path in sorted(found):
        lock = path.suffix == ".lock"
        if abs(now - changed) < IN_USE_S or path.name in keep or (gone >= over and not lock):
            continue
        with contextlib.suppress(OSError):  # Windows removes no file that is open
            path.unlink()
            gone += size
    return gone
