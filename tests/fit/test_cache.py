from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import pytest
import torch

import secateurs.fit.cache
from damage import damaged
from secateurs.errors import InputError
from secateurs.fit.cache import PrefixCache

CPU = torch.device("cpu")
SHAPE = (3, 2, 4, 5)
NUM_BYTES = 3 * 2 * 4 * 5 * 4


def values(start: float) -> torch.Tensor:
    return torch.arange(120, dtype=torch.float32).view(SHAPE) + start


def keep(cache: PrefixCache, key: str, start: float = 0.0) -> torch.Tensor | None:
    return cache.keep(
        key, SHAPE, torch.float32, lambda whole: whole.copy_(values(start)), device=CPU
    )


@pytest.mark.parametrize("on_disk", [False, True])
def test_what_is_kept_is_what_was_filled_in_with_channels_last(tmp_path: Path, on_disk: bool):
    kept = keep(PrefixCache(folder=tmp_path / "frozen" if on_disk else None), "a")
    assert kept is not None
    assert torch.equal(kept, values(0))
    assert kept.is_contiguous(memory_format=torch.channels_last)


def test_a_file_is_filled_once_and_one_of_another_size_again(tmp_path: Path):
    cache = PrefixCache(folder=tmp_path)
    keep(cache, "a", 1.0)
    found = keep(cache, "a", 2.0)
    assert found is not None
    assert torch.equal(found, values(1))
    (tmp_path / "a.bin").write_bytes(b"short")
    again = keep(cache, "a", 3.0)
    assert again is not None
    assert torch.equal(again, values(3))


def test_the_files_used_longest_ago_make_room(tmp_path: Path):
    cache = PrefixCache(2 * NUM_BYTES, tmp_path)
    for at, key in enumerate("ab"):
        keep(cache, key)
        os.utime(tmp_path / f"{key}.bin", (at, at))
    keep(cache, "a")  # used again, so that b is the oldest
    keep(cache, "c")
    assert sorted(path.name for path in tmp_path.glob("*.bin")) == ["a.bin", "c.bin"]


def test_room_is_bounded_by_the_budget_and_by_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert PrefixCache(100).fits(100)
    assert not PrefixCache(100).fits(101)
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert not PrefixCache(10 * free, tmp_path).fits(2 * free)
    with pytest.raises(InputError, match="must not be negative, got -1 bytes"):
        PrefixCache(-1)


def test_a_disk_that_fills_up_is_said_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert keep(PrefixCache(folder=tmp_path), "a") is None
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def _process(folder: str, start: float, answers: multiprocessing.Queue) -> None:
    kept = keep(PrefixCache(folder=Path(folder)), "a", start)
    answers.put(None if kept is None else float(kept.flatten()[0]))


def test_processes_share_one_file(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [
        context.Process(target=_process, args=(str(tmp_path), float(start), answers))
        for start in range(1, 5)
    ]
    for worker in workers:
        worker.start()
    found = {answers.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert len(found) == 1  # whoever was first
    assert found <= {1.0, 2.0, 3.0, 4.0}


def test_files_are_removed_in_the_end_unless_they_are_to_be_left(tmp_path: Path):
    left, gone = (PrefixCache(folder=tmp_path / n, keep_files=n == "left") for n in ("left", "no"))
    kept = keep(gone, "a")
    keep(left, "a")
    left.close()
    gone.close()
    assert (tmp_path / "left" / "a.bin").exists()
    assert not (tmp_path / "no").exists()
    assert kept is not None
    assert torch.equal(kept, values(0))  # still mapped


def test_a_damaged_file_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(secateurs.fit.cache, "BLOCK_BYTES", 64)
    cache = PrefixCache(folder=tmp_path)
    keep(cache, "a")
    whole = (tmp_path / "a.bin").read_bytes()
    assert whole[:NUM_BYTES] == values(0).permute(0, 2, 3, 1).contiguous().numpy().tobytes()
    fills: list[str] = []

    def fill(tensor: torch.Tensor) -> None:
        fills.append("")
        tensor.copy_(values(0))

    num = 0
    for name, content in damaged(whole):
        (tmp_path / "a.bin").write_bytes(content)
        found = cache.keep("a", SHAPE, torch.float32, fill, device=CPU)
        num += 1
        assert found is not None, name
        assert torch.equal(found, values(0)), name
        assert len(fills) == num, name
        assert (tmp_path / "a.bin").read_bytes() == whole
        del found
    assert num > 60
    cache.keep("a", SHAPE, torch.float32, fill, device=CPU)
    assert len(fills) == num


@pytest.mark.parametrize("call", ["mkdir", "lock"])
def test_a_full_disk_before_the_file_is_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
):
    def full(*words: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = PrefixCache(folder=tmp_path / "frozen")
    if call == "mkdir":
        monkeypatch.setattr(Path, "mkdir", full)
        assert not cache.fits(10)
    else:
        monkeypatch.setattr("secateurs.fit.cache.FileLock", full)
    assert keep(cache, "a") is None


@pytest.mark.parametrize("has_call", [True, False])
def test_files_are_written_where_room_cannot_be_taken_by_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_call: bool
):
    if not has_call:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    kept = keep(PrefixCache(folder=tmp_path), "a", 1.0)
    assert kept is not None
    assert torch.equal(kept, values(1))


def test_files_are_on_the_disk_before_they_have_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    events: list[str] = []
    replace = Path.replace

    def watched(path: Path, target: Path) -> Path:
        events.append("named")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", lambda handle: events.append("synced"))
    monkeypatch.setattr(Path, "replace", watched)
    keep(PrefixCache(folder=tmp_path), "a")
    assert events[0] == "synced"
    assert events[-2:] == ["named", "synced"]  # the folder last
