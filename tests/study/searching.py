"""Trainings that only pretend, for tests of searches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from secateurs.files import write_json
from secateurs.stopping import StopRequested
from secateurs.study.setup.config import StudyConfig
from secateurs.study.trials.store import Store
from secateurs.study.trials.trial import Trial, trial_key

CONFIG = StudyConfig(
    backbone="mobilenet_v3_small",
    weights="none",
    depths=(53,),
    runs=1,
    scratch_runs=0,
    views=1,
    batch_size=14,
    group_by=r"^(\d+)_",
    device="cpu",
    precision="float32",
)


class Trainings:
    """Trainings that only pretend: they keep their books, diverge, and stop when told to."""

    def __init__(self) -> None:
        self.done: list[tuple[float, int, int, dict[str, Any]]] = []
        self.stop_after: int | None = None
        self.accuracy: Callable[[Any, int, int], float | None] = _accuracy

    def __call__(self, context: Any, trial: Trial, shared: Any, store: Store, **_: Any):
        if self.stop_after is not None and len(self.done) >= self.stop_after:
            raise StopRequested
        config, curve = context.config, []
        for epoch in range(config.epochs):
            value = self.accuracy(config, trial.run, epoch)
            if value is None:
                break
            curve.append(
                {
                    "epoch": epoch,
                    "train_loss": 1.0,
                    "train_accuracy": 0.5,
                    "val_loss": 2.0 - value,
                    "val_accuracy": value,
                }
            )
        best = max(curve, key=lambda e: (e["val_accuracy"], -e["val_loss"]), default=None)
        key = trial_key(context, trial)
        record = {
            "key": key, "depth": trial.depth, "run": trial.run, "pretrained": True,
            "seed": config.seed + trial.run, "lr": config.lr, "epochs_run": len(curve),
            "best_epoch": None if best is None else best["epoch"],
            "stopped": "completed" if len(curve) == config.epochs else "diverged",
            "message": "", "val_accuracy": None if best is None else best["val_accuracy"],
            "val_loss": None if best is None else best["val_loss"], "curve": curve,
            "precision": "float32", "timing": {"seconds": 2.0, "frozen_seconds": 0.5},
        }  # fmt: skip
        self.done.append((config.lr, config.epochs, trial.run, config.to_json()))
        write_json(store.record(key), record)
        return record, None


def asked(trainings: Trainings) -> list[float]:
    """Learning rates in the order in which they were trained."""
    return [lr for lr, *_ in trainings.done]


def _accuracy(config: StudyConfig, run: int, epoch: int) -> float:
    """Best at a learning rate of 1e-3; no two learning rates agree."""
    return 0.7 - 0.1 * abs(np.log10(config.lr) + 3) + 0.001 * epoch + 0.01 * run
