"""What networks get wrong: the highest losses, and the pairs of classes that they confuse."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.files import atomic_path
from secateurs.study.saved.samples import THUMBNAIL_PX, thumbnail
from secateurs.study.setup.trial_context import Dataset

NUM_LOSSES = 12
NUM_PAIRS = 5
EXAMPLES = 2  # images of each pair
Record = dict[str, Any]
Tables = Mapping[str, NDArray[np.float64]]


def mistakes_record(probabilities: Tables, dataset: Dataset, side: str, out: Path) -> Record:
    """The mistakes of the last of the networks, with what the others say of the same images.

    `probabilities` (images, classes) of each network on the images of a side. Writes
    `out`/thumbnails/mistake-N.jpg for each image that the record names.
    """
    labels = dataset.sides[side].labels
    last = list(probabilities)[-1]
    p = probabilities[last]
    pictures: dict[int, str] = {}
    record: Record = {
        "network": last,
        "losses": [
            _image(row, probabilities, dataset, side, pictures)
            for row in highest_losses(p, labels, NUM_LOSSES)
        ],
        "confusions": [
            _pair(pair, probabilities, dataset, side, pictures)
            for pair in confused_pairs(p, labels, NUM_PAIRS)
        ],
    }
    for row, file in pictures.items():
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(out / file) as temporary:
            picture = thumbnail(dataset.sides[side], row, THUMBNAIL_PX)
            picture.save(temporary, format="JPEG", quality=85)
    return record


def highest_losses(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], num: int
) -> list[int]:
    """The images whose label is least probable, among those that are answered wrongly.

    >>> p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    >>> highest_losses(p, np.array([1, 1, 1]), 5)
    [0, 2]
    """
    own = probabilities[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    return wrong[np.argsort(own[wrong], kind="stable")][:num].tolist()


def confused_pairs(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], num: int
) -> list[tuple[int, int]]:
    """Pairs (true class, answer) with the most images, the most first, of classes that differ.

    >>> p = np.eye(3)[[1, 1, 0, 2]]
    >>> confused_pairs(p, np.array([0, 0, 1, 2]), 5)
    [(0, 1), (1, 0)]
    """
    num_classes = probabilities.shape[1]
    counts = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(counts, (labels, probabilities.argmax(1)), 1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[: min(num, int((counts > 0).sum()))]
    return [(int(k) // num_classes, int(k) % num_classes) for k in order]


def _pair(
    pair: tuple[int, int],
    probabilities: Tables,
    dataset: Dataset,
    side: str,
    pictures: dict[int, str],
) -> Record:
    """A confusion: the surest mistakes, each with the image of the other class it looks most like.

    That is the rightly answered image of the answered class that the network gives the true class
    the highest probability.
    """
    true, answer = pair
    labels = dataset.sides[side].labels
    p = list(probabilities.values())[-1]
    answers = p.argmax(1)
    wrong = np.flatnonzero((labels == true) & (answers == answer))
    wrong = wrong[np.argsort(-p[wrong, answer], kind="stable")]
    others = np.flatnonzero((labels == answer) & (answers == answer))
    others = others[np.argsort(-p[others, true], kind="stable")]
    return {
        "true": dataset.classes[true],
        "answer": dataset.classes[answer],
        "num_images": len(wrong),
        "num_true": int((labels == true).sum()),
        "counts": {
            when: int(((labels == true) & (table.argmax(1) == answer)).sum())
            for when, table in probabilities.items()
        },
        "mistakes": [
            _image(row, probabilities, dataset, side, pictures) for row in wrong[:EXAMPLES].tolist()
        ],
        "likest": [
            _image(row, probabilities, dataset, side, pictures)
            for row in others[:EXAMPLES].tolist()
        ],
    }


def _image(
    row: int, probabilities: Tables, dataset: Dataset, side: str, pictures: dict[int, str]
) -> Record:
    label = int(dataset.sides[side].labels[row])
    file = pictures.setdefault(row, f"thumbnails/mistake-{len(pictures)}.jpg")
    return {
        "name": dataset.names(side)[row],
        "place": row,
        "label": dataset.classes[label],
        "thumbnail": file,
        "answers": {
            when: {
                "label": dataset.classes[int(table[row].argmax())],
                "probability": round(float(table[row].max()), 4),
                "own": round(float(table[row, label]), 4),
            }
            for when, table in probabilities.items()
        },
    }
