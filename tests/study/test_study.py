from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from narrow import IN_ANOTHER_PROCESS, narrowed, sweep_narrow

from secateurs.cli import main
from secateurs.errors import InputError
from secateurs.extras import MODULES
from secateurs.files import fingerprint, write_json
from secateurs.fit.inputs import Inputs
from secateurs.progress import Silent
from secateurs.report.study.page import write_report
from secateurs.report.study.schema import check_results
from secateurs.ship.checkpoint import load
from secateurs.ship.export import OnnxCheck, export_onnx
from secateurs.ship.spec import ModelSpec
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.records.checksummed import read_sealed
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import open_dataset
from secateurs.study.study import headline, run_study
from secateurs.study.trials import engine
from secateurs.study.trials.trial import prefix_cache

# A narrow one (see `narrow`); random weights, because tests have no others.
BACKBONE = "alexnet"
CONFIG = StudyConfig(
    backbone=BACKBONE,
    weights="none",
    group_by=r"^(\d+)_",
    depths=(5, 7),
    runs=2,
    epochs=2,
    views=1,
    batch_size=8,
    lr=1e-3,
    precision="float32",
    layers=("fc6",),
    rule="pairwise",
    low_deg=8.0,
)
WORDS = [
    *("--backbone", BACKBONE, "--weights", "none", "--group-by", r"^(\d+)_"),
    *("--depths", "5,7", "--runs", "2", "--epochs", "2", "--views", "1"),
    *("--batch-size", "8", "--lr", "0.001", "--precision", "float32"),
    *("--layers", "fc6", "--low-deg", "8"),
]


def without_clock(results: Any) -> Any:
    """Results less what is measured with a clock, as `docs/results.md` says."""
    if isinstance(results, dict):
        return {
            key: without_clock(value)
            for key, value in results.items()
            if key not in ("timing", "latency", "sentence")
        }
    if isinstance(results, list):
        return [without_clock(value) for value in results]
    return results


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> Generator[None]:
    with narrowed():
        yield


