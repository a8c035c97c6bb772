"""A search in a folder: cells that are right, rungs, TPE that goes on, and what is refused."""

from __future__ import annotations

import csv
import json
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from scipy.stats import t as student
from searching import CONFIG, Trainings, asked

from secateurs.cli import main
from secateurs.cli.parsing.shared import with_shared_options
from secateurs.cli.search import search as search_command
from secateurs.errors import InputError
from secateurs.files import write_json
from secateurs.fit.metrics import wilson_interval
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.search.answer_text import search_words
from secateurs.study.search.plan import GridSearch, Halving, Tpe
from secateurs.study.search.run import run_search
from secateurs.study.search.trainings import Job, context_of
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import open_context
from secateurs.study.trials import engine
from secateurs.study.trials.store import Store
from secateurs.study.trials.trial import SharedInputs, Trial, run_trial, trial_key

GRID = GridSearch(lrs=(0.01, 0.001), epochs=(1, 3))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(flags: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory):
    """A grid really trained."""
    out = tmp_path_factory.mktemp("search")
    return out, run_search(str(flags), CONFIG, GRID, out, cache=cache)


def test_a_cell_is_what_a_training_of_that_many_epochs_gives(
    finished, flags: Path, cache: Path, tmp_path: Path
):
    _, answer = finished
    assert [(c["lr"], c["epochs"]) for c in answer["cells"]] == [
        (0.001, 1), (0.001, 3), (0.01, 1), (0.01, 3),
    ]  # fmt: skip
    for cell in answer["cells"]:
        config = replace(CONFIG, lr=cell["lr"], epochs=cell["epochs"], schedule="constant")
        context = open_context(str(flags), config, cache=cache)
        record, _ = run_trial(context, Trial(53, 0), SharedInputs(), Store(tmp_path))
        assert record["val_accuracy"] == cell["val_accuracy_mean"]
        assert record["val_loss"] == cell["val_loss_mean"]
        assert [record["best_epoch"]] == cell["best_epochs"]
        assert record["curve"][-1]["val_accuracy"] == cell["last_epoch_accuracy_mean"]
    assert answer["cost"] == {
        "num_trainings": 2, "num_epochs": 6, "num_cells": 4, "epochs_apart": 8,
    }  # fmt: skip


