"""A search from end to end: trainings, cells or rungs, the best on validation, what mattered."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from secateurs.directories import INSTEAD, clear_output, open_output
from secateurs.errors import InputError
from secateurs.extras import installed, require
from secateurs.files import write_json, write_text
from secateurs.fit.cache import PrefixCache
from secateurs.fit.metrics import majority_share
from secateurs.progress import SILENT, Progress
from secateurs.shape import read_record
from secateurs.stopping import StopFlag
from secateurs.study.records.kinds import SEARCH_PLAN, odd_keys
from secateurs.study.search.answer_text import csv_text, train_command
from secateurs.study.search.choice import alike, best_of, cost_of, timing_of, trained
from secateurs.study.search.methods import (
    STARTUP,
    run_grid,
    run_halving,
    run_tpe,
)
from secateurs.study.search.parameter_importance import grid_importance, trial_importance
from secateurs.study.search.plan import GridSearch, Halving, SearchPlan, Tpe
from secateurs.study.search.space import Dimension, space_of
from secateurs.study.search.trainings import Record, Trainer
from secateurs.study.setup.config import StudyConfig, difference
from secateurs.study.setup.trial_context import TrialContext, open_context, settle_split
from secateurs.study.stages import versions
from secateurs.study.trials.machines import machine_rows
from secateurs.study.trials.store import Store
from secateurs.study.trials.task import Executor

SCHEMA = 1
FILES = {"search": "search.json", "csv": "search.csv", "page": "search.html"}
PLAN = "plan.json"
# What all trainings of a search have in common, unless it is what the search varies.
SHARED = (
    *(
        "backbone",
        "weights",
        "split",
        "group_by",
        "resize",
        "image_size",
        "depths",
        "runs",
        "batch_size",
    ),
    *("weight_decay", "label_smoothing", "dropout", "views", "augment", "rotation_deg"),
    *("min_scale", "schedule", "precision", "device", "seed"),
)


def run_search(
    data: str,
    config: StudyConfig,
    plan: SearchPlan,
    out: Path,
    *,
    cache: Path,
    strict: bool = False,
    overwrite: bool = False,
    prefix_cache: PrefixCache | None = None,
    executor: Executor | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Record:
    """Search as `plan` says around `config`, in the directory `out`, choosing on validation.

    Writes `out`/search.json and search.csv and returns what the first holds; each training has a
    file in `out`/trials, and what has one is not trained again. The test images are not used.
    Raises InputError for bad input, when `out` holds another search, and when every training
    diverged; StopRequested when asked to stop.
    """
    stop = stop or StopFlag()
    config = settle_split(data, _own_config(config, plan))
    if isinstance(plan, Tpe):
        require("search", "method tpe")
    settings = _settings(config, plan)
    _check_directory(out, settings, overwrite=overwrite)
    context = open_context(data, config, cache=cache, strict=strict, progress=progress)
    if overwrite:
        clear_output(out, "search")
    identity = _claim(out, settings, context)
    Store(out).tidy()
    space = _space(plan, context)
    kept = prefix_cache or PrefixCache()
    total = config.runs * sum(number for _, number in plan.planned)
    with progress.task("trainings", total) as advance:
        trainer = Trainer(
            context,
            Store(out),
            planned=plan.planned,
            prefix_cache=kept,
            executor=executor,
            stop=stop,
            progress=progress,
            advance=advance,
        )
        found = _searched(plan, space, trainer)
    kept.close()
    best = best_of(found)
    answer: Record = {
        "schema": SCHEMA,
        "settings": settings,
        "identity": identity,
        "data": {
            "name": context.dataset.name,
            "num_images": len(context.dataset.audit.listing.names),
            "num_classes": len(context.dataset.classes),
        },
        "split": {k: v for k, v in context.dataset.split_json().items() if k != "names"},
        "weights": context.weights.to_json(),
        "evaluated": {
            "side": "validation",
            "num_images": len(context.dataset.sides["val"]),
            "majority_accuracy": majority_share(context.dataset.sides["val"].labels),
        },
        "space": [one.to_json() for one in space],
        "trials": found["trials"],
        "cells": found.get("cells"),
        "rungs": found.get("rungs"),
        "startup": STARTUP if isinstance(plan, Tpe) else None,
        "best": best | {"command": train_command(settings, best)},
        "alike": alike(found["trials"], best, len(context.dataset.sides["val"])),
        "importance": _importance(plan, found, space, config.seed),
        "cost": cost_of(plan, config.runs, found),
        "files": FILES,
        "versions": versions(context) | _optuna_version(plan),
        "machines": machine_rows(trained(found["trials"])),
        "timing": timing_of(found["trials"]),
    }
    write_text(out / FILES["csv"], csv_text(answer))
    write_json(out / FILES["search"], answer)
    return answer


def _own_config(config: StudyConfig, plan: SearchPlan) -> StudyConfig:
    """The configuration with the plan's schedule, and whole batches until a size is drawn."""
    searched = () if isinstance(plan, GridSearch) else plan.searched
    if "depth" not in searched and len(config.depths) != 1:
        raise InputError(f"depth: expected one number of frozen layers, got {config.depths}")
    size = None if "batch_size" in searched else config.batch_size
    return replace(config, schedule=plan.schedule, batch_size=size)


