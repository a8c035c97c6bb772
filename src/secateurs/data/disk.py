"""Large files that are safe: room taken beforehand, written through to the disk, checked."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Sequence
from contextlib import closing
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from secateurs.data.thread_map import in_order

FULL = (errno.ENOSPC, errno.EDQUOT)
_ZEROS_BYTES = 2**20
_BATCH_BYTES = 2**22
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


def allocate(file: BinaryIO, num_bytes: int) -> None:
    """Make an empty file `num_bytes` long whose blocks are on the disk; OSError when it is full.

    Writing to a map of such a file cannot fail, where a hole in a full disk ends the process. Where
    the system has no call for it (macOS, Windows, some file systems) zeros are written.
    """
    allocate = getattr(os, "posix_fallocate", None)
    if allocate is not None:
        try:
            allocate(file.fileno(), 0, num_bytes)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
        else:
            return
    file.seek(0)
    zeros = bytes(min(_ZEROS_BYTES, num_bytes))
    for start in range(0, num_bytes, _ZEROS_BYTES):
        file.write(zeros[: num_bytes - start])
    file.flush()


def sync(file: BinaryIO) -> None:
    """Have what was written to a file on the disk before anything that follows."""
    file.flush()
    os.fsync(file.fileno())


def checksums(parts: Sequence[NDArray[Any]] | NDArray[Any]) -> NDArray[np.uint32]:
    """The CRC-32 of each contiguous array, all of one size, in threads: 2 GB a second and core.

    >>> int(checksums([np.frombuffer(b"123456789", np.uint8)])[0]) == 0xCBF43926
    True
    """
    if not len(parts):
        return np.zeros(0, dtype=np.uint32)
    step = max(1, _BATCH_BYTES // max(1, parts[0].nbytes))

    def batch(start: int) -> list[int]:
        return [zlib.crc32(part.data) for part in parts[start : start + step]]

    # The parts may be maps of a file: at most a few of a thread's are in memory at once.
    with closing(in_order(range(0, len(parts), step), batch)) as batches:
        return np.array([found for sums in batches for found in sums], dtype=np.uint32)
