"""Every image opened once: sizes, unusable files, duplicates, and one picture under two labels."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from secateurs.data.content_cache import Record, load_records, measure, save_records, unusable
from secateurs.data.folders import BadFile
from secateurs.data.images.decode import (
    MAX_PIXELS,
    DecodeError,
    decoding,
    open_file,
    without_warnings,
)
from secateurs.data.images.hashes import close_pairs
from secateurs.data.names import same_name
from secateurs.data.scan import Listing, scan, subset
from secateurs.data.thread_map import in_order
from secateurs.errors import InputError
from secateurs.files import fingerprint
from secateurs.progress import SILENT, Progress
from secateurs.wording import counted

# Measured on 675 photographs: no two different ones came closer than 10 bits with a thumbnail
# correlation of 0.86, while every copy re-encoded, halved, or made 20% brighter or more
# contrasty had at most 8 bits and at least 0.97.
NEAR_BITS = 10
NEAR_SIMILARITY = 0.92
SMALL_SIDE_PX = 64
FEW_IMAGES = 10
REMARKS = {
    "blank": "of nearly one colour",
    "constant": "of one colour only",
    "dark": "nearly black",
    "transparent": "transparent everywhere, read as if opaque",
}
BITS_REMARK = "in 16-bit grey with {bits} bits in use, dark as they are: scale their values first"


@dataclass(frozen=True, eq=False)
class Audit:
    """What is in a folder of images. Indices refer to `listing`, which holds the usable ones.

    `sizes` (n, 2) int64 are height and width in pixels, upright; `content_ids` (n,) uint64 are the
    first 8 bytes of the SHA-256 of each file, `pixels` the SHA-256 of each image's pixels. `exact`
    are groups of images with identical pixels, `near` pairs i < j that look similar and are not
    identical, `conflicts` the groups and pairs among them that carry more than one label. `notes`
    are the words of `records.Record.notes` for each image, `hashes` their perceptual hashes.
    """

    listing: Listing
    sizes: NDArray[np.int64]
    content_ids: NDArray[np.uint64]
    bad: tuple[BadFile, ...]
    exact: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, int], ...]
    conflicts: tuple[tuple[int, ...], ...]
    notes: tuple[tuple[str, ...], ...] = ()
    pixels: tuple[bytes, ...] = ()
    hashes: tuple[int, ...] = ()

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits over classes, names, labels, folds and the files' content."""
        return fingerprint(
            {
                "classes": self.listing.classes,
                "names": self.listing.names,
                "labels": self.listing.labels,
                "folds": self.listing.folds,
                "ids": [f"{int(value):016x}" for value in self.content_ids],
            }
        )

    @property
    def findings(self) -> tuple[str, ...]:
        """One sentence for each kind of thing that is wrong; empty when all is well."""
        names = self.listing.names
        found: list[str] = []
        if self.bad:
            kinds = Counter(bad.reason for bad in self.bad)
            listed = ", ".join(f"{count} {reason}" for reason, count in sorted(kinds.items()))
            found.append(
                f"{counted(len(self.bad), 'file')} cannot be used: {listed}"
                f" (first: {self.bad[0].name})."
            )
        if self.exact:
            num = sum(len(group) for group in self.exact)
            found.append(
                f"{num} images have identical pixels, in {counted(len(self.exact), 'group')}"
                f" (first: {_join(names, self.exact[0])})."
            )
        if self.near:
            found.append(
                f"{counted(len(self.near), 'pair')} of look-alike images"
                f" (first: {_join(names, self.near[0])})."
            )
        if self.conflicts:
            found.append(
                f"{counted(len(self.conflicts), 'group')} of identical or look-alike images"
                f" with more than one label (first: {_join(names, self.conflicts[0])})."
            )
        for label, num in zip(self.listing.classes, self.listing.per_class, strict=True):
            if num < FEW_IMAGES:
                amount = counted(num, "usable image") if num else "no usable image"
                found.append(f"Class {label} has {amount}.")
        small = np.nonzero(self.sizes.min(axis=1) < SMALL_SIDE_PX)[0]
        if len(small):
            found.append(
                f"{counted(len(small), 'image')} with a side under {SMALL_SIDE_PX} pixels"
                f" (first: {names[small[0]]})."
            )
        found += _remarks(names, self.notes)
        found += _same_but_for_case(self.listing.classes)
        found += self.listing.left_out
        return tuple(found)

    def check_classes(self) -> None:
        """Raise InputError that names the classes of which no image can be used."""
        classes = self.listing.classes
        lost = [name for name, num in zip(classes, self.listing.per_class, strict=True) if num == 0]
        if not lost:
            return
        if len(lost) == len(classes):
            what = f"no usable images: {counted(len(self.bad), 'file')} cannot be used"
        else:
            what = f"no usable image of class {', '.join(lost)}"
        first = next((bad for bad in self.bad if bad.label in lost), None)
        why = "" if first is None else f" (first: {first.name}: {first.reason}, {first.detail})"
        raise InputError(f"{self.listing.root}: {what}{why}")

    @property
    def short_classes(self) -> tuple[int, ...]:
        """The labels of the classes of which some files cannot be used."""
        names = {bad.label for bad in self.bad}
        return tuple(k for k, name in enumerate(self.listing.classes) if name in names)

    def to_json(self) -> dict[str, Any]:
        """Plain data, as under `data` in docs/results.md, plus the number of ignored files."""
        names = self.listing.names
        return {
            "num_images": len(names),
            "classes": list(self.listing.classes),
            "per_class": list(self.listing.per_class),
            "height_px": _range(self.sizes[:, 0]),
            "width_px": _range(self.sizes[:, 1]),
            "bad": [
                {"name": bad.name, "reason": bad.reason, "detail": bad.detail} for bad in self.bad
            ],
            "exact": [[names[i] for i in group] for group in self.exact],
            "near": [[names[i] for i in pair] for pair in self.near],
            "conflicts": [[names[i] for i in group] for group in self.conflicts],
            "num_ignored": self.listing.num_ignored,
            "findings": list(self.findings),
            "fingerprint": self.fingerprint,
        }


