"""Files named by their content, which every machine needs once."""

from __future__ import annotations

import errno
import hashlib
import json
import math
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.files import atomic_path, sha256_file
from secateurs.study.trials.kept_files import limit_bytes, make_room, mark_used

_TYPES = {"U8": "|u1", "U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4"}
_NAMES = {np.dtype(code): name for name, code in _TYPES.items()}
CHUNK_ROWS = 256


@dataclass(frozen=True)
class Content:
    """A file by its SHA-256, with the place where the driver has it."""

    sha256: str
    num_bytes: int
    path: str

    @property
    def name(self) -> str:
        """What a node calls its copy; the suffix says how it is read."""
        return self.sha256 + Path(self.path).suffix

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def content_of(path: Path, sha256: str | None = None) -> Content:
    """A file that is there already."""
    return Content(sha256 or sha256_file(path), path.stat().st_size, str(path.resolve()))


@dataclass(frozen=True)
class Column:
    """An array that is written in parts: shape, type, and its rows from first to last."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: Callable[[int, int], NDArray[Any]]

    @staticmethod
    def of(array: NDArray[Any]) -> Column:
        """An array that is in memory."""
        return Column(array.shape, array.dtype, lambda first, last: array[first:last])


def write_arrays(
    columns: Mapping[str, Column], folder: Path, *, limit: int | None = None
) -> Content:
    """A safetensors file of arrays in `folder`, named by its content; written if it is not there.

    The arrays are computed twice, in parts of some rows: once for the name and once for the file.
    With `limit` the folder is a cache of so many bytes: what nobody uses makes room.
    """
    header = _header(columns)
    digest, num_bytes = hashlib.sha256(), 0
    for part in _parts(header, columns):
        digest.update(part)
        num_bytes += len(part)
    path = folder / f"{digest.hexdigest()}.safetensors"
    mark_used(path)  # before the look, so that no other process removes it after
    if not path.is_file() or path.stat().st_size != num_bytes:
        if limit is not None:
            make_room(folder, num_bytes, limit)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.writelines(_parts(header, columns))
    mark_used(path)
    return Content(digest.hexdigest(), num_bytes, str(path.resolve()))


def _header(columns: Mapping[str, Column]) -> bytes:
    at, plain = 0, dict[str, Any]()
    for name, column in columns.items():
        size = math.prod(column.shape) * column.dtype.itemsize
        plain[name] = {
            "dtype": _NAMES[column.dtype],
            "shape": list(column.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(plain, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _parts(header: bytes, columns: Mapping[str, Column]) -> Generator[bytes]:
    yield header
    for column in columns.values():
        for first in range(0, column.shape[0], CHUNK_ROWS):
            yield column.rows(first, min(first + CHUNK_ROWS, column.shape[0])).tobytes()


def map_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file of `write_arrays`, mapped read-only: copy before writing in place."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        plain: dict[str, Any] = json.loads(file.read(length))
    return {
        name: np.memmap(
            path,
            np.dtype(_TYPES[one["dtype"]]),
            "r",
            8 + length + one["data_offsets"][0],
            tuple(one["shape"]),
        )
        if math.prod(one["shape"])
        else np.zeros(one["shape"], _TYPES[one["dtype"]])
        for name, one in plain.items()
    }


class NeedsFile(Exception):
    """A file that this machine has not got and was not sent."""


class Contents:
    """The files of a machine by content: those of the driver where its disk is seen, else copies.

    `fetch` gives the bytes of one that is not here, in parts. `num_fetched` counts them. Copies are
    kept for later studies, up to a size (see `kept_files`).
    """

    def __init__(
        self, folder: Path, fetch: Callable[[Content], Iterable[bytes]], *, shared_disk: bool = True
    ) -> None:
        self.folder, self.shared_disk = folder, shared_disk
        self.num_fetched = 0
        self.fetch = fetch
        self._known: dict[str, Path] = {}

    def path(self, content: Content) -> Path:
        """Where a file is on this machine; every byte of it has been checked once."""
        known = self._known.get(content.sha256)
        if known is not None and known.is_file():
            return known
        places = [Path(content.path)] if self.shared_disk else []
        own = self.folder / content.name
        mark_used(own)  # before the look, so that no other process removes it after
        found = next((path for path in [*places, own] if _is(path, content)), None)
        if found is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{content.sha256}.lock"):
                if not _is(own, content):  # another process may have fetched it meanwhile
                    self._copy_with_room(content, own)
            found = own
        if found == own:
            mark_used(own)
        self._known[content.sha256] = found
        return found

    def _copy_with_room(self, content: Content, path: Path) -> None:
        keep = {content.name, f"{content.sha256}.lock"}
        make_room(self.folder, content.num_bytes, limit_bytes(), keep=keep)
        try:
            self._copy(content, path)
        except OSError as error:
            # The disk is full of other things too: do without all that nobody uses.
            if error.errno != errno.ENOSPC or not make_room(self.folder, 0, 0, keep=keep):
                raise
            self._copy(content, path)

    def _copy(self, content: Content, path: Path) -> None:
        digest = hashlib.sha256()
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            for part in self.fetch(content):
                digest.update(part)
                file.write(part)
                self.num_fetched += len(part)
            if digest.hexdigest() != content.sha256:
                raise InputError(f"{content.path}: changed while the study ran; run again")


def _is(path: Path, content: Content) -> bool:
    try:
        return path.stat().st_size == content.num_bytes and sha256_file(path) == content.sha256
    except OSError:
        return False
