"""What a search found: the best on validation, what equals it, and what it cost."""

from __future__ import annotations

from secateurs.errors import InputError
from secateurs.study.search.plan import GridSearch, Halving, SearchPlan
from secateurs.study.search.trainings import Record, diverged, rank
from secateurs.study.sweep.comparison import compare_depths


def best_of(found: Record) -> Record:
    """The best row on validation without what belongs to its runs; of equals the shorter one.

    Raises InputError when not one row has an accuracy.
    """
    rows: list[Record] = found.get("cells") or found["trials"]
    best = max(rows, key=lambda row: (*rank(row), -row["epochs"]))
    if best["val_accuracy_mean"] is None:
        raise InputError("no training ended with a finite loss; try smaller learning rates")
    parameters = best.get("parameters") or {"lr": best["lr"]}
    names = ("number", "epochs", "num_runs", "num_diverged", "val_loss_mean")
    return {
        "parameters": parameters,
        **{name: best[name] for name in names},
        **{key: value for key, value in best.items() if key.startswith("val_accuracy")},
    }


def alike(trials: list[Record], best: Record, num_images: int) -> Record:
    """Trials of the best one's length that do not differ significantly from it, as in `compare`."""
    own = [row["epochs"] for row in trials if row["number"] == best["number"]]
    epochs = min(number for number in own if number >= best["epochs"])
    accuracies = {
        row["number"]: {run["run"]: run["val_accuracy"] for run in row["runs"] if not diverged(run)}
        for row in trials
        if row["epochs"] == epochs and row["val_accuracy_mean"] is not None
    }
    rows = compare_depths(accuracies, num_images=num_images) if accuracies else ()
    return {
        "epochs": epochs,
        "num_compared": len(rows),
        "numbers": [row.depth for row in rows if row.indistinguishable],
        "by": "paired runs" if any(row.p_value is not None for row in rows) else "Wilson",
    }


def cost_of(plan: SearchPlan, runs: int, found: Record) -> Record:
    """Trainings and epochs done, and the epochs that it would take to train each alternative."""
    done = [run["epochs_run"] for run in trained(found["trials"])]
    apart: dict[str, int] = {}
    if isinstance(plan, GridSearch):
        apart = {"num_cells": len(found["cells"]), "epochs_apart": len(plan.lrs) * sum(plan.epochs)}
    elif isinstance(plan, Halving):
        apart = {"num_cells": plan.trials, "epochs_apart": plan.trials * plan.max_epochs}
    else:
        apart = {"num_cells": plan.trials, "epochs_apart": plan.trials * plan.epochs}
    apart["epochs_apart"] *= runs
    return {"num_trainings": len(done), "num_epochs": sum(done), **apart}


def trained(trials: list[Record]) -> list[Record]:
    """The trainings of some rows, each once: equal configurations have the same."""
    return list({run["key"]: run for row in trials for run in row["runs"]}.values())


def timing_of(trials: list[Record]) -> Record:
    """Seconds over all trainings: until the first step, and from it on."""
    total, frozen = (
        sum(row["timing"][name] for row in trials) for name in ("seconds", "frozen_seconds")
    )
    return {"preparing": frozen, "training": total - frozen, "total": total}