def _remarks(names: Sequence[str], notes: Sequence[tuple[str, ...]]) -> list[str]:
    """What images show, or do not show, although they can be read: a sentence for each note."""
    remarked: defaultdict[str, list[str]] = defaultdict(list)
    for name, words in zip(names, notes, strict=False):
        for word in words:
            remarked[word].append(name)
    found: list[str] = []
    for word in sorted(remarked, key=lambda word: (word not in REMARKS, word)):
        first, count = remarked[word][0], counted(len(remarked[word]), "image")
        text = REMARKS.get(word) or BITS_REMARK.format(bits=word.removesuffix("-bit"))
        found.append(f"{count} {text} (first: {first}).")
    return found


def _same_but_for_case(classes: Sequence[str]) -> list[str]:
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for name in classes:
        spellings["".join(same_name(name).casefold().split())].append(name)
    return [
        f"Classes {' and '.join(names)} differ only in case or spaces."
        for names in spellings.values()
        if len(names) > 1
    ]


def _join(names: Sequence[str], indices: Sequence[int]) -> str:
    shown = ", ".join(names[i] for i in indices[:3])
    return shown if len(indices) <= 3 else f"{shown} and {len(indices) - 3} more"


def _range(pixels: NDArray[np.int64]) -> dict[str, int | None]:
    if not len(pixels):
        return {"min": None, "median": None, "max": None}
    return {
        "min": int(pixels.min()),
        "median": int(np.sort(pixels)[(len(pixels) - 1) // 2]),
        "max": int(pixels.max()),
    }


class Sink(Protocol):
    """Takes what is made of each image that an audit decodes, so that none is decoded twice."""

    def render(self, image: Image.Image) -> Any:
        """Make of an RGB image what is to be kept; called in several threads at once."""
        ...

    def append(self, content_id: int, rendered: Any) -> None:
        """Keep it; called in the order of the listing."""
        ...


def content_id(sha256: bytes) -> int:
    """The 64-bit id of a file's content: the first 8 bytes of its SHA-256.

    >>> content_id(bytes(7) + b"\\x05" + bytes(24))
    5
    """
    return int.from_bytes(sha256[:8], "big")


def audit(
    root_or_listing: Path | Listing,
    *,
    max_pixels: int = MAX_PIXELS,
    near_bits: int = NEAR_BITS,
    cache: Path | None = None,
    workers: int | None = None,
    sink: Sink | None = None,
    progress: Progress = SILENT,
) -> Audit:
    """Open every image of a folder or listing and say what is there and what is wrong with it.

    Two images are near duplicates when their 64-bit perceptual hashes differ in at most
    `near_bits` bits and their 32 x 32 thumbnails correlate by at least 0.92: copies re-encoded,
    scaled, brightened, or cropped by a percent, and neighbouring frames of a film. More bits find
    copies that were cropped more; -1 finds none.

    What is learned of a file is remembered under `cache` by its content: a second run decodes
    nothing. `sink` is given each image that is decoded. The result does not depend on `workers`,
    the number of threads. Raises InputError as `scan` does.
    """
    listing = root_or_listing if isinstance(root_or_listing, Listing) else scan(root_or_listing)
    known = {} if cache is None else load_records(cache, max_pixels=max_pixels)

    def examine(index: int) -> tuple[Record, bool, Any]:
        path = listing.path(index)
        try:
            with open_file(path) as file:
                sha256 = hashlib.file_digest(file, "sha256").digest()
        except DecodeError as error:
            return unusable(b"", error), False, None
        except OSError as error:
            detail = error.strerror or "cannot be read"
            return unusable(b"", DecodeError(path, "unreadable", detail)), False, None
        if sha256 in known:
            return known[sha256], False, None
        try:
            with decoding(path, max_pixels=max_pixels) as found:
                rendered = None if sink is None else sink.render(found.image)
                return measure(sha256, found.image, found.notes), True, rendered
        except DecodeError as error:
            return unusable(sha256, error), False, None

    records: list[Record] = []
    # Filters are changed here once, and not by each thread.
    with (
        progress.task("audit", len(listing)) as done,
        without_warnings(),
        closing(in_order(range(len(listing)), examine, workers=workers)) as examined,
    ):
        for record, decoded, rendered in examined:
            records.append(record)
            if decoded and sink is not None:
                sink.append(content_id(record.sha256), rendered)
            done(1)
    by_content = {record.sha256: record for record in records if record.sha256}
    if cache is not None and not by_content.keys() <= known.keys():
        try:
            save_records(cache, by_content, max_pixels=max_pixels)
        except OSError as error:
            progress.note(f"{cache}: what the audit learned is not remembered ({error.strerror})")
    return _conclude(listing, records, near_bits=near_bits)


def _conclude(listing: Listing, records: Sequence[Record], *, near_bits: int) -> Audit:
    usable = [index for index, record in enumerate(records) if not record.reason]
    kept = [records[index] for index in usable]
    good = subset(listing, usable)
    same: defaultdict[bytes, list[int]] = defaultdict(list)
    for index, record in enumerate(kept):
        same[record.pixels].append(index)
    exact = tuple(tuple(group) for group in same.values() if len(group) > 1)
    near: tuple[tuple[int, int], ...] = ()
    if kept:
        pairs = close_pairs(
            np.array([record.hash for record in kept], dtype=np.uint64),
            np.stack([record.thumb for record in kept]),
            max_bits=near_bits,
            min_similarity=NEAR_SIMILARITY,
        )
        near = tuple((i, j) for i, j in pairs if kept[i].pixels != kept[j].pixels)
    return Audit(
        listing=good,
        sizes=np.array([(r.height, r.width) for r in kept], dtype=np.int64).reshape(-1, 2),
        content_ids=np.array([content_id(r.sha256) for r in kept], dtype=np.uint64),
        bad=(
            *(
                BadFile(
                    listing.names[index],
                    record.reason,
                    record.detail,
                    label=listing.classes[listing.labels[index]],
                )
                for index, record in enumerate(records)
                if record.reason
            ),
            *listing.bad,
        ),
        exact=exact,
        near=near,
        conflicts=tuple(
            group for group in (*exact, *near) if len({good.labels[i] for i in group}) > 1
        ),
        notes=tuple(record.notes for record in kept),
        pixels=tuple(record.pixels for record in kept),
        hashes=tuple(record.hash for record in kept),
    )
