"""A saved network pruned to a budget and quantized, as one path with one table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.files import read_json, write_json
from secateurs.paths import saved_model
from secateurs.progress import SILENT, Progress
from secateurs.prune.to_budget import Budget
from secateurs.ship.int8.quantization import ENOUGH, Method
from secateurs.stopping import StopFlag
from secateurs.study.pruning.recovery import RecoveryOptions
from secateurs.study.pruning.saved_network import asked_for, shrink_saved
from secateurs.study.saved.quantizing import NUM_CALIBRATION, Record, quantize_saved

ORIGIN = "origin.json"  # beside the pruned network: the model and the request that it comes from


def shrink_and_quantize(
    model: Path,
    data: str,
    out: Path,
    *,
    macs: float | None = None,
    recovery_epochs: int = 0,
    method: Method = "compensated",
    wanted: float = ENOUGH,
    original: Path | None = None,
    num_calibration: int = NUM_CALIBRATION,
    changes: Mapping[str, Any] | None = None,
    cache: Path,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Record:
    """Prune a saved network to `macs`, quantize the result to `out`, and measure all four networks.

    The pruned network is written to a directory beside `out` (`pruned_folder`) and used again when
    the same is asked for once more. Without `macs` the network is quantized as it is; see
    `quantize_saved`.
    """
    common: dict[str, Any] = {
        "changes": changes,
        "cache": cache,
        "stop": stop,
        "progress": progress,
    }
    if out.suffix != ".onnx":
        raise InputError(f"{out}: an int8 file must end in .onnx")
    own = model
    if macs is not None:
        own, original = pruned_folder(out), model
        budget = Budget(macs=macs)
        recovery = RecoveryOptions(epochs=recovery_epochs)
        origin = {"model": _digest(model), "budget": asked_for(budget, recovery)}
        if (own / "pruning.json").exists() and not _is_done(own, origin):
            raise InputError(
                f"{own}: holds a network that was pruned in another way; delete it, or give "
                "another --out"
            )
        if not _is_done(own, origin):
            shrink_saved(model, data, own, budget, recovery=recovery, **common)
            write_json(own / ORIGIN, origin)
    elif recovery_epochs:
        raise InputError("--recovery-epochs goes with --macs")
    return quantize_saved(
        own,
        data,
        out,
        method=method,
        wanted=wanted,
        original=original,
        num_calibration=num_calibration,
        **common,
    )


def pruned_folder(out: Path) -> Path:
    """Where the pruned network of an int8 file goes.

    >>> pruned_folder(Path("models/photos.onnx")).name
    'photos-pruned'
    """
    return out.with_name(f"{out.stem}-pruned")


def _digest(model: Path) -> str:
    """SHA-256 of the weights of a saved model."""
    folder = saved_model(model, pruned=False)
    with ((folder.parent if folder.is_file() else folder) / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_done(folder: Path, origin: Record) -> bool:
    """Whether a directory has the network that this model, budget and recovery give."""
    files = [folder / name for name in ("pruning.json", "model.json", ORIGIN)]
    return all(path.is_file() for path in files) and read_json(folder / ORIGIN) == origin
