"""What experiment trackers are told, read back with the trackers' own readers."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from narrow import narrowed
from secateurs.errors import InputError
from secateurs.progress import Silent
from secateurs.report.study.schema import check_results
from secateurs.study.setup.config import StudyConfig
from secateurs.study.study import run_study
from secateurs.study.tracking.log import (
    Entry,
    LogError,
    answer_entry,
    log_entry,
    open_log,
    trial_entry,
)
from secateurs.study.training import train_model

# The made-up study of the report's tests.
sys.path.insert(0, str(Path(__file__).parents[2] / "report"))

from example_results import example_results

CONFIG = StudyConfig(
    backbone="alexnet",
    weights="none",
    group_by=r"^(\d+)_",
    depths=(7,),
    runs=1,
    scratch_runs=1,
    epochs=2,
    views=1,
    batch_size=8,
    lr=1e-3,
    precision="float32",
    image_size=64,
)
ENTRY = Entry("depth 5 run 1", "a", {"lr": 0.1, "patience": None}, {"best": 0.5}, {"loss": [2, 1]})


@pytest.fixture(scope="module", autouse=True)
def _narrow() -> Generator[None]:
    with narrowed():
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def plain(flags: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory):
    """A sweep that logs nothing."""
    out = tmp_path_factory.mktemp("plain")
    return out, run_study(str(flags), CONFIG, out, cache=cache, prune=False)


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def runs(out: Path) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{out.resolve()}/mlflow/mlflow.db")
        experiment = client.get_experiment_by_name("secateurs")
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id], order_by=["run_name"]))


def history(out: Path, run: Any, name: str) -> list[tuple[int, float]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{out.resolve()}/mlflow/mlflow.db")
        return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]


def test_logging_changes_no_result_and_a_resumed_study_logs_nothing_twice(
    plain: tuple[Path, dict], flags: Path, cache: Path, tmp_path: Path
):
    out, before = plain[0], plain[1]
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    for kind in ("tensorboard", "mlflow"):
        # All trials are done: they are logged from their files, and the results stay the same.
        log = open_log(kind, copy)
        assert run_study(str(flags), CONFIG, copy, cache=cache, prune=False, log=log) == before
    files = {path: path.stat().st_mtime_ns for path in copy.glob("tensorboard/*/events*")}
    found = runs(copy)
    assert [run.info.run_name for run in found] == ["answer", "depth 7 run 1", "scratch run 1"]
    for kind in ("tensorboard", "mlflow"):
        log = open_log(kind, copy)
        run_study(str(flags), CONFIG, copy, cache=cache, prune=False, log=log)
    assert {p: p.stat().st_mtime_ns for p in copy.glob("tensorboard/*/events*")} == files
    assert [run.info.run_id for run in runs(copy)] == [run.info.run_id for run in found]

    for record in before["trials"]:
        kind = "depth-7" if record["pretrained"] else "scratch"
        logged = events(copy / "tensorboard" / f"{kind}-run-1")
        assert "hparams" in logged.summary_metadata["_hparams_/experiment"].plugin_data.plugin_name
        run = next(r for r in found if r.info.run_name == f"{kind.replace('-', ' ')} run 1")
        assert run.data.tags["secateurs.key"] == record["key"]
        assert run.data.params["lr"] == "0.001"
        assert run.data.params["pretrained"] == str(record["pretrained"])
        assert run.data.metrics["best/val_accuracy"] == record["val_accuracy"]
        for name, column in (("accuracy/val", "val_accuracy"), ("loss/train", "train_loss")):
            curve = [(k + 1, row[column]) for k, row in enumerate(record["curve"])]
            assert [(e.step, e.value) for e in logged.Scalars(name)] == [
                (step, pytest.approx(value, rel=1e-6)) for step, value in curve
            ]
            assert history(copy, run, name) == curve
    answer = next(run for run in found if run.info.run_name == "answer")
    assert answer.data.metrics["unpruned/test_accuracy"] == before["chosen"]["test"]["accuracy"]


def test_trials_are_logged_as_they_end(flags: Path, cache: Path, tmp_path: Path):
    class Kept:
        def __init__(self) -> None:
            self.entries: list[Entry] = []

        def check(self) -> None: ...

        def write(self, entry: Entry) -> bool:
            self.entries.append(entry)
            return True

    log = Kept()
    config = replace(CONFIG, scratch_runs=0, epochs=1)
    answer = train_model(str(flags), config, tmp_path / "model", cache=cache, log=log)
    (entry,) = log.entries
    assert entry.key == answer["key"]
    assert entry.metrics["epochs_run"] == len(entry.curves["accuracy/val"]) == 1


def test_an_entry_of_the_same_name_replaces_another(tmp_path: Path, monkeypatch):
    for kind in ("tensorboard", "mlflow"):
        log = open_log(kind, tmp_path)
        assert log is not None
        assert log.write(ENTRY)
        assert not log.write(ENTRY)
        assert log.write(replace(ENTRY, key="b", curves={"loss": [3.0]}))
    assert [e.value for e in events(tmp_path / "tensorboard/depth-5-run-1").Scalars("loss")] == [3]
    (run,) = runs(tmp_path)
    assert history(tmp_path, run, "loss") == [(1, 3.0)]
    assert run.data.params == {"lr": "0.1", "patience": "None"}

    # What a killed process leaves is a run that never ended: it is written anew.
    from mlflow.tracking import MlflowClient

    def killed(self: object, run_id: str) -> None:
        raise KeyboardInterrupt

    log = open_log("mlflow", tmp_path)
    assert log is not None
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", killed)
        with pytest.raises(KeyboardInterrupt):
            log.write(ENTRY)
    assert [run.info.status for run in runs(tmp_path)] == ["RUNNING"]
    assert log.write(ENTRY)
    assert [run.info.status for run in runs(tmp_path)] == ["FINISHED"]


def test_the_answer_of_a_study_holds_both_networks(tmp_path: Path):
    results = check_results(example_results(tmp_path))
    entry = answer_entry(results)
    assert entry.metrics["pruned/test_accuracy"] == results["pruned"]["test"]["accuracy"]
    assert entry.metrics["pruned/parameters"] == results["cost"]["after"]["num_parameters"]
    assert any(name.startswith("pruned/onnxruntime") for name in entry.metrics)
    assert entry.key == answer_entry(results).key


def test_a_diverged_trial_has_no_best_epoch(plain: tuple[Path, dict]):
    record = plain[1]["trials"][0] | {"val_accuracy": None, "val_loss": None, "best_epoch": None}
    entry = trial_entry(record | {"curve": [], "epochs_run": 0, "stopped": "diverged"}, CONFIG)
    assert set(entry.metrics) == {"epochs_run", "seconds"}
    assert entry.parameters["stopped"] == "diverged"


def test_a_tracker_that_fails_costs_no_study():
    class Broken:
        def check(self) -> None: ...

        def write(self, entry: Entry) -> bool:
            raise LogError("no answer")

    class Notes(Silent):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def note(self, text: str) -> None:
            self.lines.append(text)

    progress = Notes()
    log_entry(Broken(), lambda: ENTRY, progress)
    (line,) = progress.lines
    assert line == "depth 5 run 1 is not logged: no answer; run again to log what is missing"


def test_bad_words_and_missing_extras_are_one_line(tmp_path: Path, monkeypatch):
    with pytest.raises(InputError, match=r"log must be tensorboard or mlflow, got 'wandb'"):
        open_log("wandb", tmp_path)
    monkeypatch.setattr("secateurs.extras.find_spec", lambda name: None)
    for kind, needs in (("tensorboard", "tensorboard"), ("mlflow", "mlflow, sqlalchemy, alembic")):
        with pytest.raises(InputError) as error:
            open_log(kind, tmp_path)
        assert str(error.value) == f"--log {kind} needs {needs}: pip install 'secateurs[{kind}]'"
    assert open_log(None, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer_is_an_error_at_once(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match=r"--log mlflow: .*127\.0\.0\.1"):
        open_log("mlflow", tmp_path)
