"""Room for the outputs of frozen layers: memory, or files that several processes share."""

from __future__ import annotations

import contextlib
import mmap
import shutil
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import mul
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from secateurs.data.disk import FULL, allocate, checksums, sync
from secateurs.errors import InputError
from secateurs.files import atomic_path

Fill = Callable[[Tensor], None]

MAGIC = b"secateurs crc32\1"
BLOCK_BYTES = 2**22


@dataclass(frozen=True)
class PrefixCache:
    """Where outputs of frozen layers are kept, and how much of them.

    `budget_bytes` bounds what is kept: of one prefix at a time in memory, of all files together in
    `folder`, where the ones used longest ago make room. A file is written whole or not at all;
    another process that wants it meanwhile waits and then maps it. Each file ends with checksums,
    and one that is damaged is made again. `keep_files` leaves them to the next command that uses
    the same folder. `given` are outputs by their keys, as `bytes_of` gives them, that need not be
    computed; they are not written to.
    """

    budget_bytes: int = 2 * 2**30
    folder: Path | None = None
    keep_files: bool = False
    given: dict[str, NDArray[np.uint8]] = field(
        default_factory=dict[str, NDArray[np.uint8]], compare=False
    )

    def __post_init__(self) -> None:
        if self.budget_bytes < 0:
            raise InputError(
                f"the cache budget must not be negative, got {self.budget_bytes} bytes"
            )

    def fits(self, num_bytes: int) -> bool:
        """Whether outputs of so many bytes in all may be kept."""
        if num_bytes > self.budget_bytes:
            return False
        if self.folder is None:
            return True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            if error.errno in FULL:
                return False
            raise
        return num_bytes <= free + sum(_size(path) for path in self._files())

    def keep(
        self,
        key: str,
        shape: Sequence[int],
        dtype: torch.dtype,
        fill: Fill,
        *,
        device: torch.device,
    ) -> Tensor | None:
        """A tensor of `shape` under `key`, written by `fill` unless another process has done so.

        Four dimensions are laid out channels last. Tensors of a folder and those given are
        read-only and lie on the CPU. None when the disk is full.
        """
        known = self.given.get(key)
        if known is not None and known.nbytes == reduce(mul, shape, dtype.itemsize):
            return _given(known, shape, dtype)
        if self.folder is None:
            layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
            kept = torch.empty(*shape, dtype=dtype, device=device, memory_format=layout)
            fill(kept)
            return kept
        path = self.folder / f"{key}.bin"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                num_bytes = reduce(mul, shape, dtype.itemsize)
                if not _intact(path, num_bytes):
                    path.unlink(missing_ok=True)
                    self._make_room(num_bytes)
                    _write(path, shape, dtype, fill)
                path.touch()  # the order in which files make room
                return _mapped(path, shape, dtype)
        except OSError as error:
            if error.errno in FULL:
                return None
            raise

    def close(self) -> None:
        """Remove the files unless they are to be kept; existing memory maps stay valid."""
        if self.folder is not None and not self.keep_files:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        assert self.folder is not None
        return sorted(self.folder.glob("*.bin"), key=_used_at)

    def _make_room(self, num_bytes: int) -> None:
        files = self._files()
        total = sum(_payload(_size(path)) for path in files)
        for path in files:
            if total + num_bytes <= self.budget_bytes:
                return
            total -= _payload(_size(path))
            with contextlib.suppress(PermissionError):  # Windows: another process has it mapped
                path.unlink(missing_ok=True)


# Another process may have removed a file between two looks.
def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _write(path: Path, shape: Sequence[int], dtype: torch.dtype, fill: Fill) -> None:
    num_bytes = reduce(mul, shape, dtype.itemsize)
    with atomic_path(path) as temporary:
        with temporary.open("r+b") as file:
            # Takes the room at once: a full disk is an error here, and a crash in a mapped page.
            allocate(file, num_bytes + _tail_bytes(num_bytes))
        fill(_mapped(temporary, shape, dtype, shared=True))
        with temporary.open("r+b") as file:
            tail = _tail(_sums(file, num_bytes))
            file.seek(num_bytes)
            file.write(tail)
            sync(file)


def _tail_bytes(num_bytes: int) -> int:
    return len(MAGIC) + 4 * -(-num_bytes // BLOCK_BYTES) + 4


def _payload(file_bytes: int) -> int:
    # The budget is for outputs, without their checksums.
    rest = max(0, file_bytes - len(MAGIC) - 4)
    return rest - 4 * -(-rest // (BLOCK_BYTES + 4))


def _tail(sums: NDArray[np.uint32]) -> bytes:
    # The checksums of the blocks have one of their own.
    body = MAGIC + sums.astype("<u4").tobytes()
    return body + zlib.crc32(body).to_bytes(4, "little")


def _sums(file: BinaryIO, num_bytes: int) -> NDArray[np.uint32]:
    """The checksums of the first `num_bytes` bytes of a file, block by block."""
    with mmap.mmap(file.fileno(), num_bytes, access=mmap.ACCESS_READ) as whole:
        flat = np.frombuffer(whole, dtype=np.uint8)
        found = checksums([flat[at : at + BLOCK_BYTES] for at in range(0, num_bytes, BLOCK_BYTES)])
        del flat  # the map cannot be closed under it
    return found


def _intact(path: Path, num_bytes: int) -> bool:
    """Whether a file holds what was written: every byte is looked at."""
    if num_bytes == 0 or _size(path) != num_bytes + _tail_bytes(num_bytes):
        return False
    try:
        with path.open("rb") as file:
            file.seek(num_bytes)
            tail = file.read()
            return tail == _tail(_sums(file, num_bytes))
    except (OSError, ValueError):  # unreadable, or shorter by now
        return False


def _mapped(
    path: Path, shape: Sequence[int], dtype: torch.dtype, *, shared: bool = False
) -> Tensor:
    flat = torch.from_file(str(path), shared=shared, size=reduce(mul, shape, 1), dtype=dtype)
    return _laid_out(flat, shape)


def _laid_out(flat: Tensor, shape: Sequence[int]) -> Tensor:
    if len(shape) != 4:
        return flat.view(*shape)
    num, channels, height, width = shape
    return flat.view(num, height, width, channels).permute(0, 3, 1, 2)


def bytes_of(kept: Tensor) -> NDArray[np.uint8]:
    """The bytes of what `PrefixCache.keep` gave, in the layout in which it keeps them.

    >>> bytes_of(torch.tensor([[1.0]])).tolist()
    [0, 0, 128, 63]
    """
    flat = kept.permute(0, 2, 3, 1) if kept.dim() == 4 else kept
    return flat.contiguous().cpu().reshape(-1).view(torch.uint8).numpy()


def _given(known: NDArray[np.uint8], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    with warnings.catch_warnings():  # that it cannot be written, which nobody does
        warnings.simplefilter("ignore", UserWarning)
        flat = torch.from_numpy(known).view(dtype)
    return _laid_out(flat, shape)
