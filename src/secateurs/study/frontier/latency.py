"""The time of all points of a frontier, measured in the same rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.progress import SILENT, Progress
from secateurs.ship.checkpoint import load
from secateurs.ship.latency import compare_latency, fill_batch, spread
from secateurs.stopping import StopFlag

REPEATS = 30
WARMUP = 3
BUDGET_S = 20.0


def time_networks(
    folders: Mapping[str, Path],
    images: Mapping[str, Tensor],
    *,
    batch: int,
    device: torch.device,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Milliseconds of each saved network; see `time_models`."""
    models = {name: load(folder).model for name, folder in folders.items()}
    return time_models(models, images, batch=batch, device=device, stop=stop, progress=progress)


def time_models(
    models: Mapping[str, nn.Module],
    images: Mapping[str, Tensor],
    *,
    batch: int,
    device: torch.device,
    budget_s: float | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Milliseconds of each network for `batch` images, in PyTorch on `device`.

    `images` (n, 3, size, size) are its inputs, by the names of `models`. All networks are timed
    in every round, in changing order, so that other load affects them alike. At most `budget_s`
    seconds (`BUDGET_S` by default), of at least three rounds. Raises StopRequested between two
    rounds when asked to stop.
    """
    calls: dict[str, Callable[[], object]] = {}
    with progress.task("latency", REPEATS + WARMUP) as advance, torch.inference_mode():
        for name, model in models.items():
            x = fill_batch(images[name], batch).to(device)
            calls[name] = _call(model.to(device).eval(), x, device)

        def on_round() -> None:
            advance(1)
            if stop is not None:
                stop.check()

        times = compare_latency(
            calls,
            repeats=REPEATS,
            warmup=WARMUP,
            budget_s=BUDGET_S if budget_s is None else budget_s,
            on_round=on_round,
        )
    return {
        "runtime": "pytorch",
        "device": device.type,
        "batch": batch,
        "num_rounds": len(next(iter(times.values()))),
        "ms": {name: asdict(spread(found)) for name, found in times.items()},
    }


def _call(model: nn.Module, x: Tensor, device: torch.device) -> Callable[[], object]:
    def run() -> None:
        model(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run
