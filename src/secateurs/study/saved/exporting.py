"""A saved network exported to a file of another format, checked on images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateurs.data.images.decode import DecodeError
from secateurs.errors import InputError
from secateurs.paths import saved_model
from secateurs.ship.checkpoint import load
from secateurs.ship.spec import ModelSpec
from secateurs.ship.targets.formats import target_of
from secateurs.study.saved.prediction import list_images, network_inputs, read_pixels

NUM_EXPORT_IMAGES = 16

Record = dict[str, Any]


def export_saved(model: Path, images: Path, out: Path) -> Record:
    """Export a saved network to the format that the ending of `out` names; see `ship.targets`.

    Checked against the network on an image, or on the first 16 of a folder that can be read.
    Raises InputError when none can, RuntimeError when the answers differ by more than 1e-4.
    """
    target = target_of(out)
    loaded = load(saved_model(model))
    example, skipped = _example(loaded.spec, images)
    check = target.write(loaded.model, loaded.spec, out, example)
    return {
        "path": str(out),
        "max_abs_difference": check.max_abs_difference,
        "num_images": len(example),
        "num_bytes": check.num_bytes,
        "skipped": skipped,
        **({} if check.note is None else {"note": check.note}),
    }


def _example(spec: ModelSpec, images: Path) -> tuple[torch.Tensor, list[str]]:
    # Inputs from the first files that can be read, and what is wrong with those passed over.
    pixels: list[NDArray[np.uint8]] = []
    skipped: list[str] = []
    for path, wrong in list_images([images]).files:
        if wrong is not None:
            skipped.append(f"{path}: {wrong}")
            continue
        try:
            pixels.append(read_pixels(spec, path))
        except DecodeError as error:
            skipped.append(str(error))
        if len(pixels) == NUM_EXPORT_IMAGES:
            break
    if not pixels:
        raise InputError(f"no image that can be read to check the export on: {skipped[0]}")
    return network_inputs(spec, pixels), skipped
