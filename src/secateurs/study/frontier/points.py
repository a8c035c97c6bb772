"""The points of the frontier: each a network on disk, with what it costs and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from secateurs.files import sha256_file
from secateurs.fit.metrics import evaluate
from secateurs.nets.stock import stock_name
from secateurs.ship.checkpoint import save
from secateurs.ship.cost import cost
from secateurs.ship.spec import ModelSpec
from secateurs.study.saved.evaluation import side_logits
from secateurs.study.setup.trial_context import Dataset
from secateurs.study.trials.setting import TrialSetting

Record = dict[str, Any]
Kind = Literal["probe", "fine-tuned", "pruned"]
FOLDER = "models"


@dataclass(frozen=True)
class Place:
    """Where a point is kept: its name, which is a folder in `models` below a study's directory."""

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        """The folder of its model."""
        return self.root / FOLDER / self.name

    @property
    def files(self) -> tuple[Path, Path]:
        """The two files of its model."""
        return self.folder / "model.json", self.folder / "model.safetensors"


def point_name(backbone: str, ending: str = "") -> str:
    """The name of a point, which is that of a folder too, without the earlier depths of its head.

    >>> point_name("timm:resnet18+layer1.1", "macs50")
    'timm-resnet18-macs50'
    """
    name = stock_name(backbone).replace(":", "-").replace("/", "-")
    return f"{name}-{ending}" if ending else name


def keep_point(
    model: nn.Module, spec: ModelSpec, context: TrialSetting, place: Place, kind: Kind
) -> Record:
    """Save a network and return its row: what it costs, and how it answers on validation.

    The row has the answers themselves (`correct`, one character an image), so that points can be
    compared image by image, and the SHA-256 of both files (`description`, `tensors`). The test
    images are not used.
    """
    save(model, spec, place.folder)
    labels = torch.from_numpy(context.dataset.sides["val"].labels)
    logits = side_logits(model, context.dataset, "val", context.device)
    dataset = context.dataset
    groups = dataset.side_groups("val") if isinstance(dataset, Dataset) else None
    found = evaluate(logits, labels, dataset.classes, groups)
    price = cost(
        model,
        size=spec.preprocessing.size,
        file_bytes=place.files[1].stat().st_size,
    )
    return {
        "name": place.name,
        "kind": kind,
        "backbone": context.config.backbone,
        "val": found.to_json(),
        "correct": "".join("01"[int(one)] for one in logits.argmax(1) == labels),
        "cost": price.to_json(),
        "description": sha256_file(place.files[0]),
        "tensors": sha256_file(place.files[1]),
    }


def is_whole(place: Place, row: Record) -> bool:
    """Whether a point's network is on disk as its row says.

    >>> is_whole(Place(Path("nowhere"), "net"), {"tensors": "", "description": ""})
    False
    """
    description, tensors = place.files
    if not (description.is_file() and tensors.is_file()):
        return False
    return [sha256_file(description), sha256_file(tensors)] == [row["description"], row["tensors"]]


def answers(row: Record) -> NDArray[np.bool_]:
    """Which validation images a point answers correctly, in the order of the side."""
    return np.frombuffer(row["correct"].encode(), np.uint8) == ord("1")


def megabytes(row: Record) -> float:
    """10**6 bytes of a point's weights."""
    return row["cost"]["file_bytes"] / 1e6
