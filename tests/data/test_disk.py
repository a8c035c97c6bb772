from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from secateurs.data import disk
from secateurs.data.disk import allocate, checksums
from secateurs.files import sync_folder


@pytest.mark.parametrize("how", ["call", "no call", "not supported"])
def test_room_is_taken_on_every_system(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch):
    def refused(*words: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if how == "no call":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    elif how == "not supported":
        monkeypatch.setattr(os, "posix_fallocate", refused, raising=False)
    monkeypatch.setattr(disk, "_ZEROS_BYTES", 4096)
    with (tmp_path / "x").open("w+b") as file:
        allocate(file, 10_000)
        assert os.fstat(file.fileno()).st_size == 10_000
        assert os.fstat(file.fileno()).st_blocks * 512 >= 10_000  # no holes
    assert (tmp_path / "x").read_bytes() == bytes(10_000)


@pytest.mark.parametrize("has_call", [True, False])
def test_a_full_disk_is_an_error_when_room_is_taken(
    monkeypatch: pytest.MonkeyPatch, has_call: bool
):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")

    def full(*words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if has_call:
        monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    else:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("wb") as file:
        allocate(file, 10_000)


def test_a_folder_that_cannot_be_synced_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    sync_folder(tmp_path)
    assert len(synced) == 1

    def refused(*words: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refused)  # as Windows answers for a folder
    sync_folder(tmp_path)
    assert len(synced) == 1


def test_checksums_are_of_each_part(monkeypatch: pytest.MonkeyPatch):
    parts = [np.frombuffer(text, np.uint8) for text in (b"123456789", b"", b"a")]
    assert checksums(parts).tolist() == [0xCBF43926, 0, 0xE8B7BE43]
    assert checksums(np.zeros((0, 3), np.uint8)).tolist() == []
    monkeypatch.setattr(disk, "_BATCH_BYTES", 6)
    rows = np.arange(70, dtype=np.uint8).reshape(35, 2)
    assert checksums(rows).tolist() == [zlib.crc32(row.tobytes()) for row in rows]
