"""The state of an unfinished training, in one safetensors file: no pickle, whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.files import atomic_path, fingerprint
from secateurs.fit.tensors import DamagedError, read_checked, write_checked


@dataclass(frozen=True)
class TrainState:
    """Where a training stands: before step `step` of epoch `epoch`.

    `curve` holds the rows of finished epochs, `sums` the running (loss, correct, images) of the
    epoch under way; `current`, `best` and `adam` are tensors by parameter name, and so is
    `average`, the running average of the weights where there is one.
    """

    epoch: int
    step: int
    curve: list[dict[str, Any]]
    best_epoch: int
    sums: tuple[float, int, int]
    current: dict[str, Tensor]
    best: dict[str, Tensor]
    adam: dict[str, Tensor]
    average: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


def adam_state(
    optimizer: torch.optim.Optimizer, trained: dict[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Adam's moments and step counts as tensors named `parameter:entry`."""
    flat: dict[str, Tensor] = {}
    for name, parameter in trained.items():
        for entry, value in optimizer.state.get(parameter, {}).items():
            flat[f"{name}:{entry}"] = value
    return flat


def load_adam(
    optimizer: torch.optim.Optimizer,
    trained: dict[str, nn.Parameter],
    flat: dict[str, Tensor],
) -> None:
    """Give a fresh optimizer the moments that `adam_state` returned."""
    for key, value in flat.items():
        name, entry = key.rsplit(":", 1)
        parameter = trained[name]
        moved = value.to(parameter.device)
        if value.shape == parameter.shape:
            # The fused step walks moments and parameter side by side: both in the same layout.
            moved = torch.empty_like(parameter).copy_(moved)
        optimizer.state[parameter][entry] = moved


def save_state(path: Path, state: TrainState, identity: dict[str, Any]) -> None:
    """Write a state; `identity` is the configuration that may resume from it."""
    tensors: dict[str, Tensor] = {}
    for part in ("current", "best", "adam", "average"):
        for name, tensor in getattr(state, part).items():
            tensors[f"{part}/{name}"] = tensor.detach().cpu().contiguous().clone()
    record = {
        "identity": fingerprint(identity),
        "epoch": state.epoch,
        "step": state.step,
        "curve": state.curve,
        "best_epoch": state.best_epoch,
        "sums": state.sums,
    }
    with atomic_path(path) as temporary:
        write_checked(tensors, temporary, {"secateurs": json.dumps(record)})


def load_state(path: Path, identity: dict[str, Any], *, discard: bool = False) -> TrainState | None:
    """Read a state back; None when there is none or it is damaged, and has been removed.

    One of another configuration is removed too with `discard`, and otherwise an InputError.
    """
    if not path.exists():
        return None
    try:
        tensors, words = read_checked(path)
    except DamagedError:
        path.unlink(missing_ok=True)
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    record = json.loads(words["secateurs"])
    if record["identity"] != fingerprint(identity) and discard:
        path.unlink(missing_ok=True)
        return None
    if record["identity"] != fingerprint(identity):
        raise InputError(f"{path}: state of a training with another configuration; delete it")
    parts: dict[str, dict[str, Tensor]] = {
        part: {} for part in ("current", "best", "adam", "average")
    }
    for key, tensor in tensors.items():
        part, name = key.split("/", 1)
        parts[part][name] = tensor
    return TrainState(
        epoch=record["epoch"],
        step=record["step"],
        curve=record["curve"],
        best_epoch=record["best_epoch"],
        sums=tuple(record["sums"]),
        **parts,
    )
