"""Where networks looked on the images that they got wrong, as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from secateurs.errors import InputError
from secateurs.files import atomic_path
from secateurs.fit.grad_cam import grad_cam, last_maps
from secateurs.study.saved.samples import THUMBNAIL_PX
from secateurs.study.setup.trial_context import Dataset

DIMMED = 0.25  # of the light that is left where a network did not look
Record = dict[str, Any]


def add_maps(
    mistakes: Record,
    models: Mapping[str, torch.nn.Module],
    dataset: Dataset,
    side: str,
    out: Path,
    *,
    device: torch.device,
) -> None:
    """Show for each image of the highest losses where each network looked for its own answer.

    Writes `out`/thumbnails/mistake-map-N-NETWORK.jpg: the network's view, dimmed where it did not
    look. A network without maps of positions, such as a Vision Transformer, gets none.
    """
    rows: list[Record] = mistakes["losses"]
    images = dataset.sides[side]
    for row in rows:
        row["maps"] = {}
    if not rows:
        return
    places = np.asarray([row["place"] for row in rows])
    views = images.eval_views(places, device)
    for when, model in models.items():
        try:
            path = last_maps(model, size=images.size)
        except InputError:
            continue
        answers = [dataset.classes.index(row["answers"][when]["label"]) for row in rows]
        found = grad_cam(model, path, views, torch.tensor(answers)).cpu().numpy()
        for number, (row, place) in enumerate(zip(rows, places.tolist(), strict=True)):
            file = f"thumbnails/mistake-map-{number}-{when}.jpg"
            light = DIMMED + (1 - DIMMED) * found[number][..., None]
            pixels = np.rint(images.eval_pixels[place] * light).astype(np.uint8)
            picture = Image.fromarray(pixels).resize((THUMBNAIL_PX, THUMBNAIL_PX))
            with atomic_path(out / file) as temporary:
                picture.save(temporary, format="JPEG", quality=85)
            row["maps"][when] = file
