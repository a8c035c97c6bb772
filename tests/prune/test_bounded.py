from __future__ import annotations

import os
import time

import pytest

from secateurs.prune.bounded import bounded

HELD: list[int] = []


def test_what_the_child_does_is_seen_and_changes_nothing_here():
    def work() -> list[int]:
        HELD.append(os.getpid())
        return [*HELD, len("text" * 2**20)]

    pid, length = bounded(work, seconds=20, mib=256)
    assert pid != os.getpid() and length == 2**22
    assert HELD == []


def test_large_answers_come_whole():
    assert bounded(lambda: list(range(10**6)), seconds=20, mib=512)[-1] == 10**6 - 1


def test_time_memory_and_errors_are_told():
    start = time.perf_counter()
    with pytest.raises(TimeoutError, match=r"more than 0\.2 s"):
        bounded(lambda: time.sleep(30), seconds=0.2, mib=256)
    with pytest.raises(MemoryError, match="more than 64 MiB"):
        bounded(lambda: len(bytes(2**28)), seconds=20, mib=64)
    with pytest.raises(RuntimeError, match=r"^KeyError: 'wanted'$"):
        bounded(lambda: {}["wanted"], seconds=20, mib=256)
    with pytest.raises(MemoryError):
        bounded(lambda: os._exit(9), seconds=20, mib=256)
    assert time.perf_counter() - start < 15
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # none is left behind
