"""The same trials in this process and in others: equal to the bit, whatever is lost on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kept_notes import KeptNotes
from secateurs.errors import InputError
from secateurs.fit.cache import PrefixCache
from secateurs.fit.tensors import read_checked
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import TrialContext, open_context, seeded_model
from secateurs.study.sweep.sweep import run_sweep
from secateurs.study.trials.executors import open_executor, parse_executor
from secateurs.study.trials.processes import _cards, answered, open_processes
from secateurs.study.trials.slurm import open_slurm
from secateurs.study.trials.store import Store, save_weights
from secateurs.study.trials.task import Attempt, Resources, Task

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
    """A context with weights from a file, so that runs share what their frozen layers give."""
    cache = tmp_path_factory.mktemp("cache")
    save_weights(seeded_model(CONFIG.backbone, 3, 7), cache / "weights.safetensors")
    config = replace(CONFIG, weights=str(cache / "weights.safetensors"))
    return open_context(str(flags), config, cache=cache)


def _sweep(
    context: TrialContext, out: Path, executor: Any = None, **options: Any
) -> list[dict[str, Any]]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        words = {"stop": StopFlag()} | options
        return run_sweep(
            context, Store(out), prefix_cache=PrefixCache(), executor=executor, **words
        )
    finally:
        torch.set_num_threads(before)


def _plain(records: list[dict[str, Any]]) -> str:
    return json.dumps([{k: v for k, v in one.items() if k != "timing"} for one in records])


@pytest.mark.slow
def test_processes_train_the_same_networks_to_the_bit_though_one_is_killed(
    context: TrialContext, tmp_path: Path
):
    here = _sweep(context, tmp_path / "here")
    progress = KeptNotes()
    with open_processes(2, Resources(), tmp_path / "cache") as crew:

        def kill_one(record: dict[str, Any]) -> None:
            busy = [worker for worker in crew._workers if worker.attempt]
            if busy and not progress.notes:
                busy[0].process.kill()

        there = _sweep(context, tmp_path / "there", crew, progress=progress, on_trial=kill_one)
    assert _plain(there) == _plain(here)
    assert sum("ended by SIGKILL (attempt 1 of 4); running it again" in n for n in progress.notes)
    assert sorted({record["timing"]["attempts"] for record in there}) == [1, 2]
    _same_networks(tmp_path / "here", tmp_path / "there")
    first = there[0]["timing"]
    assert (first["node"], first["cpus"], first["gpus"]) == ("this machine", 1, 0.0)
    assert "1 of 1" in Store(tmp_path / "there").log(there[0]["key"]).read_text()
    left = [path.suffix for path in (tmp_path / "there" / "trials").iterdir()]
    assert set(left) == {".json", ".safetensors", ".log"}
    assert list((tmp_path / "cache" / "workers").iterdir()) == []


def test_a_stop_leaves_what_another_process_can_go_on_from(context: TrialContext, tmp_path: Path):
    stop = StopFlag()
    with (
        open_processes(1, Resources(), tmp_path / "cache") as crew,
        pytest.raises(StopRequested),
    ):
        _sweep(context, tmp_path / "there", crew, stop=stop, on_trial=lambda _: stop.request())
    assert crew._workers == []
    done = [path.name for path in (tmp_path / "there" / "trials").glob("*.json")]
    assert len(done) == 1
    there = _sweep(context, tmp_path / "there")
    assert _plain(there) == _plain(_sweep(context, tmp_path / "here"))


def _same_networks(one: Path, other: Path) -> None:
    kept = [sorted((folder / "trials").glob("*.weights.safetensors")) for folder in (one, other)]
    assert [path.name for path in kept[0]] == [path.name for path in kept[1]] != []
    for pair in zip(*kept, strict=True):
        mine, theirs = (read_checked(path)[0] for path in pair)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("somewhere", "expected inline, processes"),
        ("inline:3", "expected inline, processes"),
        ("ray:", "expected inline, processes"),
        ("processes:0", "a number of 1 or more, got '0'"),
    ],
)
def test_words_that_name_no_executor_are_refused(words: str, said: str):
    with pytest.raises(InputError, match=said):
        parse_executor(words)


def test_what_this_machine_has_not_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def opened(words: str, resources: Resources) -> Any:
        with open_executor(words, resources, cache=tmp_path) as found:
            return found

    with pytest.raises(InputError, match="cores, a trial asks for 1024"):
        opened("processes", Resources(1024))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(InputError, match="cards, a trial asks for 64"):
        opened("processes", Resources(1, 64.0))
    with pytest.raises(InputError, match="trial-gpus: inline takes what there is"):
        opened("inline", Resources(1, 0.5))


@pytest.mark.parametrize(
    ("cpus", "gpus", "said"),
    [
        (0, 0.0, "trial-cpus: expected a whole number of 1 or more, got 0"),
        (-1, 0.0, "trial-cpus: expected a whole number of 1 or more, got -1"),
        (1, 1.5, "trial-gpus: expected a share of a card up to 1, or whole cards, got 1.5"),
        (1, -0.5, "trial-gpus: expected a share of a card up to 1, or whole cards, got -0.5"),
        (1, float("nan"), "trial-gpus: .* got nan"),
    ],
)
def test_resources_that_nothing_can_have_are_refused(cpus: int, gpus: float, said: str):
    with pytest.raises(InputError, match=said):
        Resources(cpus, gpus)


def test_cards_are_given_out_in_shares_and_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6")
    assert _cards(Resources(1, 0.5), None) == ("3", "5", "6", "3", "5", "6")
    assert _cards(Resources(1, 0.5), 4) == ("3", "5", "6", "3")
    assert _cards(Resources(1, 1.0), None) == ("3", "5", "6")
    assert _cards(Resources(1, 2.0), None) == ("3,5",)


def test_an_inline_trial_computes_with_as_many_threads_as_elsewhere(tmp_path: Path):
    before = torch.get_num_threads()
    with open_executor("inline", Resources(3), cache=tmp_path) as found:
        assert found is None and torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("input", InputError, "batch size 9 is larger"),
        ("stopped", StopRequested, None),
        ("failed", RuntimeError, "task on box: a line"),
    ],
)
def test_what_a_task_raised_elsewhere_is_raised_here(kind: str, error: type, said: str | None):
    task = Task("key", "task", "secateurs.study.trials.worker:train", {})
    answer = {"kind": kind, "text": "batch size 9 is larger", "log": ["a line"], "fetched": 0}
    with pytest.raises(error, match=said):
        answered(Attempt(task), answer, "box", Resources())


def test_a_task_that_is_lost_too_often_is_given_up():
    attempt, progress = Attempt(Task("key", "depth 3 run 1", "", {})), KeptNotes()
    for _ in range(3):
        attempt = attempt.again("its node went away", 2.0, progress)
    assert (attempt.number, attempt.lost_s, len(progress.notes)) == (4, 6.0, 3)
    with pytest.raises(InputError, match=r"depth 3 run 1: its node went away \(attempt 4 of 4\)"):
        attempt.again("its node went away", 2.0, progress)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # submitit's own
def test_jobs_of_slurm_train_the_same_networks_to_the_bit(context: TrialContext, tmp_path: Path):
    pytest.importorskip("submitit", reason="needs pip install 'secateurs[slurm]'")
    with open_executor("slurm:local", Resources(), cache=tmp_path / "cache") as crew:
        there = _sweep(context, tmp_path / "there", crew)
    assert _plain(there) == _plain(_sweep(context, tmp_path / "here"))
    _same_networks(tmp_path / "here", tmp_path / "there")
    assert list((tmp_path / "cache" / "workers").iterdir()) == []


def test_slurm_is_refused_where_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("secateurs.study.trials.slurm.require", lambda extra, what: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no sbatch here"), open_slurm("", Resources(), tmp_path):
        pass
    half = Resources(1, 0.5)
    with pytest.raises(InputError, match="whole cards"), open_slurm("local", half, tmp_path):
        pass
