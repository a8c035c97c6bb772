"""Searches as `search.json` holds them, one a method, made of plain numbers."""

from __future__ import annotations

from typing import Any

LRS = [0.001, 0.005, 0.01, 0.05]
EPOCHS = [2, 4, 6]
NUM_IMAGES = 135
SPACE = [
    {"name": "lr", "choices": [], "low": 1e-5, "high": 1e-2, "log": True, "zero_below": 0.0},
    {"name": "batch_size", "choices": [16, 32, 64], "low": 0.0, "high": 0.0, "log": False,
     "zero_below": 0.0},
    {"name": "weight_decay", "choices": [], "low": 1e-7, "high": 1e-2, "log": True,
     "zero_below": 1e-6},
    {"name": "label_smoothing", "choices": [], "low": 0.0, "high": 0.2, "log": False,
     "zero_below": 0.0},
]  # fmt: skip


def spread(correct: int | None) -> dict[str, Any]:
    """What a row says of its accuracy, from right answers of 135."""
    accuracy = None if correct is None else correct / NUM_IMAGES
    return {
        "val_accuracy_mean": accuracy,
        "val_accuracy_std": None,
        "val_accuracy_low": None if accuracy is None else accuracy - 0.08,
        "val_accuracy_high": None if accuracy is None else accuracy + 0.07,
        "val_accuracy_interval": None if accuracy is None else "Wilson",
        "val_loss_mean": None if accuracy is None else 2 - accuracy,
    }


def trial(
    number: int, parameters: dict[str, Any], epochs: int, correct: int | None, reached: int
) -> dict[str, Any]:
    """A row of one run that got to epoch `reached`; `correct` None when it diverged."""
    goal = 80 if correct is None else correct
    curve = [
        {
            "epoch": epoch,
            "train_loss": 1.8 / (epoch + 1),
            "train_accuracy": 0.5,
            "val_loss": 2 - (goal - 2 * (reached - epoch - 1)) / NUM_IMAGES,
            "val_accuracy": (goal - 2 * (reached - epoch - 1)) / NUM_IMAGES,
        }
        for epoch in range(reached)
    ]
    run = {
        "key": f"{number:064x}"[:60] + f"{epochs:04d}",
        "run": 0,
        "seed": 0,
        "val_accuracy": curve[-1]["val_accuracy"],
        "val_loss": curve[-1]["val_loss"],
        "best_epoch": reached - 1,
        "epochs_run": reached,
        "stopped": "completed" if reached == epochs else "diverged",
        "curve": curve,
    }
    return {
        "number": number,
        "parameters": parameters,
        "epochs": epochs,
        "num_runs": 1,
        "num_diverged": int(correct is None),
        **spread(correct),
        "runs": [run],
        "timing": {"seconds": 30.0, "frozen_seconds": 4.0},
    }


def _whole(method: str, own: dict[str, Any], **parts: Any) -> dict[str, Any]:
    shared = {
        "backbone": "alexnet", "weights": "auto", "split": "random", "group_by": None,
        "resize": "straight", "depths": [5], "runs": 1, "dropout": "on", "views": 2,
        "augment": True, "rotation_deg": 0.0, "min_scale": 1.0, "precision": "auto",
        "device": "auto", "seed": 0,
    }  # fmt: skip
    best = parts.pop("best")
    names = ("number", "epochs", "num_runs", "num_diverged")
    return {
        "schema": 1,
        "settings": {"method": method, **own, **shared},
        "identity": {
            "data": "d" * 64, "split": "e" * 64,
            "weights": {"loaded": ["conv1", "conv2"], "sha256": "f" * 64},
        },
        "data": {"name": "photos", "num_images": 675, "num_classes": 7},
        "split": {
            "rule": "random by group", "seed": 0,
            "counts": {"train": 405, "val": NUM_IMAGES, "test": 135},
            "per_class": {"train": [405], "val": [135], "test": [135]}, "num_groups": 75,
            "leakage": {"num_test": 135, "same_group": 0, "duplicate": 0, "near_duplicate": 0},
        },
        "weights": {"loaded": ["conv1", "conv2"]},
        "evaluated": {"side": "validation", "num_images": NUM_IMAGES},
        "cells": None,
        "rungs": None,
        "startup": None,
        "best": {
            "parameters": best.get("parameters") or {"lr": best["lr"]},
            **{name: best[name] for name in names},
            **{key: value for key, value in best.items() if key.startswith("val_")},
            "command": "secateurs train DATA --out MODEL --depth 5 --lr 0.005 --epochs 4",
        },
        "files": {"search": "search.json", "csv": "search.csv", "page": "search.html"},
        "versions": {"secateurs": "0.1.0", "torch": "2.15.0", "machine": "2 threads, x86_64"},
        "timing": {"preparing": 12.0, "training": 108.0, "total": 120.0},
        **parts,
    }  # fmt: skip


