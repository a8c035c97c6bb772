from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from secateurs.stopping import (
    StopRequested,
    exit_code,
    interrupted_by_signals,
    stop_on_interrupt,
    stop_signals,
)

DEFAULTS = {"SIGINT": "signal.default_int_handler"}  # of Python; of others the system's


@pytest.fixture
def heard() -> Generator[None]:
    """A hang-up is not ignored, as it is in tests that nohup started."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_signal_asks_for_a_stop_and_the_second_interrupts(name: str):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with stop_on_interrupt() as stop:
        signal.raise_signal(number)
        assert stop.requested
        with pytest.raises(StopRequested):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
    assert exit_code() == 128 + number


def test_any_signal_interrupts_a_command_that_cannot_be_resumed():
    with interrupted_by_signals(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_on_interrupt() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_that_a_system_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(signal, "SIGHUP")
    assert signal.SIGTERM in stop_signals() and len(stop_signals()) == 2
    with stop_on_interrupt() as stop:
        signal.raise_signal(signal.SIGTERM)
    assert stop.requested


def test_outside_the_main_thread_nothing_is_caught():
    found: list[bool] = []

    def work() -> None:
        with interrupted_by_signals(), stop_on_interrupt() as stop:
            found.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_command_ends_with_the_code_of_its_signal(name: str, code: int, tmp_path: Path):
    program = (
        "import os, signal, sys, secateurs.cli, secateurs.cli.audit as command\n"
        f"signal.signal(signal.{name}, {DEFAULTS.get(name, 'signal.SIG_DFL')})\n"
        f"command.open_session = lambda *_, **__: signal.raise_signal(signal.{name})\n"
        f"sys.argv = ['secateurs', 'audit', {str(tmp_path)!r}]\n"
        "secateurs.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "interrupted\n")
