"""Image files classified by a saved network, in batches, so that memory does not grow with them."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateurs.data.folders import image_files
from secateurs.data.images.decode import DecodeError, decode, without_warnings
from secateurs.data.thread_map import in_order
from secateurs.data.views import normalise
from secateurs.fit.metrics import predict_logits
from secateurs.fit.precision import resolve_device
from secateurs.paths import saved_model
from secateurs.progress import SILENT, Progress
from secateurs.ship.checkpoint import Loaded, load
from secateurs.ship.spec import ModelSpec
from secateurs.study.saved.confidence import Confidence, confidence_of

BATCH = 32
Record = dict[str, Any]


def predict_saved(model: Path, images: Sequence[Path], *, top: int = 3) -> Record:
    """The `top` most probable classes of each image, under "predictions"; see `predictions`.

    `model` is a saved network or a study, `images` are files and folders.
    """
    listed = list_images(images)
    return {"predictions": list(predictions(load_saved(model), listed.files, top=top))}


def load_saved(model: Path) -> Loaded:
    """A saved network, or that of a study: the pruned one where there is one."""
    return load(saved_model(model))


@dataclass(frozen=True)
class Listed:
    """Image files to classify, in order, and what is wrong with those that cannot be read.

    `notes` say what else was in the folders that someone may miss.
    """

    files: tuple[tuple[Path, str | None], ...]
    notes: tuple[str, ...]


def list_images(images: Sequence[Path]) -> Listed:
    """The files given and, in their place, the images of the folders given, as `scan` finds them.

    Raises InputError for a path that is not there and for a folder without images.
    """
    files: list[tuple[Path, str | None]] = []
    notes: list[str] = []
    for path in images:
        found = image_files(path)
        here: list[tuple[Path, str | None]] = [(file, None) for file in found.paths]
        here += [(path / bad.name, f"{bad.reason} ({bad.detail})") for bad in found.bad]
        files += sorted(here, key=lambda file: str(file[0]))
        notes += [f"{path}: {text}" for text in found.sentences]
    return Listed(tuple(files), tuple(notes))


def predictions(
    loaded: Loaded,
    files: Sequence[tuple[Path, str | None]],
    *,
    top: int = 3,
    threshold: float | None = None,
    progress: Progress = SILENT,
) -> Generator[Record]:
    """One record for each file of `list_images`, in order, made as it is asked for.

    `name` is the file, `answers` the `top` most probable classes as `label` and `probability`, in
    falling order, and `error` None; for a file that cannot be used `answers` is empty and `error`
    says why. Where a threshold is known, that of the model or the one given, `unsure` says whether
    the best answer is below it. At most a few dozen images are in memory at a time.
    """
    device = resolve_device("auto")
    network = loaded.model.to(device).eval()
    spec = loaded.spec
    confidence = confidence_of(spec)
    if threshold is not None:
        confidence = replace(confidence, threshold=threshold)

    def read(file: tuple[Path, str | None]) -> tuple[Path, NDArray[np.uint8] | str]:
        path, wrong = file
        if wrong is not None:
            return path, wrong
        try:
            return path, read_pixels(spec, path)
        except DecodeError as error:
            return path, f"{error.reason} ({error.detail})"

    waiting: list[tuple[Path, NDArray[np.uint8] | str]] = []
    with (
        progress.task("predict", len(files)) as advance,
        without_warnings(),
        closing(in_order(files, read)) as pictures,
    ):
        for place, picture in enumerate(pictures, start=1):
            waiting.append(picture)
            if len(waiting) == BATCH or place == len(files):
                yield from _answers(network, spec, waiting, top, device, confidence)
                advance(len(waiting))
                waiting = []


def _answers(
    network: torch.nn.Module,
    spec: ModelSpec,
    pictures: Sequence[tuple[Path, NDArray[np.uint8] | str]],
    top: int,
    device: torch.device,
    confidence: Confidence,
) -> list[Record]:
    usable = [pixels for _, pixels in pictures if not isinstance(pixels, str)]
    rows: Iterator[torch.Tensor] = iter(())
    if usable:
        inputs = network_inputs(spec, usable).to(device)
        logits = predict_logits(network, inputs).double()
        rows = iter((logits / confidence.temperature).softmax(1))
    found = [
        _record(path, None if isinstance(pixels, str) else next(rows), spec, top, pixels)
        for path, pixels in pictures
    ]
    if confidence.threshold is None:
        return found
    return [record | {"unsure": _is_unsure(record, confidence.threshold)} for record in found]


def _is_unsure(record: Record, threshold: float) -> bool:
    return bool(record["answers"]) and record["answers"][0]["probability"] < threshold


def _record(
    path: Path,
    probabilities: torch.Tensor | None,
    spec: ModelSpec,
    top: int,
    error: NDArray[np.uint8] | str,
) -> Record:
    name = str(path)
    if probabilities is None:
        return {"name": name, "answers": [], "error": str(error)}
    if not bool(torch.isfinite(probabilities).all()):
        return {"name": name, "answers": [], "error": "the network's output is not finite"}
    values, order = probabilities.sort(descending=True, stable=True)
    best = zip(values[:top].tolist(), order[:top].tolist(), strict=True)
    answers = [{"label": spec.classes[k], "probability": value} for value, k in best]
    return {"name": name, "answers": answers, "error": None}


def read_pixels(spec: ModelSpec, path: Path) -> NDArray[np.uint8]:
    """An image file as a network of this recipe sees it (size, size, 3), before normalisation.

    Raises DecodeError for one that cannot be used.
    """
    return spec.preprocessing.pixels(decode(path))


def network_inputs(spec: ModelSpec, pixels: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    """What a network of this recipe receives (n, 3, size, size), of what `read_pixels` gives."""
    wanted = spec.preprocessing
    return normalise(torch.from_numpy(np.stack(pixels)), mean=wanted.mean, std=wanted.std)
