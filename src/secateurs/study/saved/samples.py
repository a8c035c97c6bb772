"""Sample predictions for the report: test images, right and wrong ones, as small pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from secateurs.files import atomic_path
from secateurs.fit.images import Images
from secateurs.fit.metrics import predict_logits
from secateurs.study.setup.trial_context import Dataset

NUM_SAMPLES = 24
THUMBNAIL_PX = 160


def sample_predictions(
    original: torch.nn.Module,
    pruned: torch.nn.Module,
    dataset: Dataset,
    out: Path,
    *,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Up to 24 test images spread over the classes, half of them wrong where there are enough.

    Writes `out`/thumbnails/N.jpg; each record has both networks' answers with probabilities.
    """
    images, names = dataset.sides["test"], dataset.names("test")
    views = images.eval_views(slice(None), device)
    before = predict_logits(original, views).softmax(1)
    after = predict_logits(pruned, views).softmax(1)
    labels = torch.from_numpy(images.labels)
    wrong = ((before.argmax(1) != labels) | (after.argmax(1) != labels)).numpy()
    picked = spread(images.labels, wrong, num=NUM_SAMPLES)
    samples: list[dict[str, Any]] = []
    for number, row in enumerate(picked):
        file = f"thumbnails/{number}.jpg"
        with atomic_path(out / file) as temporary:
            thumbnail(images, row, THUMBNAIL_PX).save(temporary, format="JPEG", quality=85)
        samples.append(
            {
                "name": names[row],
                "thumbnail": file,
                "true": dataset.classes[images.labels[row]],
                "before": _answer(before[row], dataset.classes),
                "after": _answer(after[row], dataset.classes),
            }
        )
    return samples


def thumbnail(images: Images, row: int, short_px: int) -> Image.Image:
    """The whole image in its own proportions, `short_px` wide or high, whichever is less.

    An image more than twice as long as wide is shown as twice as long.
    """
    height, width = (int(side) for side in images.sizes[row])
    longer = min(2.0, max(height, width) / max(1, min(height, width)))
    size = [short_px, round(short_px * longer)]
    return Image.fromarray(images.pixels[row]).resize(
        (size[0], size[1]) if height >= width else (size[1], size[0]), Image.Resampling.LANCZOS
    )


def _answer(probabilities: torch.Tensor, classes: tuple[str, ...]) -> dict[str, Any]:
    best = int(probabilities.argmax())
    return {"label": classes[best], "probability": float(probabilities[best])}


def spread(labels: np.ndarray, wrong: np.ndarray, *, num: int) -> list[int]:
    """Rows to show: half wrong, half right where possible, taking the classes in turn.

    >>> spread(np.array([0, 0, 1, 1]), np.array([True, False, False, False]), num=3)
    [0, 1, 2]
    """
    turns: dict[bool, list[int]] = {}
    for kind in (True, False):
        rows = np.flatnonzero(wrong == kind)
        rank = np.array(
            [int((labels[rows[:k]] == labels[row]).sum()) for k, row in enumerate(rows)]
        )
        turns[kind] = [int(rows[k]) for k in np.lexsort((labels[rows], rank))] if len(rows) else []
    num_wrong = min(len(turns[True]), max(num // 2, num - len(turns[False])))
    chosen = turns[True][:num_wrong] + turns[False][: num - num_wrong]
    return sorted(chosen, key=lambda row: (labels[row], row))
