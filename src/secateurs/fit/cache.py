"""Room for the outputs of frozen layers: memory, or files that several processes share."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import mul
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from secateurs.errors import InputError
from secateurs.files import atomic_path

Fill = Callable[[Tensor], None]


@dataclass(frozen=True)
class PrefixCache:
    """Where outputs of frozen layers are kept, and how much of them.

    `budget_bytes` bounds what is kept: of one prefix at a time in memory, of all files together in
    `folder`, where the ones used longest ago make room. A file is written whole or not at all;
    another process that wants it meanwhile waits and then maps it. `keep_files` leaves them to the
    next command that uses the same folder.
    """

    budget_bytes: int = 2 * 2**30
    folder: Path | None = None
    keep_files: bool = False

    def __post_init__(self) -> None:
        if self.budget_bytes < 0:
            raise InputError(
                f"the cache budget must not be negative, got {self.budget_bytes} bytes"
            )

    def has_room(self, num_bytes: int) -> bool:
        """Whether outputs of so many bytes in all may be kept."""
        if num_bytes > self.budget_bytes:
            return False
        if self.folder is None:
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        ours = sum(_size(path) for path in self._files())
        return num_bytes <= shutil.disk_usage(self.folder).free + ours

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

        Four dimensions are laid out channels last. Tensors of a folder are mapped read-only and lie
        on the CPU. None when the disk is full.
        """
        if self.folder is None:
            layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
            kept = torch.empty(*shape, dtype=dtype, device=device, memory_format=layout)
            fill(kept)
            return kept
        path = self.folder / f"{key}.bin"
        num_bytes = reduce(mul, shape, dtype.itemsize)
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if _size(path) != num_bytes:
                self._make_room(num_bytes)
                try:
                    _write(path, shape, dtype, fill)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        return None
                    raise
            path.touch()  # the order in which files make room
            return _mapped(path, shape, dtype)

    def close(self) -> None:
        """Remove the files unless they are to be left; who has them mapped can go on using them."""
        if self.folder is not None and not self.keep_files:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        assert self.folder is not None
        return sorted(self.folder.glob("*.bin"), key=_used_at)

    def _make_room(self, num_bytes: int) -> None:
        files = self._files()
        total = sum(_size(path) for path in files)
        for path in files:
            if total + num_bytes <= self.budget_bytes:
                return
            total -= _size(path)
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
    with atomic_path(path) as temporary:
        with temporary.open("r+b") as file:
            # Takes the room at once: a full disk is an error here, and a crash in a mapped page.
            os.posix_fallocate(file.fileno(), 0, reduce(mul, shape, dtype.itemsize))
        fill(_mapped(temporary, shape, dtype, shared=True))


def _mapped(
    path: Path, shape: Sequence[int], dtype: torch.dtype, *, shared: bool = False
) -> Tensor:
    flat = torch.from_file(str(path), shared=shared, size=reduce(mul, shape, 1), dtype=dtype)
    if len(shape) != 4:
        return flat.view(*shape)
    num, channels, height, width = shape
    return flat.view(num, height, width, channels).permute(0, 3, 1, 2)
