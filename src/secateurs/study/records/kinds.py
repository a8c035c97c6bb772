"""What the records of a directory hold, for `secateurs.shape`; a report is made of them as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateurs.errors import InputError
from secateurs.shape import Maybe, check_record, fits

NUMBER = Maybe(float)
EVALUATION: dict[str, Any] = {
    "num_images": int,
    "accuracy": NUMBER,
    "accuracy_low": NUMBER,
    "accuracy_high": NUMBER,
    "majority_accuracy": Maybe(float, absent=True),
    "balanced_accuracy": Maybe(float, absent=True),
    "confusion": [[int]],
    "per_class": [
        {"class": str, "precision": NUMBER, "recall": NUMBER, "specificity": NUMBER}
        | {"num_true": int, "num_predicted": int}
    ],
    "notes": Maybe([str], absent=True),
}
TRIAL: dict[str, Any] = {
    "key": str,
    "depth": int,
    "run": int,
    "pretrained": bool,
    "epochs_run": int,
    "best_epoch": Maybe(int),
    "stopped": Maybe(str),
    "val_accuracy": NUMBER,
    "val_loss": NUMBER,
    "curve": [
        {"epoch": int, "train_loss": NUMBER, "train_accuracy": NUMBER}
        | {"val_loss": NUMBER, "val_accuracy": NUMBER}
    ],
    "timing": Maybe({"seconds": Maybe(float, absent=True)}, absent=True),
}
# As a study keeps it: a page is made without these.
KEPT_TRIAL: dict[str, Any] = TRIAL | {
    "seed": int,
    "precision": str,
    "timing": {"seconds": float, "frozen_seconds": float},
}
STUDY_SCHEMA = 1  # of study.json, which says whose directory it is
STUDY: dict[str, Any] = {
    "config": dict,
    "identity": dict,
    "data": Maybe(str, absent=True),
}
SEARCH_PLAN: dict[str, Any] = {"settings": {"method": str}, "identity": dict}
PAPER_PLAN: dict[str, Any] = {"plan": dict, "identity": dict}
_CELL: dict[str, Any] = {
    "low_deg": float,
    "norm_std": float,
    "num_candidates": int,
    "num_removed": int,
    "num_kept": int,
    "num_parameters": Maybe(int),
    "num_correct": Maybe(int),
    "accuracy": NUMBER,
    "accuracy_low": NUMBER,
    "accuracy_high": NUMBER,
    "ridge": NUMBER,
    "note": Maybe(str),
}
GRID: dict[str, Any] = {
    "settings": {
        "layer": str,
        "angles_deg": [float],
        "norm_stds": [float],
        "rule": str,
        "compensation": Maybe(str),
        "on": str,
    },
    "identity": {"model": str},
    "model": {"name": str, "backbone": str, "depth": Maybe(int), "num_parameters": int},
    "data": {"name": str, "num_images": int},
    "split": {"rule": str, "counts": {"train": int, "val": int, "test": int}},
    "layer": {"layer": str, "path": str, "num_units": int, "num_dead": int},
    "evaluated": {"on": str, "side": str, "num_images": int},
    "unpruned": {
        "num_correct": int,
        "accuracy": float,
        "accuracy_low": float,
        "accuracy_high": float,
    },
    "cells": [_CELL],
    "by_angle": [{"low_deg": float, "accuracy_mean": NUMBER, "num_removed_mean": float}],
    "files": dict,
    "versions": dict,
    "timing": dict,
}


def check_grid(found: Any, *, schema: int, where: str) -> dict[str, Any]:
    """What `grid.json` holds, checked; InputError names the file and the field that is wrong."""
    grid = check_record(found, GRID, schema=schema, where=where, what="a grid")
    settings = grid["settings"]
    number = len(settings["angles_deg"]) * len(settings["norm_stds"])
    for name, wanted in (("cells", number), ("by_angle", len(settings["angles_deg"]))):
        if not wanted or len(grid[name]) != wanted:
            raise InputError(
                f"{where}: {name} has {len(grid[name])} entries, expected {wanted or 'some'}; "
                "damaged"
            )
    return grid


def odd_keys(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The keys of `wanted` and `found` whose values are not the same, in order.

    >>> odd_keys({"images": "a", "model": "b"}, {"images": "a", "split": "c"})
    ['model', 'split']
    """
    return sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))


def is_trial(record: Mapping[str, Any]) -> bool:
    """Whether a record is a trial's, so that a study can resume from it."""
    if not fits(record, KEPT_TRIAL):
        return False
    # One that ended without a usable epoch has none of the three.
    nothing = [record[name] is None for name in ("best_epoch", "val_accuracy", "val_loss")]
    return not any(nothing) or all(nothing)
