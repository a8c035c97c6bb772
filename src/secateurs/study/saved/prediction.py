"""Image files classified by a saved network, in batches, so that memory does not grow with them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs.data.folders import image_files
from secateurs.data.images.decode import DecodeError, without_warnings
from secateurs.data.thread_map import in_order
from secateurs.progress import SILENT, Progress
from secateurs.study.saved.prediction_model import (
    Classifier,
    Pixels,
    network_inputs,
    open_classifier,
    read_pixels,
)

__all__ = ["list_images", "network_inputs", "predict_saved", "predictions", "read_pixels"]

BATCH = 32
Record = dict[str, Any]


def predict_saved(model: Path, images: Sequence[Path], *, top: int = 3) -> Record:
    """The `top` most probable classes of each image, under "predictions"; see `predictions`.

    `model` is a saved network, a study or an exported file, `images` are files and folders.
    """
    listed = list_images(images)
    return {"predictions": list(predictions(open_classifier(model), listed.files, top=top))}


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
    classifier: Classifier,
    files: Sequence[tuple[Path, str | None]],
    *,
    top: int = 3,
    progress: Progress = SILENT,
) -> Generator[Record]:
    """One record for each file of `list_images`, in order, made as it is asked for.

    `name` is the file, `answers` the `top` most probable classes as `label` and `probability`, in
    falling order, and `error` None; for a file that cannot be used `answers` is empty and `error`
    says why. Where a threshold is known `unsure` says whether the best answer is below it. At most
    a few dozen images are in memory at a time.
    """

    def read(file: tuple[Path, str | None]) -> tuple[Path, Pixels | str]:
        path, wrong = file
        if wrong is not None:
            return path, wrong
        try:
            return path, read_pixels(classifier.spec, path)
        except DecodeError as error:
            return path, f"{error.reason} ({error.detail})"

    waiting: list[tuple[Path, Pixels | str]] = []
    with (
        progress.task("predict", len(files)) as advance,
        without_warnings(),
        closing(in_order(files, read)) as pictures,
    ):
        for place, picture in enumerate(pictures, start=1):
            waiting.append(picture)
            if len(waiting) == BATCH or place == len(files):
                yield from _records(classifier, waiting, top)
                advance(len(waiting))
                waiting = []


def _records(
    classifier: Classifier, pictures: Sequence[tuple[Path, Pixels | str]], top: int
) -> list[Record]:
    usable = [pixels for _, pixels in pictures if not isinstance(pixels, str)]
    rows = iter(classifier.probabilities(usable) if usable else ())
    found: list[Record] = []
    for path, pixels in pictures:
        if isinstance(pixels, str):
            said = classifier.refused(pixels)
        else:
            said = classifier.answer(next(rows), top=top)
        found.append({"name": str(path), **said})
    return found
