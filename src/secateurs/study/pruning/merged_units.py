"""What merged: some survivors, the units nearest to them, and the images that excite each most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateurs.files import atomic_path
from secateurs.prune.selection.pairwise import Selection
from secateurs.prune.similarity.normalise import Normalise
from secateurs.study.saved.samples import thumbnail
from secateurs.study.setup.trial_context import Dataset

NUM_GROUPS = 12
NUM_NEAREST = 4
NUM_IMAGES = 6
THUMBNAIL_PX = 96


@dataclass(frozen=True)
class Excited:
    """A unit and the images that excite it most, strongest first."""

    unit: int
    angle_deg: float  # to the survivor of its group; 0 for the survivor itself
    rows: tuple[int, ...]  # of the activations
    activations: tuple[float, ...]


@dataclass(frozen=True)
class Group:
    """A survivor and those that it stands for; the first of `units` is the survivor itself.

    After it come the nearest of the others and, where there are more, the farthest.
    """

    num_merged: int
    angle_deg_median: float
    angle_deg_max: float
    units: tuple[Excited, ...]


@dataclass(frozen=True)
class Merged:
    """Some of a layer's groups, the largest first, and how many there are in all."""

    num_groups: int
    num_merged: int
    num_images: int
    groups: tuple[Group, ...]


def merged_groups(
    activations: Tensor,
    selection: Selection,
    *,
    num_groups: int = NUM_GROUPS,
    num_nearest: int = NUM_NEAREST,
    num_images: int = NUM_IMAGES,
) -> Merged:
    """Up to `num_groups` groups of a selection, from the largest to the smallest in even steps.

    `activations` is (images, units). A unit that points the opposite way is as near as one that
    points the same way. Images that leave a unit at its least activation are not among those that
    excite it, so that a unit that fires on two images has two.

    >>> from secateurs.prune.selection.pairwise import pairwise
    >>> x = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.1, 3.0, 0.0]])
    >>> found = merged_groups(x, pairwise(x, normalise="none"))
    >>> found.num_groups, [unit.unit for unit in found.groups[0].units]
    (1, [0, 1])
    """
    known = (selection.parent >= 0).cpu()
    removed = selection.removed.cpu()[known]
    parent = selection.parent.cpu()[known]
    angle = selection.angle_deg.cpu()[known]
    survivors, counts = torch.unique(parent, return_counts=True)
    # The largest first; ties go to the lower index.
    order = torch.argsort(counts, descending=True, stable=True)
    steps = np.linspace(0, len(order) - 1, min(num_groups, len(order))).round().astype(int)
    groups: list[Group] = []
    for survivor in survivors[order[steps.tolist()]].tolist():
        mine = parent == survivor
        units, angles = removed[mine], angle[mine]
        apart = torch.minimum(angles, 180 - angles)  # from the survivor's line, either way
        by_angle = torch.argsort(apart, stable=True).tolist()
        shown = by_angle[:num_nearest] + by_angle[num_nearest:][-1:]
        pairs = [(survivor, 0.0), *((int(units[k]), float(angles[k])) for k in shown)]
        groups.append(
            Group(
                num_merged=len(units),
                angle_deg_median=float(apart.median()),
                angle_deg_max=float(apart.max()),
                units=tuple(_excited(activations[:, u], u, deg, num_images) for u, deg in pairs),
            )
        )
    return Merged(len(survivors), len(removed), len(activations), tuple(groups))


def _excited(column: Tensor, unit: int, angle_deg: float, num_images: int) -> Excited:
    column = column.float().cpu()
    value, row = column.sort(descending=True, stable=True)
    above = value[:num_images] > column.amin()
    rows, values = row[:num_images][above], value[:num_images][above]
    return Excited(unit, angle_deg, tuple(rows.tolist()), tuple(values.tolist()))


def merged_record(
    layers: Sequence[tuple[str, Merged]],
    dataset: Dataset,
    out: Path,
    *,
    normalise: Normalise,
    side: str = "train",
) -> dict[str, Any] | None:
    """What merged in each layer, as `docs/results.md` describes it; None when no unit did.

    `layers` are names with what was found on the images of `side`, and `normalise` what was done
    with the activations before angles were measured. Each image that is shown is
    written once, to `out`/thumbnails/merged-N.webp.
    """
    images, names = dataset.sides[side], dataset.names(side)
    places: dict[int, int] = {}  # row of an image: its number among the pictures
    records = [
        {
            "layer": name,
            "num_groups": merged.num_groups,
            "num_merged": merged.num_merged,
            "groups": [_group_record(group, places) for group in merged.groups],
        }
        for name, merged in layers
        if merged.groups
    ]
    if not records:
        return None
    pictures: list[dict[str, Any]] = []
    for row, number in places.items():
        file = f"thumbnails/merged-{number}.webp"
        with atomic_path(out / file) as temporary:
            thumbnail(images, row, THUMBNAIL_PX).save(temporary, format="WEBP", quality=72)
        true = dataset.classes[images.labels[row]]
        pictures.append({"name": names[row], "thumbnail": file, "true": true})
    return {
        "side": side,
        "normalise": normalise,
        "num_images": layers[0][1].num_images,
        "layers": records,
        "pictures": pictures,
    }


def _group_record(group: Group, places: dict[int, int]) -> dict[str, Any]:
    return {
        "num_merged": group.num_merged,
        "angle_deg_median": group.angle_deg_median,
        "angle_deg_max": group.angle_deg_max,
        "units": [
            {
                "unit": one.unit,
                "angle_deg": one.angle_deg,
                "pictures": [places.setdefault(row, len(places)) for row in one.rows],
                "activations": list(one.activations),
            }
            for one in group.units
        ],
    }
