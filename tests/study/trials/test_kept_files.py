"""The cache of files by content is bounded, and nothing goes that a process uses."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from secateurs import leases
from secateurs.errors import InputError
from secateurs.study.trials import kept_files
from secateurs.study.trials.contents import Column, Content, Contents, write_arrays
from secateurs.study.trials.kept_files import limit_bytes, make_room, mark_used


def _name(number: int, suffix: str = ".safetensors") -> str:
    return f"{number:064x}{suffix}"


def _files(folder: Path, ages_s: dict[str, float], size: int = 100) -> None:
    folder.mkdir(exist_ok=True)
    now = time.time()
    for name, age_s in ages_s.items():
        (folder / name).write_bytes(bytes(size))
        os.utime(folder / name, (now - age_s, now - age_s))


def test_the_least_recently_used_go_until_there_is_room(tmp_path: Path):
    _files(tmp_path, {_name(1): 4000, _name(2): 9000, _name(3): 2000, _name(4, ".pth"): 3000})
    assert make_room(tmp_path, 100, 500) == 0
    assert make_room(tmp_path, 100, 350) == 200
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {_name(3), _name(4, ".pth")}  # those of 9000 and 4000 seconds went


def test_what_is_in_use_or_not_named_by_content_stays(tmp_path: Path):
    mine = {_name(1): 5.0, _name(2): 599.0, "notes.safetensors": 9000, _name(3)[1:]: 9000}
    _files(tmp_path, mine | {_name(4): 9000, _name(5): 9000, _name(6, ".lock"): 9000})
    assert make_room(tmp_path, 10**9, 0, keep={_name(4)}) == 200
    assert {path.name for path in tmp_path.iterdir()} == {*mine, _name(4)}
    assert make_room(tmp_path / "none", 1, 0) == 0


def test_a_clock_that_was_set_back_does_not_keep_a_file_for_ever(tmp_path: Path):
    _files(tmp_path, {_name(1): -90_000.0})
    assert make_room(tmp_path, 0, 0) == 100


def test_a_file_is_renewed_while_it_is_used_and_forgotten_once_it_has_gone(tmp_path: Path):
    _files(tmp_path, {_name(1): 9000})
    path = tmp_path / _name(1)
    mark_used(path)
    assert time.time() - path.stat().st_mtime < 60 and path in leases._HELD._paths
    _files(tmp_path, {_name(1): 9000})
    mark_used(tmp_path / _name(2))  # there is none: the thread looks at once
    until = time.monotonic() + 20
    while time.monotonic() < until and tmp_path / _name(2) in leases._HELD._paths:
        time.sleep(0.01)
    assert tmp_path / _name(2) not in leases._HELD._paths
    assert time.time() - path.stat().st_mtime < 60
    assert make_room(tmp_path, 0, 0) == 0
    leases._HELD.remove(path)


@pytest.mark.parametrize("text", ["many", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number_is_refused(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(kept_files.VARIABLE, text)
    with pytest.raises(InputError, match=r"SECATEURS_CONTENTS_GIB: expected a number of GiB"):
        limit_bytes()
    monkeypatch.setenv(kept_files.VARIABLE, "0.5")
    assert limit_bytes() == 1 << 29
    monkeypatch.delenv(kept_files.VARIABLE)
    assert limit_bytes() == 20 << 30


def test_copies_of_earlier_studies_make_room_for_those_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    driver = tmp_path / "driver"
    contents = [write_arrays({"x": Column.of(np.full(500, k))}, driver) for k in range(3)]
    monkeypatch.setenv(kept_files.VARIABLE, str(2.5 * contents[0].num_bytes / 2**30))

    def fetch(asked: Content) -> Generator[bytes]:
        yield Path(asked.path).read_bytes()

    node = Contents(tmp_path / "node", fetch, shared_disk=False)
    monkeypatch.setattr(kept_files, "keep_renewed", lambda path: None)  # in its own time
    first, second = (node.path(content) for content in contents[:2])
    for path in (first, second):
        os.utime(path, (1000, 1000))
    other = Contents(tmp_path / "node", fetch, shared_disk=False)  # of another process
    assert other.path(contents[1]) == second  # used again, so that the first one goes
    third = other.path(contents[2])
    assert third.is_file() and second.is_file() and not first.exists()
    assert node.path(contents[0]).is_file()  # fetched again by who still wants it


def test_a_full_disk_is_emptied_of_what_nobody_uses_and_the_copy_tried_once_more(tmp_path: Path):
    content = write_arrays({"x": Column.of(np.arange(9.0))}, tmp_path / "driver")
    tries: list[int] = []

    def fetch(asked: Content) -> Generator[bytes]:
        tries.append(1)
        if (tmp_path / "node" / _name(1)).exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        yield Path(asked.path).read_bytes()

    _files(tmp_path / "node", {_name(1): 9000})
    node = Contents(tmp_path / "node", fetch, shared_disk=False)
    assert node.path(content).is_file() and len(tries) == 2
    _files(tmp_path / "node", {_name(1): 0})
    fresh = write_arrays({"x": Column.of(np.arange(8.0))}, tmp_path / "driver")
    with pytest.raises(OSError, match="No space left"):
        node.path(fresh)
    assert len(tries) == 3
