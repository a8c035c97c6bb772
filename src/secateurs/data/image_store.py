"""Images decoded once into memory-mapped uint8 arrays, keyed by the files' content."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from secateurs.data.audit import NEAR_BITS, Audit, audit, content_id
from secateurs.data.images.decode import MAX_PIXELS, decoding, without_warnings
from secateurs.data.images.resolution import (
    CROP_SHARE,
    Interpolation,
    Resize,
    Working,
    eval_pixels,
    squash,
)
from secateurs.data.mapped_arrays import MappedArrays, create_arrays, map_arrays
from secateurs.data.scan import Listing, scan
from secateurs.data.thread_map import in_order
from secateurs.errors import FULL, UNUSABLE, InputError
from secateurs.files import fingerprint, sha256_file
from secateurs.progress import SILENT, Progress

__all__ = ["ImageStore", "Resize", "audit_and_store", "eval_pixels", "open_store", "squash"]

VERSION = 2


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


def open_store(
    audit: Audit,
    *,
    cache: Path,
    side: int = 256,
    crop: int = 224,
    resize: Resize = "straight",
    interpolation: Interpolation = "bilinear",
    crop_share: float = CROP_SHARE,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> ImageStore:
    """Open the store of an audit's images under `cache`, decoding them if it is not there.

    A damaged store is made again. Two processes may make the same one at once: each writes its own
    and the last stays. Raises InputError when there is no usable image, a file has changed or
    become unreadable since the audit, or the disk is full.
    """
    working = Working(side, crop, resize, interpolation, crop_share)
    if not len(audit.listing):
        raise InputError(f"{audit.listing.root}: no usable images")
    key = _key(audit, working)
    stored = _stored(audit, working, cache=cache, key=key)
    if stored is None:
        with _room(cache, working, len(audit.listing)), create_arrays(cache / "images") as arrays:
            _fill(arrays, audit, working, workers=workers, progress=progress)
            arrays.commit(key[:32])
        stored = _stored(audit, working, cache=cache, key=key)
    if stored is None:
        raise InputError(f"{cache / 'images'}: what was written there does not read back the same")
    return ImageStore(*stored, audit.sizes, audit.content_ids, key)


def audit_and_store(
    root_or_listing: Path | Listing,
    *,
    cache: Path,
    side: int = 256,
    crop: int = 224,
    resize: Resize = "straight",
    interpolation: Interpolation = "bilinear",
    crop_share: float = CROP_SHARE,
    max_pixels: int = MAX_PIXELS,
    near_bits: int = NEAR_BITS,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> tuple[Audit, ImageStore]:
    """The audit of a folder and the store of its images, decoding each file once for both.

    The same as `audit` and then `open_store`, which decode once each when nothing is remembered.
    """
    listing = root_or_listing if isinstance(root_or_listing, Listing) else scan(root_or_listing)
    working = Working(side, crop, resize, interpolation, crop_share)
    with _room(cache, working, len(listing)), create_arrays(cache / "images") as arrays:
        checked = audit(
            listing,
            max_pixels=max_pixels,
            near_bits=near_bits,
            cache=cache,
            workers=workers,
            sink=_StoreWriter(arrays, working),
            progress=progress,
        )
        # Files that an earlier audit knew were not decoded now: then the arrays have gaps.
        if arrays.ids and arrays.ids == checked.content_ids.tolist():
            arrays.commit(_key(checked, working)[:32])
    store = open_store(
        checked,
        cache=cache,
        side=side,
        crop=crop,
        resize=resize,
        interpolation=interpolation,
        crop_share=crop_share,
        workers=workers,
        progress=progress,
    )
    return checked, store


@dataclass(frozen=True)
class _StoreWriter:
    arrays: MappedArrays
    working: Working

    def render(self, image: Image.Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return self.working.render(image)

    def append(
        self, content_id: int, rendered: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    ) -> None:
        self.arrays.append(content_id, *rendered)


def _key(audit: Audit, working: Working) -> str:
    return fingerprint(
        {
            "version": VERSION,
            "pillow": PIL.__version__,
            "ids": [f"{int(value):016x}" for value in audit.content_ids],
            **working.identity(),
        }
    )


def _stored(
    audit: Audit, working: Working, *, cache: Path, key: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    shapes = working.shapes(len(audit.listing))
    return map_arrays(cache / "images", key[:32], shapes)


def _fill(
    arrays: MappedArrays, audit: Audit, working: Working, *, workers: int | None, progress: Progress
) -> None:
    listing = audit.listing
    # The audit's own limit let these through, whatever it was.
    max_pixels = max(MAX_PIXELS, int(audit.sizes.prod(axis=1).max()))

    def render(index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        path = listing.path(index)
        with decoding(path, max_pixels=max_pixels) as found:
            rendered = working.render(found.image)
        if content_id(bytes.fromhex(sha256_file(path))) != int(audit.content_ids[index]):
            raise InputError(f"{path}: changed since the audit; run again")
        return rendered

    with (
        progress.task("decode", len(listing)) as done,
        without_warnings(),
        closing(in_order(range(len(listing)), render, workers=workers)) as rows,
    ):
        for identity, rendered in zip(audit.content_ids.tolist(), rows, strict=True):
            arrays.append(identity, *rendered)
            done(1)


@contextmanager
def _room(cache: Path, working: Working, num: int) -> Generator[None]:
    # A cache that cannot be written is the user's to know and not a fault of ours.
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            needed = sum(int(np.prod(shape)) for shape in working.shapes(num)) / 2**20
            raise InputError(
                f"{cache}: no space left; {needed:.0f} MiB are needed for the decoded images"
                " (another place: --cache DIR)"
            ) from None
        if error.errno in UNUSABLE:
            raise InputError(
                f"{cache}: cannot be written to ({error.strerror}); another place: --cache DIR"
            ) from None
        raise
