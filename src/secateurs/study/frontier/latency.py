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

REPEATS = 30
BUDGET_S = 20.0


def time_networks(
    folders: Mapping[str, Path],
    images: Mapping[str, Tensor],
    *,
    batch: int,
    device: torch.device,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Milliseconds of each saved network for `batch` images, in PyTorch on `device`.

    `images` (n, 3, size, size) are its inputs, by the names of `folders`. All networks are timed
    in every round, in changing order, so that other load affects them alike. At most `BUDGET_S`
    seconds, of at least three rounds.
    """
    calls: dict[str, Callable[[], object]] = {}
    with progress.task("latency", 1) as advance, torch.inference_mode():
        for name, folder in folders.items():
            model = load(folder).model.to(device).eval()
            calls[name] = _call(model, fill_batch(images[name], batch).to(device), device)
        times = compare_latency(calls, repeats=REPEATS, budget_s=BUDGET_S)
        advance(1)
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