def _settings(config: StudyConfig, plan: SearchPlan) -> Record:
    plain = config.to_json()
    searched = () if isinstance(plan, GridSearch) else plan.searched
    return plan.to_json() | {name: plain[name] for name in SHARED if name not in searched}


def _space(plan: SearchPlan, context: TrialContext) -> tuple[Dimension, ...]:
    if isinstance(plan, GridSearch):
        return ()
    return space_of(
        plan.searched,
        lr_range=plan.lr_range,
        depths=context.depths,
        num_train=len(context.dataset.sides["train"]),
    )


def _searched(plan: SearchPlan, space: tuple[Dimension, ...], trainer: Trainer) -> Record:
    if isinstance(plan, GridSearch):
        return run_grid(plan, trainer)
    if isinstance(plan, Halving):
        return run_halving(plan, space, trainer)
    return run_tpe(plan, space, trainer)


def _check_directory(out: Path, settings: Record, *, overwrite: bool) -> None:
    """Refuse a folder with anything else, or with another search, before anything long begins.

    A search by TPE may be asked for more trials: the first ones are the same.
    """
    open_output(out, marker=PLAN, kind="a search")
    if overwrite or not (out / PLAN).exists():
        return
    found = read_record(out / PLAN, SEARCH_PLAN, schema=SCHEMA, what="a search")
    before, now = found["settings"], settings
    first = before.get("trials")
    if now["method"] == before["method"] == "tpe" and type(first) is int and now["trials"] > first:
        now = now | {"trials": first}
    if before != now:
        raise InputError(
            f"{out}: holds a search with other settings: {difference(before, now)}; {INSTEAD}"
        )


def _claim(out: Path, settings: Record, context: TrialContext) -> Record:
    """Mark a directory as this search's; refuse one of other images, weights or sampler."""
    weights = {"loaded": list(context.weights.loaded), "sha256": context.weights.sha256}
    identity: Record = {**context.dataset.identity(), "weights": weights}
    if settings["method"] == "tpe":
        # Another version may ask for other configurations.
        identity["optuna"] = version("optuna")
    mine = {"schema": SCHEMA, "settings": settings, "identity": identity}
    if (out / PLAN).exists():
        found = read_record(out / PLAN, SEARCH_PLAN, schema=SCHEMA, what="a search")
        odd = odd_keys(found["identity"], identity)
        if odd:
            raise InputError(f"{out}: holds a search of other {' and '.join(odd)}; {INSTEAD}")
    write_json(out / PLAN, mine)
    return identity


def _importance(plan: SearchPlan, found: Record, space: tuple[Dimension, ...], seed: int) -> Record:
    if isinstance(plan, GridSearch):
        return grid_importance(found["cells"], sorted(plan.lrs)) | {"epochs": None}
    # Trials of one length only: of halving the first rung, which all configurations went through.
    epochs = plan.planned[0][0]
    rows = [row for row in found["trials"] if row["epochs"] == epochs]
    return trial_importance(rows, space, seed=seed) | {"epochs": epochs}


def _optuna_version(plan: SearchPlan) -> dict[str, Any]:
    used = not isinstance(plan, GridSearch) and installed("search")
    return {"optuna": version("optuna")} if used else {}
