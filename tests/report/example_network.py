"""A made-up pruning of a whole network, as pruning.json holds it, for tests of its page."""

from __future__ import annotations

from typing import Any

from example_results import wilson


def _evaluation(right: int, total: int = 135) -> dict[str, Any]:
    low, high = wilson(right, total)
    return {"accuracy": right / total, "accuracy_low": low, "accuracy_high": high}


def _latency(batch: int, before: float, after: float) -> dict[str, Any]:
    return {
        "runtime": "pytorch", "device": "cpu", "batch": batch, "ratio": after / before,
        "before_ms": {"median": before}, "after_ms": {"median": after},
    }  # fmt: skip


def example_network() -> dict[str, Any]:
    """Eight groups cut, one left whole, recovered over six epochs."""
    groups = [
        {
            "name": f"conv{at}", "num_units": 64 * at, "num_kept": 64 * at // (1 + at % 4),
            "how": "least_squares", "loss": 0.002 * at, "layers": [{"path": f"features.{3 * at}"}],
        }
        for at in range(1, 9)
    ]  # fmt: skip
    trajectory = [
        {"macs": 1 - step / 100, "params": 1 - step / 80, "loss": (step / 70) ** 3}
        for step in range(70)
    ]
    curve = [
        {
            "epoch": at, "train_loss": 1 / (1 + at), "train_accuracy": 0.7 + 0.04 * at,
            "val_accuracy": 0.62 + 0.015 * at,
        }
        for at in range(6)
    ]  # fmt: skip
    cost = {"num_parameters": 57_032_519, "macs": 710_147_072, "activation_bytes": 1_404_928}
    return {
        "backbone": "alexnet",
        "note": "",
        "budget": {"params": None, "macs": 0.11, "latency": None, "max_loss": None},
        "groups": groups,
        "not_pruned": [{"name": "fc8", "reason": "its units are the classes"}],
        "starts": [0.79, 0.84, 0.81],
        "outcome": {
            "predicted": 0.19,
            "measured": 0.31,
            "relative": 0.05,
            "alarm": False,
            "weights": "refitted",
            "tried": {"refitted": 0.31},
            "norms": "kept",
            "norms_tried": {"kept": 0.31, "implied": 1.7, "measured": 0.32},
        },
        "trajectory": trajectory,
        "chosen": trajectory[60],
        "before": _evaluation(98),
        "cut": _evaluation(84),
        "after": _evaluation(96),
        "cost": {
            "before": cost,
            "after": {key: value // 9 for key, value in cost.items()},
            "latency": [_latency(1, 14.2, 6.1), _latency(64, 410.0, 402.0)],
            "sentence": "An image takes 43% of the time; a batch of 64 is not measurably faster.",
        },
        "recovery": {"curve": curve, "lr": 0.001, "best_epoch": 5, "seconds": 118.0},
    }
