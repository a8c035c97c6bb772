"""The views that training shows a network, as pictures."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from secateurs.directories import open_output
from secateurs.errors import InputError
from secateurs.fit.images import Images
from secateurs.progress import SILENT, Progress
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import Dataset, open_dataset

PAGE = "show.html"
MOST = 100
QUALITY = 88


@dataclass(frozen=True)
class Shown:
    """One training image: its evaluation view, then its training views, each a JPEG file."""

    name: str
    label: str
    pictures: tuple[bytes, ...]


@dataclass(frozen=True)
class ViewsShown:
    """Some training images of a dataset as the network sees them."""

    data: str
    backbone: str
    size: int
    num_train: int
    images: tuple[Shown, ...]


def show_views(
    data: str,
    config: StudyConfig,
    out: Path,
    *,
    num_images: int = 12,
    num_views: int = 5,
    cache: Path,
    progress: Progress = SILENT,
) -> ViewsShown:
    """Some training images, spread over the classes, with the views of the first epochs.

    The views are those that a training with this configuration draws: the same seed gives the same
    ones. Raises InputError for bad input, and when `out` holds anything else than such a page.
    """
    for name, value in (("images", num_images), ("views", num_views)):
        if not 1 <= value <= MOST:
            raise InputError(f"{name} must be 1 to {MOST}, got {value}")
    open_output(out, marker=PAGE, kind="a page of views")
    dataset = open_dataset(data, config, cache=cache, progress=progress)
    train = dataset.sides["train"]
    rows = spread_rows(train.labels, num_images)
    columns = [train.eval_views(rows, torch.device("cpu"))]
    columns += [
        train.train_views(
            rows,
            seed=config.seed,
            epoch=epoch,
            augmentation=config.augmentation(),
            device=torch.device("cpu"),
        )
        for epoch in range(num_views)
    ]
    pictures = [_pictures(train, views) for views in columns]
    return ViewsShown(
        data=dataset.name,
        backbone=config.backbone,
        size=train.size,
        num_train=len(train),
        images=tuple(
            Shown(name, label, tuple(column[place] for column in pictures))
            for place, (name, label) in enumerate(_names(dataset, rows))
        ),
    )


def spread_rows(labels: NDArray[np.int64], num: int) -> NDArray[np.int64]:
    """Rows that take the classes in turn, in the order of the classes.

    >>> spread_rows(np.array([0, 0, 0, 1, 1, 2]), 4).tolist()
    [0, 1, 3, 5]
    """
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    turn = np.arange(len(labels)) - starts
    chosen = order[np.lexsort((labels[order], turn))][:num]
    return chosen[np.lexsort((chosen, labels[chosen]))]


def _names(dataset: Dataset, rows: NDArray[np.int64]) -> list[tuple[str, str]]:
    names, labels = dataset.names("train"), dataset.sides["train"].labels
    return [(names[row], dataset.classes[labels[row]]) for row in rows]


def _pictures(images: Images, views: torch.Tensor) -> list[bytes]:
    """Views (n, 3, size, size) as JPEG files, with the normalisation taken back."""
    mean = torch.tensor(images.mean).view(1, 3, 1, 1)
    std = torch.tensor(images.std).view(1, 3, 1, 1)
    pixels = ((views * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    found: list[bytes] = []
    for picture in pixels.permute(0, 2, 3, 1).numpy():
        packed = io.BytesIO()
        Image.fromarray(picture).save(packed, format="JPEG", quality=QUALITY)
        found.append(packed.getvalue())
    return found