def test_what_is_written_is_what_is_returned_and_done_once(
    finished, flags: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    def never(*args: object, **options: object) -> None:
        raise AssertionError("trained again")

    out, answer = finished
    text = (out / "search.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(answer))
    rows = list(csv.DictReader((out / "search.csv").read_text().splitlines()))
    assert [float(row["val_accuracy_mean"]) for row in rows] == [
        cell["val_accuracy_mean"] for cell in answer["cells"]
    ]
    monkeypatch.setattr(engine, "run_trial", never)
    assert run_search(str(flags), CONFIG, GRID, out, cache=cache) == answer
    assert (out / "search.json").read_text() == text
    assert len(list((out / "trials").glob("*.json"))) == 2


def test_the_command_trains_the_best_to_the_same_numbers(
    finished, flags: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    _, answer = finished
    words = answer["best"]["command"]
    assert words.startswith("secateurs train DATA --out MODEL --depth 53 --lr 0.0")
    assert r"--group-by '^(\d+)_'" in words
    places = {"DATA": str(flags), "MODEL": str(tmp_path / "model")}
    argv = [places.get(word, word) for word in shlex.split(words)]
    argv = ["secateurs", *argv[1:], "--cache", str(cache), "--quiet"]
    monkeypatch.setattr("sys.argv", argv)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    trained = json.loads((tmp_path / "model" / "training.json").read_text())
    assert trained["val_accuracy"] == answer["best"]["val_accuracy_mean"]
    assert trained["val_loss"] == answer["best"]["val_loss_mean"]
    assert "model:" in capsys.readouterr().out


def test_a_configuration_that_was_drawn_is_typed_to_the_last_digit(trainings, go):
    answer = go(Halving(trials=9, min_epochs=1, max_epochs=3))
    words = answer["best"]["command"].split()
    asked = dict(pairwise(words))
    best = answer["best"]["parameters"]
    assert float(asked["--lr"]) == best["lr"]
    assert float(asked.get("--weight-decay", 0)) == best["weight_decay"]
    assert float(asked["--label-smoothing"]) == best["label_smoothing"]
    assert int(asked["--batch-size"]) == best["batch_size"]
    assert "--schedule" not in asked  # cosine, as train has it


def test_the_test_images_are_not_needed(
    flags: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def without_test(*args: Any, **options: Any):
        context = open_context(*args, **options)
        sides = {name: context.dataset.sides[name] for name in ("train", "val")}
        return replace(context, dataset=replace(context.dataset, sides=sides))

    monkeypatch.setattr("secateurs.study.search.run.open_context", without_test)
    plan = GridSearch(lrs=(0.001,), epochs=(1,))
    answer = run_search(str(flags), CONFIG, plan, tmp_path / "out", cache=cache)
    assert answer["best"]["epochs"] == 1


def test_cells_over_runs_are_means_with_their_spread(trainings, go):
    answer = go(GridSearch((0.001, 0.01), (2, 4)), replace(CONFIG, runs=3))
    assert answer["cost"]["num_trainings"] == 6
    for cell in answer["cells"]:
        values = [
            max(e["val_accuracy"] for e in run["curve"][: cell["epochs"]])
            for run in answer["trials"][cell["number"]]["runs"]
        ]
        half = student.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
        assert cell["val_accuracy_mean"] == pytest.approx(np.mean(values))
        assert cell["val_accuracy_std"] == pytest.approx(np.std(values, ddof=1))
        assert cell["val_accuracy_low"] == pytest.approx(np.mean(values) - half)
        assert cell["val_accuracy_high"] == pytest.approx(np.mean(values) + half)
        assert cell["val_accuracy_interval"] == "t"
    single = go(GridSearch((0.001,), (2,)), out="single")["cells"][0]
    number = go(GridSearch((0.001,), (2,)), out="single")["evaluated"]["num_images"]
    bounds = wilson_interval(round(single["val_accuracy_mean"] * number), number)
    assert (single["val_accuracy_low"], single["val_accuracy_high"]) == bounds


def test_runs_that_diverge_leave_cells_without_accuracy(trainings, go):
    def some(config: StudyConfig, run: int, epoch: int) -> float | None:
        if config.lr == 0.01 and epoch >= (2 if run == 0 else 4):
            return None
        return 0.9 if config.lr == 0.01 else 0.5

    trainings.accuracy = some
    answer = go(GridSearch((0.001, 0.01), (2, 4, 5)), replace(CONFIG, runs=2))
    lost = [(c["epochs"], c["num_diverged"], c["val_accuracy_mean"]) for c in answer["cells"][3:]]
    assert lost == [(2, 0, 0.9), (4, 1, 0.9), (5, 2, None)]
    assert answer["cells"][4]["note"] == "1 of 2 runs diverged"
    assert (answer["best"]["parameters"]["lr"], answer["best"]["epochs"]) == (0.01, 2)
    assert answer["importance"]["num_left_out"] == 1
    assert "diverged" in search_words(answer)

    trainings.accuracy = lambda config, run, epoch: None
    with pytest.raises(InputError, match="no training ended with a finite loss"):
        go(GridSearch((0.001,), (2,)), out="lost")


def test_jobs_set_the_fields_and_the_depth(flags: Path, cache: Path):
    context = open_context(str(flags), replace(CONFIG, depths=(50, 53)), cache=cache)
    changed, depth = context_of(context, Job(0, {"lr": 0.02, "batch_size": 16, "depth": 53}, 7))
    assert depth == 53
    assert changed.config == replace(context.config, lr=0.02, batch_size=16, epochs=7)


def test_a_training_of_another_process_is_waited_for(
    trainings, go, tmp_path: Path, flags: Path, cache: Path
):
    plan, stop = GridSearch((0.001, 0.01), (1,)), StopFlag()
    stop.request()
    with pytest.raises(StopRequested):
        go(plan, stop=stop)  # the folder is this search's, nothing is trained yet
    context = open_context(str(flags), replace(CONFIG, schedule="constant"), cache=cache)
    context, depth = context_of(context, Job(0, {"lr": 0.001}, 1))
    store, elsewhere, held = Store(tmp_path / "out"), Trainings(), threading.Event()

    def other() -> None:
        with store.claim(trial_key(context, Trial(depth, 0))) as mine:
            assert mine
            held.set()
            time.sleep(0.6)
            elsewhere(context, Trial(depth, 0), None, store)

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    answer = go(plan)
    thread.join()
    assert (asked(elsewhere), asked(trainings)) == ([0.001], [0.01])
    assert [trial["parameters"]["lr"] for trial in answer["trials"]] == [0.001, 0.01]


def test_another_search_in_the_same_folder_is_refused(trainings, go, tmp_path: Path):
    go(GRID)
    with pytest.raises(InputError, match=r"epochs \(\[1, 3\] there, \[1, 2\] now\)"):
        go(replace(GRID, epochs=(1, 2)))
    with pytest.raises(InputError, match=r"method \(grid there, halving now\)"):
        go(Halving())
    with pytest.raises(InputError, match=r"dropout \(on there, off now\)"):
        go(GRID, replace(CONFIG, dropout="off"))
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    write_json(tmp_path / "out" / "plan.json", plan | {"identity": plan["identity"] | {"data": ""}})
    with pytest.raises(InputError, match="holds a search of other data"):
        go(GRID)
    write_json(tmp_path / "out" / "plan.json", {"schema": 0})
    with pytest.raises(InputError, match="another version"):
        go(GRID)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a search"):
        go(GRID, out="letters")
    with pytest.raises(InputError, match="expected a directory, got a file"):
        go(GRID, out="letters/mine.txt")
    go(Tpe(trials=4, epochs=1), out="tpe")
    with pytest.raises(InputError, match=r"trials \(4 there, 3 now\)"):
        go(Tpe(trials=3, epochs=1), out="tpe")


def test_a_request_to_stop_ends_it_between_trainings(trainings, go):
    stop = StopFlag()
    stop.request()
    with pytest.raises(StopRequested):
        go(GRID, stop=stop)
    assert trainings.done == []


@pytest.fixture
def command() -> Iterator[Callable[..., Any]]:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(with_shared_options(search_command))

    def run(*words: object) -> Any:
        return app([str(word) for word in words], standalone_mode=False)

    yield run


def test_the_command_writes_three_files_and_answers(
    trainings, command, flags: Path, cache: Path, tmp_path: Path, capsys
):
    words = (flags, "--out", tmp_path / "a", "--backbone", "mobilenet_v3_small", "--depth", 53)
    shared = ("--weights", "none", "--cache", cache, "--group-by", r"^(\d+)_", "--quiet")
    command(*words, *shared, "--lr", "0.001,0.01", "--epochs", "2-4", "--batch-size", 14)
    text = capsys.readouterr().out
    assert "6 cells from 2 trainings: 8 epochs instead of 18" in text
    assert f"secateurs train {flags} --out MODEL --depth 53 --lr 0.001 --epochs 4" in text
    for name in ("search.json", "search.csv", "search.html"):
        assert (tmp_path / "a" / name).exists()
    words = (flags, "--out", tmp_path / "b", "--backbone", "mobilenet_v3_small")
    command(
        *words, *shared, "--method", "tpe", "--trials", 3, "--epochs", 2, "--weight-decay", 0,
        "--depths", "52,53", "--json",
    )  # fmt: skip
    answer = json.loads(capsys.readouterr().out)
    names = ["lr", "batch_size", "label_smoothing", "depth"]
    assert [one["name"] for one in answer["space"]] == names
    assert answer["settings"]["weight_decay"] == 0
    with pytest.raises(InputError, match="depths: cannot go with method grid"):
        command(*words, "--depths", "1,2")
    with pytest.raises(InputError, match="depths: cannot go with --depth"):
        command(*words, "--method", "tpe", "--depths", "1,2", "--depth", 3)


@pytest.mark.parametrize("words", [("--method", "bayes"), ("--method", "tpe", "--trials", "0")])
def test_bad_words_end_in_one_line_and_code_2(
    words: tuple[str, ...], flags: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    out = str(tmp_path / "out")
    monkeypatch.setattr("sys.argv", ["secateurs", "search", str(flags), "--out", out, *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert (
        text.startswith(("error: method: expected", "error: --trials is out of range: 0; expected"))
        and text.count("\n") == 1
    )
    assert not (tmp_path / "out").exists()
