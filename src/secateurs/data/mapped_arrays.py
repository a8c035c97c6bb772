"""Pairs of uint8 arrays written row by row to disk, checked when they are mapped again."""

from __future__ import annotations

import contextlib
import io
import math
import shutil
import tempfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from secateurs.data.disk import checksums, sync
from secateurs.files import sync_folder
from secateurs.leftovers import SUFFIX, sweep, temporary_prefix

KINDS = ("train", "eval")

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


class MappedArrays:
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
            file.write(_header((num, *shape), "|u1"))

    def commit(self, key: str) -> None:
        """Move the files to their places, the checksums last; all of it is then on the disk."""
        self._write_headers(len(self.ids))
        for file in self._files:
            sync(file)
        self.close()
        checks = np.array(self._checks, dtype="<u4")
        with (self._folder / "checks").open("wb") as file:
            file.write(_header(checks.shape, "<u4") + checks.tobytes())
            sync(file)
        for kind in (*KINDS, "checks"):
            part = self._folder / kind
            part.chmod(0o644)
            part.replace(self._target / f"{key}-{kind}.npy")
        sync_folder(self._target)

    def close(self) -> None:
        """Close the files; what was not committed is then of no use."""
        with contextlib.ExitStack() as stack:  # all of them, whichever fails
            for file in self._files:
                stack.callback(file.close)


@contextmanager
def create_arrays(target: Path) -> Generator[MappedArrays]:
    """Yield an empty shelf that commits into `target`, and remove what was not committed."""
    target.mkdir(parents=True, exist_ok=True)
    sweep(target, deep=False)  # left behind by processes that were killed
    prefix = temporary_prefix("images")
    folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=SUFFIX, dir=target))
    try:
        shelf = MappedArrays(folder, target)
        try:
            yield shelf
        finally:
            # What is buffered may not fit on the disk, and is given up.
            with contextlib.suppress(OSError):
                shelf.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _header(shape: tuple[int, ...], descr: str) -> bytes:
    file = io.BytesIO()
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def map_arrays(
    target: Path, key: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> Pair | None:
    """Map the arrays that were committed under `key`; None when missing or damaged.

    Every byte is looked at: headers must be the ones that were written, rows have their checksums.
    """
    checks = _mapped(target / f"{key}-checks.npy", (shapes[0][0], 2), "<u4")
    arrays = [
        _mapped(target / f"{key}-{kind}.npy", shape, "|u1")
        for kind, shape in zip(KINDS, shapes, strict=True)
    ]
    if checks is None or arrays[0] is None or arrays[1] is None:
        return None
    for array, expected in zip(arrays, checks.T, strict=True):
        assert array is not None
        if not np.array_equal(checksums(array), expected):
            return None
    return arrays[0], arrays[1]


def _mapped(path: Path, shape: tuple[int, ...], descr: str) -> NDArray[Any] | None:
    # The header is compared and never parsed: a damaged one may say anything.
    header = _header(shape, descr)
    try:
        with path.open("rb") as file:
            if file.read(len(header)) != header:
                return None
            size = len(header) + math.prod(shape) * np.dtype(descr).itemsize
            if file.seek(0, io.SEEK_END) != size:
                return None
            return np.memmap(file, np.dtype(descr), "r", len(header), shape)
    except (OSError, ValueError):
        return None
