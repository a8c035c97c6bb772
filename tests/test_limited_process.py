from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secateurs.limited_process import bounded

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
    try:
        ended, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:  # this process has no other children
        ended = 0
    assert ended == 0  # each child was waited for


def test_signals_are_for_the_parent_to_act_upon():
    """Ctrl-C in a terminal reaches the child as well."""

    def work() -> str:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        return "done"

    assert bounded(work, seconds=20, mib=256) == "done"


def test_a_child_without_its_parent_ends_when_its_time_is_over(tmp_path: Path):
    code = (
        "import os, sys, time\n"
        "from secateurs.limited_process import bounded\n"
        "def work():\n"
        "    open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "    os.kill(os.getppid(), 9)\n"
        "    time.sleep(60)\n"
        "bounded(work, seconds=0.5, mib=256)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "pid")], check=False)
    child = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 20
    while time.monotonic() < until and _runs(child):
        time.sleep(0.1)
    assert not _runs(child)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # who adopted it may not have asked for it yet
