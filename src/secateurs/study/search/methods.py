"""The three ways of searching: all cells of a grid, successive halving, Optuna's TPE."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from secateurs.extras import require
from secateurs.study.search.plan import GridSearch, Halving, Tpe
from secateurs.study.search.space import Dimension, draw
from secateurs.study.search.trainings import Job, Record, Trainer, rank, spread

STARTUP = 10  # trials of TPE that are random: nothing can be learnt from fewer


def run_grid(plan: GridSearch, trainer: Trainer) -> Record:
    """Train each learning rate once, to the largest number of epochs; `trials` and `cells`."""
    lrs = sorted(plan.lrs)
    rows = trainer.train([Job(k, {"lr": lr}, max(plan.epochs)) for k, lr in enumerate(lrs)])
    num_images = len(trainer.context.dataset.sides["val"])
    cells = [cell_of(row, epochs, num_images=num_images) for row in rows for epochs in plan.epochs]
    return {"trials": rows, "cells": cells}


def cell_of(row: Record, epochs: int, *, num_images: int) -> Record:
    """What trainings of so many epochs would have given, read off the curves of longer ones.

    The validation accuracy is that of the best epoch among the first `epochs`, which is what is
    kept of a training, and beside it that of the last of them. Runs that diverged before have no
    part in the means; a cell that no run reached has no accuracy.
    """
    curves = [run["curve"][:epochs] for run in row["runs"] if len(run["curve"]) >= epochs]
    # Of equal epochs the first: the rule by which training keeps its best one.
    best = [max(curve, key=lambda e: (e["val_accuracy"], -e["val_loss"])) for curve in curves]
    last = [curve[-1]["val_accuracy"] for curve in curves]
    missing = len(row["runs"]) - len(curves)
    return {
        "number": row["number"],
        "lr": row["parameters"]["lr"],
        "epochs": epochs,
        "num_runs": len(row["runs"]),
        "num_diverged": missing,
        **spread([e["val_accuracy"] for e in best], num_images=num_images),
        "val_loss_mean": sum(e["val_loss"] for e in best) / len(best) if best else None,
        "best_epochs": [e["epoch"] for e in best],
        "last_epoch_accuracy_mean": sum(last) / len(last) if last else None,
        "note": f"{missing} of {len(row['runs'])} runs diverged" if missing else None,
    }


def run_halving(plan: Halving, space: Sequence[Dimension], trainer: Trainer) -> Record:
    """Train every configuration briefly and the best of them for longer; `trials` and `rungs`.

    A configuration of which a run diverged ranks below all others, and one of which all runs did
    is not promoted.
    """
    seed = trainer.context.config.seed
    values = [draw(space, seed=seed, number=number) for number in range(plan.trials)]
    alive = list(range(plan.trials))
    rows: list[Record] = []
    rungs: list[Record] = []
    for at, (epochs, number) in enumerate(plan.planned):
        alive = alive[:number]
        if not alive:
            break
        found = trainer.train([Job(k, values[k], epochs) for k in sorted(alive)])
        rows += [row | {"rung": at} for row in found]
        order = sorted(found, key=rank, reverse=True)
        rungs.append({"epochs": epochs, "numbers": sorted(alive), "promoted": []})
        alive = [row["number"] for row in order if row["val_accuracy_mean"] is not None]
        if at > 0:
            rungs[at - 1]["promoted"] = rungs[at]["numbers"]
    return {"trials": rows, "rungs": rungs}


def run_tpe(plan: Tpe, space: Sequence[Dimension], trainer: Trainer) -> Record:
    """Train the configurations that Optuna's TPE suggests; `trials`.

    Nothing of Optuna is stored: the same seed and the accuracies in the files give the same
    suggestions, so that an interrupted search resumes. A configuration that diverged counts as
    accuracy 0. Raises InputError without Optuna.
    """
    require("search", "method tpe")
    import optuna

    rows: list[Record] = []
    with quiet(optuna):
        sampler = optuna.samplers.TPESampler(
            seed=trainer.context.config.seed, n_startup_trials=STARTUP, constant_liar=False
        )
        study = optuna.create_study(direction="maximize", sampler=sampler)
        wanted = distributions(optuna, space)
        while len(rows) < plan.trials:
            # The random ones depend on no value: processes can share them.
            number = min(plan.trials, STARTUP) if not rows else 1
            asked = [study.ask(wanted) for _ in range(number)]
            jobs = [
                Job(
                    len(rows) + at,
                    {one.name: one.value(trial.params[one.name]) for one in space},
                    plan.epochs,
                )
                for at, trial in enumerate(asked)
            ]
            found = trainer.train(jobs)
            for trial, row in zip(asked, found, strict=True):
                study.tell(trial, 0.0 if row["num_diverged"] else row["val_accuracy_mean"])
            rows += found
    return {"trials": rows}


@contextmanager
def quiet(optuna: Any) -> Generator[None]:
    """Only warnings of Optuna, which by itself reports every study on stderr."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def distributions(optuna: Any, space: Sequence[Dimension]) -> dict[str, Any]:
    """The space in Optuna's terms."""
    kinds = optuna.distributions
    return {
        one.name: (
            kinds.CategoricalDistribution(one.choices)
            if one.choices
            else kinds.FloatDistribution(one.low, one.high, log=one.log)
        )
        for one in space
    }
