"""How searches choose what to train: rungs, TPE that goes on, depths, what matters."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from searching import CONFIG, asked

from secateurs.errors import InputError
from secateurs.stopping import StopRequested
from secateurs.study.search.plan import GridSearch, Halving, Tpe
from secateurs.study.search.space import draw, space_of

GRID = GridSearch(lrs=(0.01, 0.001), epochs=(1, 3))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_halving_trains_many_briefly_and_the_best_for_long(trainings, go):
    plan = Halving(trials=9, min_epochs=2, max_epochs=10, eta=3)
    answer = go(plan)
    assert [(r["epochs"], len(r["numbers"])) for r in answer["rungs"]] == [(2, 9), (6, 3), (10, 1)]
    space = space_of(plan.searched, num_train=len_train(answer))
    lrs = [draw(space, seed=0, number=k)["lr"] for k in range(9)]
    nearest = sorted(range(9), key=lambda k: abs(np.log10(lrs[k]) + 3))
    assert answer["rungs"][1]["numbers"] == answer["rungs"][0]["promoted"] == sorted(nearest[:3])
    assert answer["rungs"][2]["numbers"] == nearest[:1]
    # Whole trainings under their own schedule, none of them twice.
    assert sorted(epochs for _, epochs, _, _ in trainings.done) == [2] * 9 + [6] * 3 + [10]
    assert {plain["schedule"] for *_, plain in trainings.done} == {"cosine"}
    assert answer["cost"]["num_epochs"] == 9 * 2 + 3 * 6 + 10
    assert answer["best"]["number"] == nearest[0]
    assert {len(trial["parameters"]) for trial in answer["trials"]} == {4}


def len_train(answer: dict[str, Any]) -> int:
    return answer["split"]["counts"]["train"]


def test_halving_promotes_none_that_diverged(trainings, go):
    trainings.accuracy = lambda c, run, epoch: None if c.lr < 1e-3 else 0.5
    answer = go(Halving(trials=6, min_epochs=1, max_epochs=2, eta=2))
    good = [t["number"] for t in answer["trials"] if t["rung"] == 0 and not t["num_diverged"]]
    assert good
    assert set(answer["rungs"][1]["numbers"]) <= set(good)


def test_tpe_goes_on_with_the_same_configurations_and_trains_the_missing_only(trainings, go):
    plan = Tpe(trials=14, epochs=2)
    whole = go(plan, out="whole")
    everything = asked(trainings)
    assert len(everything) == len(set(everything)) == 14
    parts: list[float] = []
    for stop_after in (3, 12, None):
        trainings.done, trainings.stop_after = [], None
        if stop_after is not None:
            trainings.stop_after = stop_after - len(parts)
            with pytest.raises(StopRequested):
                go(plan)
        else:
            resumed = go(plan)
        parts += asked(trainings)
    assert parts == everything
    assert resumed == whole
    best = [t["val_accuracy_mean"] for t in whole["trials"]]
    assert np.mean(best[10:]) > np.mean(best[:10])  # it learnt something
    trainings.done = []
    more = go(replace(plan, trials=16))
    assert more["trials"][:14] == whole["trials"] and len(trainings.done) == 2


def test_tpe_of_fewer_trials_is_the_beginning_of_more(trainings, go):
    few, many = go(Tpe(trials=3, epochs=1), out="a"), go(Tpe(trials=12, epochs=1), out="b")
    assert many["trials"][:3] == few["trials"]


def test_tpe_hears_of_divergence_and_avoids_it(trainings, go):
    trainings.accuracy = lambda c, run, epoch: None if c.lr > 3e-4 else 0.5 + 0.01 * epoch
    answer = go(Tpe(trials=20, epochs=1, searched=("lr",)))
    lost = [trial["num_diverged"] for trial in answer["trials"]]
    assert sum(lost[:10]) >= 2
    assert sum(lost[10:]) < sum(lost[:10])
    assert answer["importance"]["reason"] == "only one parameter was searched"
    assert answer["importance"]["num_left_out"] == sum(lost)


def test_optuna_is_left_as_it_was(trainings, go, capfd):
    import optuna

    before = optuna.logging.get_verbosity()
    go(Tpe(trials=8, epochs=1))
    assert optuna.logging.get_verbosity() == before == logging.INFO
    assert "optuna" not in capfd.readouterr().err.lower()


def test_without_optuna(trainings, go, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'secateurs\[search\]'"):
        go(Tpe(trials=3, epochs=1))
    answer = go(Halving(trials=9, min_epochs=1, max_epochs=1), out="halving")
    assert answer["importance"]["method"] == "rank correlation"
    assert answer["importance"]["parts"][0]["name"] == "lr"
    assert "optuna" not in answer["versions"]


def test_what_matters_is_found(trainings, go):
    trainings.accuracy = lambda c, run, epoch: 0.3 + 5 * c.label_smoothing / 2 + c.batch_size / 1e4
    answer = go(Halving(trials=20, min_epochs=1, max_epochs=1))
    parts = answer["importance"]["parts"]
    assert answer["importance"]["method"] == "fANOVA"
    assert parts[0]["name"] == "label_smoothing" and parts[0]["share"] > 0.8
    assert sum(part["share"] for part in parts) == pytest.approx(1)
    trainings.accuracy = lambda c, run, epoch: 0.5
    flat = go(Halving(trials=9, min_epochs=1, max_epochs=1), out="flat")["importance"]
    assert (flat["parts"], flat["reason"]) == ([], "every trial has the same accuracy")


def test_depths_are_searched_too(trainings, go):
    plan = Halving(trials=8, min_epochs=1, max_epochs=1, searched=("lr", "depth"))
    answer = go(plan, replace(CONFIG, depths=(50, 53)))
    assert {trial["parameters"]["depth"] for trial in answer["trials"]} == {50, 53}
    assert f"--depth {answer['best']['parameters']['depth']} " in answer["best"]["command"]
    with pytest.raises(InputError, match="depth: expected one number"):
        go(GRID, replace(CONFIG, depths=(50, 53)), out="grid")
