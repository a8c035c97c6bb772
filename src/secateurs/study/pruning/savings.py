"""What pruning saved: parameters, multiply-accumulates, files, and time in alternating runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.progress import SILENT, Progress
from secateurs.ship.checkpoint import load
from secateurs.ship.cost import Cost, cost, cost_sentence
from secateurs.ship.latency import LatencyRow, latency_rows, onnx_latency, torch_latency

BUDGET_S = 5.0


def _counted(
    measure: Callable[[int], LatencyRow], advance: Callable[[int], None]
) -> Callable[[int], LatencyRow]:
    def counted(batch: int) -> LatencyRow:
        found = measure(batch)
        advance(1)
        return found

    return counted


@dataclass(frozen=True)
class Priced:
    """A network with the file of its weights, and its ONNX file where there is one."""

    model: nn.Module
    tensors: Path
    onnx: Path | None


def price(
    unpruned: Path,
    pruned: Path,
    images: Tensor,
    *,
    device: torch.device,
    onnx_note: str | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """The `cost` part of `results.json` for two folders, each with a saved model and its ONNX file.

    An `onnx_note` says why there are no ONNX files. See `price_models`.
    """
    onnx = onnx_note is None
    before, after = (
        Priced(
            load(folder).model.to(device),
            folder / "model.safetensors",
            folder / "model.onnx" if onnx else None,
        )
        for folder in (unpruned, pruned)
    )
    return price_models(before, after, images, progress=progress) | {"onnx_note": onnx_note}


def price_models(
    before: Priced, after: Priced, images: Tensor, *, progress: Progress = SILENT
) -> dict[str, Any]:
    """Parameters, multiply-accumulates, file sizes and latency of a network before and after.

    `images` (n, 3, size, size) are what the networks are timed on, at batch 1 and 64 (fewer
    where that takes too long, see `latency_rows`), in alternating rounds: in PyTorch on the device
    of the networks, and in ONNX Runtime on the CPU where both have an ONNX file.
    """
    costs: list[Cost] = []
    files: list[Path] = []
    for one in (before, after):
        onnx = one.onnx if one.onnx is not None and one.onnx.exists() else None
        costs.append(
            cost(
                one.model,
                size=images.shape[-1],
                file_bytes=one.tensors.stat().st_size,
                onnx_bytes=None if onnx is None else onnx.stat().st_size,
            )
        )
        files += [] if onnx is None else [onnx]
    most = max(one.activation_bytes or 0 for one in costs)

    def in_torch(batch: int) -> LatencyRow:
        return torch_latency(before.model, after.model, images, batch=batch, budget_s=BUDGET_S)

    def in_onnx(batch: int) -> LatencyRow:
        return onnx_latency(files[0], files[1], images, batch=batch, budget_s=BUDGET_S)

    rows: list[LatencyRow] = []
    runtimes = (in_torch, in_onnx) if len(files) == 2 else (in_torch,)
    with progress.task("latency", 2 * len(runtimes)) as advance:
        for measure in runtimes:
            found = latency_rows(_counted(measure, advance), most)
            advance(2 - len(found))  # at one batch size where larger ones take too long
            rows += found
    return {
        "before": costs[0].to_json(),
        "after": costs[1].to_json(),
        "latency": [asdict(row) for row in rows],
        "sentence": cost_sentence(costs[0], costs[1], rows),
    }
