from __future__ import annotations

import threading
from pathlib import Path

import pytest
from filelock import FileLock

from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.records import waiting
from secateurs.study.records.waiting import held


class Told:
    """Progress that remembers the names of its tasks."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def task(self, name: str, total: int, *, done: int = 0):
        from contextlib import nullcontext

        self.names.append(name)
        return nullcontext(lambda steps: None)

    def note(self, text: str) -> None: ...


def test_a_lock_that_is_free_is_taken_without_a_word_and_goes_with_the_work(tmp_path: Path):
    told, path = Told(), tmp_path / "a" / "net.lock"
    with held(path, "the probe of net", progress=told):
        assert path.exists()
    assert told.names == []
    assert not path.exists()


def test_waiting_is_said_and_ends_when_the_other_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(waiting, "WAIT_S", 0.01)
    told, path = Told(), tmp_path / "net.lock"
    other = FileLock(path, thread_local=False)
    other.acquire()
    threading.Timer(0.1, other.release).start()
    with held(path, "the probe of net", progress=told):
        assert told.names == ["waiting for another process: the probe of net"]


def test_waiting_stops_when_asked_to(tmp_path: Path):
    stop = StopFlag()
    stop.request()
    with (
        FileLock(tmp_path / "net.lock"),
        pytest.raises(StopRequested),
        held(tmp_path / "net.lock", "the probe of net", stop=stop),
    ):
        pass


def test_the_lock_stays_when_the_work_fails(tmp_path: Path):
    path = tmp_path / "net.lock"
    with pytest.raises(RuntimeError), held(path, "it"):
        raise RuntimeError
    assert path.exists()
