"""Images decoded once into memory-mapped uint8 arrays, keyed by the files' content."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from secateurs.data.audit import Audit
from secateurs.data.decode import decode, without_warnings
from secateurs.data.ordered import in_order
from secateurs.errors import InputError
from secateurs.files import atomic_path, fingerprint
from secateurs.progress import SILENT, Progress

VERSION = 1
Resize = Literal["straight", "crop"]


@dataclass(frozen=True, eq=False)
class ImageStore:
    """The images of an audit's listing, in its order; the arrays are read from disk as needed.

    `train_view` (n, side, side, 3) holds whole images squashed to a square, `eval_view`
    (n, crop, crop, 3) what evaluation sees, both uint8 RGB; `sizes` (n, 2) the original height and
    width, `ids` (n,) the 64-bit content ids.
    """

    train_view: NDArray[np.uint8]
    eval_view: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    ids: NDArray[np.uint64]
    key: str


def squash(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """A whole image as (side, side, 3) uint8, bilinear with antialiasing.

    >>> squash(Image.new("RGB", (40, 20)), 8).shape
    (8, 8, 3)
    """
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))


def eval_pixels(image: Image.Image, *, crop: int, resize: Resize) -> NDArray[np.uint8]:
    """What evaluation sees of an image: (crop, crop, 3) uint8.

    "straight" resizes it to the square; "crop" resizes the short side to crop * 256 / 224 and
    takes the centre, as torchvision's Resize and CenterCrop do on pictures.
    """
    if resize == "straight":
        return squash(image, crop)
    if resize != "crop":
        raise InputError(f"resize must be straight or crop, got {resize!r}")
    short = crop * 256 // 224
    width, height = image.size
    if width <= height:
        size = (short, int(short * height / width))
    else:
        size = (int(short * width / height), short)
    resized = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - crop) / 2.0), round((size[1] - crop) / 2.0)
    return np.asarray(resized.crop((left, top, left + crop, top + crop)))


def open_store(
    audit: Audit,
    *,
    cache: Path,
    side: int = 256,
    crop: int = 224,
    resize: Resize = "straight",
    workers: int | None = None,
    progress: Progress = SILENT,
) -> ImageStore:
    """Open the store of an audit's images under `cache`, decoding them if it is not there.

    A damaged store is made again. Two processes may make the same one at once: each writes its own
    and the last stays. Raises InputError when a file has become unreadable since the audit, or
    the disk is full.
    """
    key = fingerprint(
        {
            "version": VERSION,
            "pillow": PIL.__version__,
            "ids": [f"{int(value):016x}" for value in audit.content_ids],
            "side": side,
            "crop": crop,
            "resize": resize,
        }
    )
    folder = cache / "images"
    paths = {"train": folder / f"{key[:32]}-{side}.npy", "eval": folder / f"{key[:32]}-eval.npy"}
    num = len(audit.listing)
    shapes = {"train": (num, side, side, 3), "eval": (num, crop, crop, 3)}
    arrays = {name: _mapped(paths[name], shapes[name]) for name in paths}
    if any(array is None for array in arrays.values()):
        _build(audit, paths, shapes, resize, workers=workers, progress=progress)
        arrays = {name: _mapped(paths[name], shapes[name]) for name in paths}
    train, evaluation = arrays["train"], arrays["eval"]
    assert train is not None, "the store was just written"
    assert evaluation is not None, "the store was just written"
    return ImageStore(train, evaluation, audit.sizes, audit.content_ids, key)


def _mapped(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    try:
        array: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _build(
    audit: Audit,
    paths: dict[str, Path],
    shapes: dict[str, tuple[int, ...]],
    resize: Resize,
    *,
    workers: int | None,
    progress: Progress,
) -> None:
    side, crop = shapes["train"][1], shapes["eval"][1]

    def render(index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        image = decode(audit.listing.path(index))
        return squash(image, side), eval_pixels(image, crop=crop, resize=resize)

    try:
        with atomic_path(paths["train"]) as train_part, atomic_path(paths["eval"]) as eval_part:
            train = _create(train_part, shapes["train"])
            evaluation = _create(eval_part, shapes["eval"])
            indices = range(len(audit.listing))
            with progress.task("decode", len(audit.listing)) as done, without_warnings():
                for index, pair in enumerate(in_order(indices, render, workers=workers)):
                    train[index], evaluation[index] = pair
                    done(1)
            train.flush()
            evaluation.flush()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        needed = sum(int(np.prod(shape)) for shape in shapes.values()) / 2**20
        raise InputError(
            f"{paths['train'].parent}: no space left; {needed:.0f} MiB are needed for the decoded "
            "images (another place: --cache DIR)"
        ) from None


def _create(path: Path, shape: tuple[int, ...]) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    # Blocks are claimed at once: writing to a mapped file on a full disk ends the process.
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as file:
        size = path.stat().st_size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
    return array