@pytest.fixture(scope="module", autouse=True)
def exports(tmp_path_factory: pytest.TempPathFactory):
    """Export a network to ONNX once: the same one again gets a copy of the same file."""
    made: dict[str, tuple[Path, OnnxCheck]] = {}
    folder = tmp_path_factory.mktemp("exports")

    def once(
        model: torch.nn.Module, spec: ModelSpec, path: Path, example: torch.Tensor
    ) -> OnnxCheck:
        key = fingerprint(
            [spec.to_json(), [value.tolist() for value in model.state_dict().values()]]
        )
        if key not in made:
            check = export_onnx(model, spec, folder / f"{key}.onnx", example)
            made[key] = (folder / f"{key}.onnx", check)
        shutil.copy(made[key][0], path)
        return made[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateurs.study.stages.export_onnx", once)
        patch.setattr(
            "secateurs.study.stages.export_program",
            lambda model, spec, path, example: path.write_bytes(b"program"),
        )
        yield


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all processes that test."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "shared_study"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def cache(shared: Path) -> Path:
    return shared / "cache"


@pytest.fixture(scope="module")
def finished(flags: Path, cache: Path, shared: Path):
    """A study and what it returned, as plain data; made by the process that asks first."""
    out, returned = shared / "study", shared / "returned.json"
    with FileLock(shared / "study.lock"):
        if not returned.exists():
            write_json(returned, run_study(str(flags), CONFIG, out, cache=cache))
    return out, json.loads(returned.read_text())


def test_results_are_whole(finished: tuple[Path, dict]):
    out, results = finished
    written = json.loads((out / "results.json").read_text())
    assert written == results
    check_results(written)
    for key in ("data", "split", "weights", "trials", "chosen", "pruned", "cost", "versions"):
        assert key in written
    assert len(written["trials"]) == 5
    assert {(t["depth"], t["pretrained"]) for t in written["trials"]} == {
        (5, True),
        (7, True),
        (0, False),
    }
    for name in ("model", "tensors", "onnx", "program", "unpruned", "ledger"):
        assert (out / written["files"][name]).stat().st_size > 0
    assert all((out / sample["thumbnail"]).exists() for sample in written["samples"])
    assert all((out / shown["thumbnail"]).exists() for shown in written["merged"]["pictures"])
    (cut,), (merged,) = written["pruned"]["layers"], written["merged"]["layers"]
    assert merged["layer"] == cut["layer"]
    assert 0 < merged["num_merged"] <= cut["num_units"] - cut["num_kept"]
    assert set(written["split"]["names"]["train"]) >= {
        p["name"] for p in written["merged"]["pictures"]
    }
    assert written["split"]["leakage"]["same_group"] == 0
    assert "of" in headline(results)


def test_saved_networks_give_the_accuracies_in_the_results(
    finished: tuple[Path, dict], flags: Path, cache: Path
):
    out, results = finished
    dataset = open_dataset(str(flags), CONFIG, cache=cache)
    for where, key in (("unpruned", "chosen"), ("model", "pruned")):
        loaded = load(out / where)
        again = evaluate_model(loaded.model, dataset, "test", torch.device("cpu"))
        found, kept = again.to_json(), dict(results[key]["test"])
        # The mean of float32 losses: memory laid out in another way may round the last bits.
        assert found.pop("loss") == pytest.approx(kept.pop("loss"), rel=1e-6)
        assert found == kept


def test_a_second_run_trains_decodes_and_measures_nothing(
    finished: tuple[Path, dict], flags: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    def never(*args: object, **options: object) -> None:
        raise AssertionError("done again")

    out, results = finished
    monkeypatch.setattr(engine, "run_trial", never)
    monkeypatch.setattr("secateurs.data.audit.decoding", never)
    monkeypatch.setattr("secateurs.data.store.decoding", never)
    monkeypatch.setattr("secateurs.study.stages.prune_network", never)
    monkeypatch.setattr("secateurs.study.stages.price", never)
    again = run_study(str(flags), CONFIG, out, cache=cache)
    assert json.loads(json.dumps(again)) == results


@pytest.mark.slow
def test_a_sweep_ends_with_the_choice_and_a_study_goes_on_from_it(
    finished: tuple[Path, dict],
    flags: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    out = tmp_path / "out"
    both = run_study(
        str(flags),
        CONFIG,
        out,
        cache=cache,
        prune=False,
        both_splits=True,
        prefix_cache=prefix_cache(out, 1.0, "disk"),
    )
    assert both["pruned"] is None
    assert both["trials"] == json.loads((out / "results.json").read_text())["trials"]
    assert not (out / "frozen").exists()  # the shared files of frozen layers are gone
    assert not list((out / "trials").glob("*.weights.safetensors"))
    other = both["ungrouped"]
    assert other["split"]["rule"] == "random, groups ignored"
    assert other["split"]["leakage"]["same_group"] > 0
    assert both["split"]["leakage"]["same_group"] == 0
    assert {t["key"] for t in other["trials"]}.isdisjoint(t["key"] for t in both["trials"])
    assert "unpruned" in headline(both)
    check_results(both)

    def never(*args: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(engine, "run_trial", never)
    results = run_study(str(flags), CONFIG, out, cache=cache)
    assert without_clock(results) == without_clock(finished[1])


def test_both_splits_need_groups(flags: Path, cache: Path, tmp_path: Path):
    config = replace(CONFIG, group_by=None)
    with pytest.raises(InputError, match="groups must be known; give --group-by"):
        run_study(str(flags), config, tmp_path, cache=cache, prune=False, both_splits=True)


def test_progress_says_how_long_is_left(flags: Path, cache: Path, tmp_path: Path):
    class Notes(Silent):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def note(self, text: str) -> None:
            self.lines.append(text)

    progress = Notes()
    config = replace(CONFIG, depths=(7,), scratch_runs=0, epochs=1)
    run_study(str(flags), config, tmp_path, cache=cache, prune=False, progress=progress)
    first, last = [line for line in progress.lines if line.startswith("depth 7 run")]
    assert re.fullmatch(r"depth 7 run 1: \d+\.\d% on validation, \d+ s; about \d+ s left", first)
    assert re.fullmatch(r"depth 7 run 2: \d+\.\d% on validation, \d+ s", last)


@pytest.mark.slow
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
    whole = json.loads((finished[0] / "results.json").read_text())
    assert without_clock(killed) == without_clock(whole)
    assert (out / "report.html").exists()


@pytest.mark.slow
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


def test_another_configuration_in_the_same_directory_is_refused(
    finished: tuple[Path, dict], flags: Path, cache: Path
):
    other = StudyConfig(**{**CONFIG.__dict__, "lr": 5e-3})
    with pytest.raises(InputError, match=r"another configuration: lr \(0.001 there, 0.005 now\)"):
        run_study(str(flags), other, finished[0], cache=cache)


def test_other_images_in_the_same_directory_are_refused(
    finished: tuple[Path, dict], flags: Path, cache: Path, tmp_path: Path
):
    copy = tmp_path / "flags"
    shutil.copytree(flags, copy)
    (next((copy / "plain").iterdir())).unlink()
    with pytest.raises(
        InputError, match="holds a study of other data and split; choose another directory"
    ):
        run_study(str(copy), CONFIG, finished[0], cache=cache)


def test_a_directory_that_is_no_study_is_left_alone(flags: Path, cache: Path, tmp_path: Path):
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a study"):
        run_study(str(flags), CONFIG, tmp_path, cache=cache)
    assert [p.name for p in tmp_path.iterdir()] == ["letters.txt"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"depths": (99,)}, "depth 99 is outside 0..7 of alexnet"),
        ({"backbone": "alexnett"}, "unknown backbone 'alexnett'; did you mean alexnet"),
        ({"batch_size": 64}, "batch size 64 is larger than the"),
        ({"weights": "nowhere.pth"}, "nowhere.pth: no such weights file"),
        ({"group_by": "("}, "not a regular expression"),
        ({"layers": ("fc9",)}, "has no weighted layer 'fc9'"),
    ],
)
def test_bad_input_comes_before_training(
    flags: Path, cache: Path, tmp_path: Path, change: dict, text: str
):
    config = StudyConfig(**{**CONFIG.__dict__, **change})
    with pytest.raises(InputError, match=text):
        run_study(str(flags), config, tmp_path / "out", cache=cache)
    assert not (tmp_path / "out" / "trials").exists()


def test_without_onnx_and_parquet_a_study_ends_whole_and_says_so(
    flags: Path, cache: Path, tmp_path: Path
):
    config = replace(CONFIG, depths=(7,), runs=1, scratch_runs=0, epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        for module in (*MODULES["onnx"], *MODULES["parquet"]):
            patch.setitem(sys.modules, module, None)
        results = run_study(str(flags), config, tmp_path, cache=cache)
    note = results["cost"]["onnx_note"]
    assert note.endswith("the ONNX packages are not installed: pip install 'secateurs[onnx]'")
    assert {row["runtime"] for row in results["cost"]["latency"]} == {"pytorch"}
    assert results["cost"]["after"]["onnx_bytes"] is None
    assert "onnx" not in results["files"] and "unpruned_onnx" not in results["files"]
    assert all(
        (tmp_path / file).exists() for file in results["files"].values() if "report" not in file
    )
    assert not list(tmp_path.rglob("*.onnx")) and not (tmp_path / "ledger.parquet").exists()
    write_report(results, tmp_path)
    assert "No ONNX file was written" in (tmp_path / "report.html").read_text()

    again = run_study(str(flags), config, tmp_path, cache=cache)
    assert again["cost"]["onnx_note"] is None
    assert {row["runtime"] for row in again["cost"]["latency"]} == {"pytorch", "onnxruntime"}
    assert (tmp_path / again["files"]["onnx"]).exists()
    assert (tmp_path / "ledger.parquet").exists()
