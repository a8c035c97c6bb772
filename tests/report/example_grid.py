"""A grid as `grid.json` holds it, made of plain numbers."""

from __future__ import annotations

from typing import Any

ANGLES = [7.5, 10.0, 12.5, 15.0, 17.5]
STDS = [1.0, 1.5, 2.0, 3.0]


def cell(angle: float, std: float, removed: int, correct: int | None) -> dict[str, Any]:
    accuracy = None if correct is None else correct / 135
    return {
        "low_deg": angle,
        "norm_std": std,
        "num_candidates": int(1600 / std),
        "num_removed": removed,
        "num_kept": 4096 - removed,
        "num_parameters": None if correct is None else 57_032_519 - 4104 * removed,
        "num_correct": correct,
        "accuracy": accuracy,
        "accuracy_low": None if accuracy is None else accuracy - 0.08,
        "accuracy_high": None if accuracy is None else accuracy + 0.07,
        "ridge": 0.1,
        "note": "every unit would be removed" if correct is None else None,
    }


def example_grid() -> dict[str, Any]:
    """Cells that lose more the wider the angle; most lossless units at 10 degrees, threshold 1."""
    cells = [
        cell(angle, std, int(40 * angle / std**2), 92 if angle <= 10 else int(110 - 2 * angle))
        for std in STDS
        for angle in ANGLES
    ]
    return {
        "schema": 1,
        "settings": {
            "layer": "fc7", "angles_deg": ANGLES, "norm_stds": STDS, "rule": "pairwise",
            "compensation": "least_squares", "on": "val", "split": "random", "group_by": None,
            "seed": 0, "resize": "straight", "device": "auto",
        },
        "identity": {"data": "d" * 64, "split": "e" * 64, "model": "f" * 64},
        "model": {
            "name": "unpruned", "backbone": "alexnet", "depth": 3, "num_parameters": 57_032_519,
        },
        "data": {"name": "photos", "num_images": 675},
        "split": {
            "rule": "random by group", "seed": 0,
            "counts": {"train": 405, "val": 135, "test": 135},
            "per_class": {"train": [405], "val": [135], "test": [135]}, "num_groups": 75,
            "leakage": {"num_test": 135, "same_group": 0, "duplicate": 0, "near_duplicate": 0},
        },
        "layer": {"layer": "fc7", "path": "classifier.4", "num_units": 4096, "num_dead": 20},
        "evaluated": {"on": "val", "side": "validation", "num_images": 135},
        "unpruned": {
            "num_correct": 92, "accuracy": 92 / 135, "accuracy_low": 0.6, "accuracy_high": 0.75,
        },
        "cells": cells,
        "by_angle": [
            {
                "low_deg": angle,
                "accuracy_mean": sum(c["accuracy"] for c in cells if c["low_deg"] == angle)
                / len(STDS),
                "num_removed_mean": sum(c["num_removed"] for c in cells if c["low_deg"] == angle)
                / len(STDS),
            }
            for angle in ANGLES
        ],
        "files": {"grid": "grid.json", "csv": "grid.csv", "page": "grid.html"},
        "versions": {"secateurs": "0.1.0", "torch": "2.15.0", "machine": "2 threads, x86_64"},
        "timing": {"opening": 1.0, "images": 3.0, "cells": 0.8, "total": 4.8},
    }  # fmt: skip
