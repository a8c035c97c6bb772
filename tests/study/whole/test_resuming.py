"""A study that was stopped or killed, or is shared, ends as one that was not."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow_study import CONFIG, WORDS, without_clock

from narrow import IN_ANOTHER_PROCESS, sweep_narrow
from secateurs.cli import main
from secateurs.fit.inputs import Inputs
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.records.checksummed import read_sealed
from secateurs.study.study import run_study


def test_stopped_and_resumed_equals_unstopped(
    finished: tuple[Path, dict],
    flags: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    original = Inputs.batch
    for stop_after in (3, 9):
        stop, steps = StopFlag(), 0

        def counted(
            self: Inputs,
            epoch: int,
            rows: np.ndarray,
            stop: StopFlag = stop,
            last: int = stop_after,
        ) -> torch.Tensor:
            nonlocal steps
            steps += 1
            if steps == last:
                stop.request()
            return original(self, epoch, rows)

        monkeypatch.setattr(Inputs, "batch", counted)
        with pytest.raises(StopRequested):
            run_study(str(flags), CONFIG, tmp_path / "out", cache=cache, stop=stop)
    monkeypatch.setattr(Inputs, "batch", original)
    results = run_study(str(flags), CONFIG, tmp_path / "out", cache=cache)
    assert without_clock(results) == without_clock(finished[1])


@pytest.mark.slow
def test_killed_and_run_again_equals_one_that_was_not(
    finished: tuple[Path, dict],
    flags: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    out = tmp_path / "killed"
    words = ["study", str(flags), "--out", str(out), "--cache", str(cache), "--quiet", *WORDS]
    program = IN_ANOTHER_PROCESS + "from secateurs.cli import main; main()"
    command = [sys.executable, "-c", program, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(out.glob("trials/*.json"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, "the study ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "results.json").exists()
    monkeypatch.setattr("sys.argv", ["secateurs", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    killed = json.loads((out / "results.json").read_text())
    assert 'command = "study"' in killed.pop("config_toml")  # a command's results only
    whole = json.loads((finished[0] / "results.json").read_text())
    assert without_clock(killed) == without_clock(whole)
    assert (out / "report.html").exists()


def test_two_processes_and_a_killed_one_share_a_directory(
    finished: tuple[Path, dict], flags: Path, cache: Path, tmp_path: Path
):
    """Three start at once, one is killed: no trial is done twice but the one it was at."""
    out = tmp_path / "shared"
    # One process imports PyTorch, and those that are at work are its copies.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["narrow", "secateurs.study.study"])
    logs = [tmp_path / f"{name}.log" for name in ("killed", "one", "two")]
    config = CONFIG.to_json()
    started = [
        processes.Process(target=sweep_narrow, args=(str(flags), config, out, cache, log))
        for log in logs
    ]
    for process in started:
        process.start()
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not (
        logs[0].exists() and list(out.glob("trials/*.json"))
    ):
        time.sleep(0.05)
    started[0].kill()
    for process in started:
        process.join()
    assert [process.exitcode for process in started[1:]] == [0, 0]
    done = [key for log in logs[1:] for key in log.read_text().split()]
    assert len(done) == len(set(done))
    before = set(logs[0].read_text().split())
    assert set(done).isdisjoint(before)
    records = {path.stem: read_sealed(path) for path in out.glob("trials/*.json")}
    expected = {record["key"]: record for record in finished[1]["trials"]}
    assert {*done, *before} <= records.keys() == expected.keys()
    assert without_clock(records) == without_clock(expected)
