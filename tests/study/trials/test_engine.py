"""Trials that an executor runs, against those of this process."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from backwards import Backwards, timeless

from secateurs.fit.cache import PrefixCache
from secateurs.fit.tensors import read_checked
from secateurs.progress import SILENT
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.search.trainings import Job, Trainer
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import TrialContext, open_context, seeded_model
from secateurs.study.sweep.sweep import run_sweep, run_sweeps
from secateurs.study.trials.engine import finished_trials
from secateurs.study.trials.package import Packer
from secateurs.study.trials.store import Store, save_weights
from secateurs.study.trials.trial import Trial, trial_key
from secateurs.study.trials.worker import Reporting, own_versions, perform

CONFIG = StudyConfig(
    backbone="squeezenet1_1",
    depths=(24, 25),
    runs=2,
    scratch_runs=0,
    epochs=1,
    image_size=64,
    views=1,
    batch_size=14,
    device="cpu",
    precision="float32",
)


@pytest.fixture(scope="module")
def context(flags: Path, tmp_path_factory: pytest.TempPathFactory) -> TrialContext:
    cache = tmp_path_factory.mktemp("cache")
    save_weights(seeded_model(CONFIG.backbone, 3, 7), cache / "weights.safetensors")
    config = replace(CONFIG, weights=str(cache / "weights.safetensors"))
    return open_context(str(flags), config, cache=cache)


def _plain(records: list[dict[str, Any]]) -> str:
    return json.dumps(timeless(records))


def _networks(out: Path) -> dict[str, dict[str, torch.Tensor]]:
    files = sorted((out / "trials").glob("*.weights.safetensors"))
    return {path.name: read_checked(path)[0] for path in files}


def test_sweeps_of_several_networks_at_once_are_those_of_one_after_the_other(
    context: TrialContext, tmp_path: Path
):
    other = replace(context, config=replace(context.config, label_smoothing=0.1))
    words: dict[str, Any] = {"prefix_cache": PrefixCache(), "stop": StopFlag()}
    here = [run_sweep(one, Store(tmp_path / "here"), **words) for one in (context, other)]
    crew = Backwards(tmp_path / "host")
    there = run_sweeps([context, other], Store(tmp_path / "there"), executor=crew, **words)
    assert [_plain(one) for one in there] == [_plain(one) for one in here]
    mine, theirs = _networks(tmp_path / "here"), _networks(tmp_path / "there")
    assert len(mine) == 4 and mine.keys() == theirs.keys()
    for name, state in mine.items():
        assert all(torch.equal(state[key], theirs[name][key]) for key in state)
    # Both contexts have the same images, which are one file; the weights stay where they are.
    assert len(list((context.cache / "contents").glob("*.safetensors"))) == 2


def test_frozen_layers_that_trials_share_are_computed_once_and_passed_on(
    context: TrialContext, tmp_path: Path
):
    words: dict[str, Any] = {"prefix_cache": PrefixCache(), "stop": StopFlag()}
    here = run_sweep(context, Store(tmp_path / "here"), **words)
    crew = Backwards(tmp_path / "host", gives=True)
    there = run_sweep(context, Store(tmp_path / "there"), executor=crew, **words)
    assert _plain(there) == _plain(here)
    assert len(crew.made) == 2 and all(crew.made.values())  # one for each depth
    assert list((tmp_path / "host").glob("*.bin")) == []
    # One that nobody shares is the trial's own.
    alone = Backwards(tmp_path / "alone", gives=True)
    wanted = [(context, Trial(25, 7)), (context, Trial(0, 0, pretrained=False))]
    list(finished_trials(wanted, Store(tmp_path / "there"), executor=alone, **words))
    assert alone.num == 2 and alone.made == {}


def test_a_search_trains_the_same_elsewhere_and_equal_jobs_once(
    context: TrialContext, tmp_path: Path
):
    jobs = [Job(number, {"lr": lr}, 1) for number, lr in enumerate((0.001, 0.002, 0.001))]

    def rows(out: str, executor: Any) -> list[dict[str, Any]]:
        trainer = Trainer(
            replace(context, depths=(25,)),
            Store(tmp_path / out),
            planned=[(1, 3)],
            prefix_cache=PrefixCache(),
            executor=executor,
            stop=StopFlag(),
            progress=SILENT,
            advance=lambda steps: None,
        )
        return trainer.train(jobs)

    crew = Backwards(tmp_path / "host")
    assert _plain(rows("there", crew)) == _plain(rows("here", None))
    assert crew.num == 4  # two learning rates, two runs


def test_a_trial_that_another_machine_is_at_is_waited_for(context: TrialContext, tmp_path: Path):
    store, trial = Store(tmp_path / "out"), Trial(25, 0)
    key = trial_key(context, trial)
    words: dict[str, Any] = {"prefix_cache": PrefixCache(), "stop": StopFlag()}
    (done,) = finished_trials([(context, trial)], Store(tmp_path / "other"), **words)
    store.lease(key).parent.mkdir(parents=True)
    store.lease(key).write_text(json.dumps({"host": "another", "token": "t"}))

    def other() -> None:
        time.sleep(0.2)
        store.record(key).write_bytes(Store(tmp_path / "other").record(key).read_bytes())
        store.lease(key).unlink()

    thread = threading.Thread(target=other)
    thread.start()
    crew = Backwards(tmp_path / "host")
    (found,) = finished_trials([(context, trial)], store, executor=crew, **words)
    thread.join()
    assert (found.record, found.fresh, crew.num) == (done.record, False, 0)


def test_a_training_that_was_stopped_elsewhere_goes_on_from_its_state(
    context: TrialContext, tmp_path: Path
):
    longer, trial = replace(context, config=replace(context.config, epochs=3)), Trial(25, 0)
    words: dict[str, Any] = {"prefix_cache": PrefixCache(), "stop": StopFlag()}
    (done,) = finished_trials([(longer, trial)], Store(tmp_path / "here"), **words)
    store = Store(tmp_path / "there")
    state = store.state(trial_key(longer, trial))
    state.parent.mkdir(parents=True)

    class Elsewhere(Backwards):
        """Runs a task on a machine of its own that is stopped after an epoch, or is not."""

        sees_states = False

        def run(self, tasks: Any, *, stop: StopFlag, progress: Any = None) -> Any:
            (task,) = tasks
            self.task, self.host.states = task, self.host.cache / "states"
            words = {"cpus": torch.get_num_threads(), "versions": own_versions()}
            self.answer, self.left = perform(task.to_json() | words, self.host)
            yield from ()

    def ran(number: int, *, stops: bool) -> Elsewhere:
        crew = Elsewhere(tmp_path / str(number))

        def say(event: dict[str, Any]) -> None:
            if stops and event["done"] == 1:
                crew.host.stop.request()

        crew.host.progress = Reporting(trial.name, say)
        stop = StopFlag()
        asked: dict[str, Any] = {**words, "stop": stop, "executor": crew}
        stop_after(finished_trials([(longer, trial)], store, **asked), stop)
        return crew

    def stop_after(trials: Any, stop: StopFlag) -> None:
        stop.request()  # heard once the executor has come back without an answer
        with pytest.raises(StopRequested):
            next(trials)

    first = ran(1, stops=True)
    assert first.answer["kind"] == "stopped" and first.task.arguments["resume"] is None
    state.write_bytes(first.left["state"].numpy().tobytes())
    second = ran(2, stops=False)
    assert second.task.arguments["resume"]["path"] == str(state) and second.task.state == state
    assert _plain([second.answer["record"]]) == _plain([done.record])
    assert list((tmp_path / "2" / "states").iterdir()) == []


def test_a_package_holds_what_decides_the_key_of_a_trial(context: TrialContext, tmp_path: Path):
    crew = Backwards(tmp_path)
    package = Packer(tmp_path / "contents").pack(context)
    setting = crew.host.setting(json.loads(json.dumps(package.plain)))
    for trial in (Trial(24, 1), Trial(0, 0, pretrained=False)):
        assert trial_key(setting, trial) == trial_key(context, trial)
    for side in ("train", "val"):
        mine, theirs = context.dataset.sides[side], setting.dataset.sides[side]
        assert (mine.pixels == theirs.pixels).all() and (mine.ids == theirs.ids).all()
        assert (mine.labels == theirs.labels).all() and mine.mean == theirs.mean


def test_a_worker_of_another_version_refuses_a_task(tmp_path: Path):
    host = Backwards(tmp_path).host
    words = {
        "function": "secateurs.study.trials.worker:train",
        "arguments": {},
        "cpus": torch.get_num_threads(),
    }
    versions = own_versions() | {"PyTorch": "1.0"}
    answer, _ = perform(words | {"versions": versions}, host)
    assert answer["kind"] == "input"
    assert "(the driver 1.0); install" in answer["text"] and "\n" not in answer["text"]


def test_only_functions_of_secateurs_are_called(tmp_path: Path):
    host = Backwards(tmp_path).host
    words = {
        "function": "os:system",
        "arguments": {},
        "cpus": torch.get_num_threads(),
        "versions": own_versions(),
    }
    answer, _ = perform(words, host)
    assert answer["kind"] == "input" and "not a task of Secateurs" in answer["text"]
