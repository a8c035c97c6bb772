"""A saved network pruned to a budget and quantized, as one path with one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.files import read_json
from secateurs.progress import SILENT, Progress
from secateurs.prune.to_budget import Budget
from secateurs.ship.int8.quantization import Method
from secateurs.stopping import StopFlag
from secateurs.study.pruning.recovery import RecoveryOptions
from secateurs.study.pruning.saved_network import shrink_saved
from secateurs.study.saved.quantizing import NUM_CALIBRATION, Record, quantize_saved


def shrink_and_quantize(
    model: Path,
    data: str,
    out: Path,
    *,
    macs: float | None = None,
    recovery_epochs: int = 0,
    method: Method = "compensated",
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
        if not _is_done(own, budget, recovery):
            shrink_saved(model, data, own, budget, recovery=recovery, overwrite=True, **common)
    elif recovery_epochs:
        raise InputError("--recovery-epochs goes with --macs")
    return quantize_saved(
        own,
        data,
        out,
        method=method,
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


def _is_done(folder: Path, budget: Budget, recovery: RecoveryOptions) -> bool:
    """Whether a directory has the network that this budget and recovery give."""
    path = folder / "pruning.json"
    if not path.is_file() or not (folder / "model.json").is_file():
        return False
    from dataclasses import asdict

    known = read_json(path)
    asked = asdict(budget) | {"recovery": asdict(recovery)}
    return isinstance(known, dict) and known.get("budget") == asked
