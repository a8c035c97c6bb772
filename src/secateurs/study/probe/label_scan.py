"""Improbable labels of a study's images, and near-duplicates with two labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from secateurs.fit.images import Images
from secateurs.fit.probe.labels import LabelScan, scan_labels
from secateurs.study.probe.choice import best_depth
from secateurs.study.probe.network import NetworkProbe
from secateurs.study.probe.run import Probed
from secateurs.study.setup.trial_context import Dataset

SIDES = ("train", "val")
SHOWN = 24
Record = dict[str, Any]


@dataclass(frozen=True)
class Labels:
    """What was found about labels.

    `record` is the part of a report; `rows` has every image, the least probable label first, for
    `labels.csv`.
    """

    record: Record
    rows: list[Record]


def find_labels(probed: Probed, *, shown: int = SHOWN) -> Labels:
    """Rank the labels of the training and validation images by the best probe of all.

    Training images are classified without their group, validation images by a classifier that saw
    neither them nor their group. The test images are left alone. The record has the first `shown`
    of the flagged images.
    """
    best = max(
        probed.networks,
        key=lambda one: int(one.correct(best_depth(one, probed.labels), probed.labels).sum()),
    )
    depth = best_depth(best, probed.labels)
    found = scan_labels(_probabilities(best, depth), probed.labels)
    dataset = probed.dataset
    rows = _rows(dataset, found)
    return Labels(
        {
            "backbone": best.name,
            "depth": depth,
            "place": best.row(depth)["name"],
            "num_images": len(rows),
            "num_flagged": found.num_flagged,
            "images": [row | {"thumbnail": None} for row in rows[: min(shown, found.num_flagged)]],
            "classes": _per_class(dataset, probed, found),
            "duplicates": _duplicates(dataset),
        },
        rows,
    )


def picture_of(dataset: Dataset, row: Record) -> tuple[Images, int]:
    """The images of the row's side, and the place of its image among them."""
    return dataset.sides[row["side"]], row["place"]


def _probabilities(found: NetworkProbe, depth: int) -> np.ndarray:
    scores = torch.cat([found.train_scores[depth].mean(0), found.val_scores[depth]])
    return torch.softmax(scores / found.row(depth)["temperature"], 1).numpy()


def _rows(dataset: Dataset, found: LabelScan) -> list[Record]:
    places: list[Record] = []
    for side in SIDES:
        groups = dataset.side_groups(side)
        labels = dataset.sides[side].labels
        for place, name in enumerate(dataset.names(side)):
            places.append(
                {
                    "name": name,
                    "side": side,
                    "place": place,
                    "label": dataset.classes[labels[place]],
                    "group": None if groups is None else groups[place],
                }
            )
    flagged = found.flagged
    return [
        places[k]
        | {
            "probability": round(float(found.own[k]), 4),
            "suggested": dataset.classes[found.suggested[k]],
            "suggested_probability": round(float(found.suggested_probability[k]), 4),
            "flagged": bool(flagged[k]),
        }
        for k in found.order.tolist()
    ]


def _per_class(dataset: Dataset, probed: Probed, found: LabelScan) -> list[Record]:
    flagged = found.flagged
    classes: list[Record] = []
    for label, name in enumerate(dataset.classes):
        own = probed.labels == label
        away = found.suggested[own & flagged]
        away = away[away != label]
        common = int(np.bincount(away).argmax()) if len(away) else None
        classes.append(
            {
                "class": name,
                "num_images": int(own.sum()),
                "num_flagged": int((own & flagged).sum()),
                "suggested": None if common is None else dataset.classes[common],
                "num_suggested": 0 if common is None else int((away == common).sum()),
            }
        )
    return classes


def _duplicates(dataset: Dataset) -> list[Record]:
    """Identical or look-alike images with more than one label, of any side."""
    listing, audit = dataset.audit.listing, dataset.audit
    exact = set(audit.exact)
    return [
        {
            "names": [listing.names[k] for k in group],
            "labels": [listing.classes[listing.labels[k]] for k in group],
            "identical": group in exact,
        }
        for group in audit.conflicts
    ]