def grid_search() -> dict[str, Any]:
    """Four learning rates by three numbers of epochs; the largest diverges after two."""
    right = {0.001: 88, 0.005: 98, 0.01: 90, 0.05: None}
    trials = [trial(k, {"lr": lr}, 6, right[lr], 6 if right[lr] else 2) for k, lr in enumerate(LRS)]
    cells = []
    for row in trials:
        for epochs in EPOCHS:
            curve = row["runs"][0]["curve"]
            reached = len(curve) >= epochs
            correct = round(curve[epochs - 1]["val_accuracy"] * NUM_IMAGES) if reached else None
            cells.append(
                {
                    "number": row["number"],
                    "lr": row["parameters"]["lr"],
                    "epochs": epochs,
                    "num_runs": 1,
                    "num_diverged": int(not reached),
                    **spread(correct),
                    "best_epochs": [epochs - 1] if reached else [],
                    "last_epoch_accuracy_mean": correct and (correct - 1) / NUM_IMAGES,
                    "note": None if reached else "1 of 1 runs diverged",
                }
            )
    return _whole(
        "grid",
        {"lr": LRS, "epochs": EPOCHS, "batch_size": 64},
        space=[],
        trials=trials,
        cells=cells,
        best=cells[5],
        alike={"epochs": 6, "num_compared": 3, "numbers": [1, 2], "by": "Wilson"},
        importance={
            "method": "two-way analysis of variance over cells", "num_values": 9,
            "num_left_out": 1, "reason": None, "epochs": None,
            "parts": [
                {"name": "lr", "share": 0.75}, {"name": "epochs", "share": 0.2},
                {"name": "interaction", "share": 0.05},
            ],
        },
        cost={"num_trainings": 4, "num_epochs": 20, "num_cells": 12, "epochs_apart": 48},
    )  # fmt: skip


def _parameters(k: int) -> dict[str, Any]:
    return {
        "lr": round(10 ** (-5 + 3 * ((k * 0.618) % 1)), 7),
        "batch_size": [16, 32, 64][k % 3],
        "weight_decay": 0.0 if k % 4 == 0 else 1e-5,
        "label_smoothing": round(0.2 * ((k * 0.37) % 1), 3),
    }


def _importance(method: str, number: int, epochs: int) -> dict[str, Any]:
    names = ("lr", "batch_size", "label_smoothing", "weight_decay")
    shares = zip(names, (0.6, 0.25, 0.1, 0.05), strict=True)
    return {
        "method": method, "num_values": number, "num_left_out": 0, "reason": None,
        "epochs": epochs, "parts": [{"name": name, "share": share} for name, share in shares],
    }  # fmt: skip


def halving_search() -> dict[str, Any]:
    """Nine configurations, three of them for longer, one to the end."""
    rungs = [
        {"epochs": 2, "numbers": list(range(9)), "promoted": [2, 5, 7]},
        {"epochs": 6, "numbers": [2, 5, 7], "promoted": [5]},
        {"epochs": 10, "numbers": [5], "promoted": []},
    ]
    trials = []
    for at, rung in enumerate(rungs):
        for k in rung["numbers"]:
            correct = 40 + 3 * (k % 5) + 20 * (k in (2, 5, 7)) + 8 * at + 12 * (k == 5)
            row = trial(k, _parameters(k), rung["epochs"], correct, rung["epochs"])
            trials.append(row | {"rung": at})
    return _whole(
        "halving",
        {"trials": 9, "min_epochs": 2, "max_epochs": 10, "eta": 3, "lr_range": [1e-5, 1e-2],
         "searched": [one["name"] for one in SPACE]},
        space=SPACE, trials=trials, rungs=rungs, best=trials[-1],
        alike={"epochs": 10, "num_compared": 1, "numbers": [5], "by": "Wilson"},
        importance=_importance("rank correlation", 9, 2),
        cost={"num_trainings": 13, "num_epochs": 46, "num_cells": 9, "epochs_apart": 90},
    )  # fmt: skip


def tpe_search() -> dict[str, Any]:
    """Fourteen trials, the fourth of which diverged."""
    right = [50, 61, 44, None, 63, 58, 40, 66, 52, 60, 70, 72, 69, 75]
    trials = [
        trial(k, _parameters(k), 4, correct, 4 if correct else 1) for k, correct in enumerate(right)
    ]
    return _whole(
        "tpe",
        {"trials": 14, "epochs": 4, "lr_range": [1e-5, 1e-2],
         "searched": [one["name"] for one in SPACE]},
        space=SPACE, trials=trials, startup=10, best=trials[-1],
        alike={"epochs": 4, "num_compared": 13, "numbers": [7, 10, 11, 12, 13], "by": "Wilson"},
        importance=_importance("fANOVA", 13, 4) | {"num_left_out": 1},
        cost={"num_trainings": 14, "num_epochs": 53, "num_cells": 14, "epochs_apart": 56},
    )  # fmt: skip


SEARCHES = {"grid": grid_search, "halving": halving_search, "tpe": tpe_search}
