"""Pairs of uint8 arrays written row by row to disk, checked when they are mapped again."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

KINDS = ("train", "eval")
MAX_CHECKED = 2048  # rows whose checksums are compared on opening, evenly spaced
STALE_SECONDS = 24 * 3600.0

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class Shelf:
    """Two growing .npy files in a temporary folder; `commit` gives them their names.

    Rows are written as files and not through a map: a disk that is full then raises OSError,
    where writing to a map would end the process.
    """

    def __init__(self, folder: Path, target: Path) -> None:
        self.ids: list[int] = []
        self._folder, self._target = folder, target
        self._checks: list[tuple[int, int]] = []
        self._shapes: list[tuple[int, ...]] = []
        self._files: list[BinaryIO] = [(folder / kind).open("wb") for kind in KINDS]

    def append(
        self, content_id: int, train: NDArray[np.uint8], evaluation: NDArray[np.uint8]
    ) -> None:
        """Write one image's rows; all must have the shapes of the first."""
        rows = (train, evaluation)
        if not self._shapes:
            self._shapes = [row.shape for row in rows]
            self._write_headers(0)
        assert [row.shape for row in rows] == self._shapes, "rows of one shelf have one shape"
        octets = [row.tobytes() for row in rows]
        for file, part in zip(self._files, octets, strict=True):
            file.write(part)
        self.ids.append(content_id)
        self._checks.append((zlib.crc32(octets[0]), zlib.crc32(octets[1])))

    def _write_headers(self, num: int) -> None:
        # NumPy pads a header so that the first length can grow without moving the data.
        for file, shape in zip(self._files, self._shapes, strict=True):
            file.seek(0)
            header = {"descr": "|u1", "fortran_order": False, "shape": (num, *shape)}
            np.lib.format.write_array_header_1_0(file, header)

    def commit(self, key: str) -> None:
        """Move the files to their places, the checksums last."""
        self._write_headers(len(self.ids))
        self.close()
        checks = self._folder / "checks"
        with checks.open("wb") as file:
            np.save(file, np.array(self._checks, dtype=np.uint32))
        for kind in (*KINDS, "checks"):
            part = self._folder / kind
            part.chmod(0o644)
            part.replace(self._target / f"{key}-{kind}.npy")

    def close(self) -> None:
        """Close the files; what was not committed is then of no use."""
        with contextlib.ExitStack() as stack:  # all of them, whichever fails
            for file in self._files:
                stack.callback(file.close)


@contextmanager
def open_shelf(target: Path) -> Generator[Shelf]:
    """Yield an empty shelf that commits into `target`, and remove what was not committed."""
    target.mkdir(parents=True, exist_ok=True)
    # Left behind by processes that were killed.
    for left in target.glob(".part-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=".part-", dir=target))
    try:
        shelf = Shelf(folder, target)
        try:
            yield shelf
        finally:
            # What is buffered may not fit on the disk, and is given up.
            with contextlib.suppress(OSError):
                shelf.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_shelf(
    target: Path, key: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> Pair | None:
    """Map the arrays that were committed under `key`; None when missing or damaged."""
    try:
        checks = np.load(target / f"{key}-checks.npy", allow_pickle=False)
        arrays: list[NDArray[np.uint8]] = [
            np.load(target / f"{key}-{kind}.npy", mmap_mode="r", allow_pickle=False)
            for kind in KINDS
        ]
    except (OSError, ValueError, EOFError):
        return None
    if checks.shape != (shapes[0][0], 2) or checks.dtype != np.uint32:
        return None
    for array, shape in zip(arrays, shapes, strict=True):
        if array.shape != shape or array.dtype != np.uint8:
            return None
    num = len(checks)
    for row in np.unique(np.linspace(0, num - 1, min(num, MAX_CHECKED)).astype(np.int64)):
        for kind, array in enumerate(arrays):
            if zlib.crc32(array[row].tobytes()) != checks[row, kind]:
                return None
    return arrays[0], arrays[1]
