"""What an audit keeps of each file's content, remembered between runs so that none is decoded."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from secateurs.data.images import hashes
from secateurs.data.images.decode import DecodeError
from secateurs.data.images.modes import tone_notes
from secateurs.files import atomic_path, fingerprint

VERSION = 2
MAX_FILES = 32  # record files kept in a cache, the newest


@dataclass(frozen=True, eq=False)
class Record:
    """One file's content: either an image's measures, or the reason why it is none.

    `sha256` (32 bytes) is of the file, `pixels` (32 bytes) of the decoded RGB image; `thumb` is
    (32, 32, 3) uint8. `notes` are those of `decode.Decoded` and of `native.tone_notes`. An unusable
    file has a `reason` and zeros.
    """

    sha256: bytes
    height: int
    width: int
    pixels: bytes
    hash: int
    thumb: NDArray[np.uint8]
    reason: str = ""
    detail: str = ""
    notes: tuple[str, ...] = ()


def measure(sha256: bytes, image: Image.Image, notes: tuple[str, ...] = ()) -> Record:
    """The record of a decoded RGB image, with the `notes` of its decoding."""
    thumb = hashes.thumbnail(image)
    return Record(
        sha256=sha256,
        height=image.height,
        width=image.width,
        pixels=hashes.pixel_digest(image),
        hash=hashes.perceptual_hash(thumb),
        thumb=thumb,
        notes=(*notes, *tone_notes(image)),
    )


def unusable(sha256: bytes, error: DecodeError) -> Record:
    """The record of a file that cannot be decoded."""
    side = hashes.THUMBNAIL_SIDE
    blank = np.zeros((side, side, 3), dtype=np.uint8)
    return Record(sha256, 0, 0, bytes(32), 0, blank, error.reason, error.detail)


def _prefix(max_pixels: int) -> str:
    # Another Pillow may decode to other pixels, another limit refuse other files.
    setting = {"version": VERSION, "pillow": PIL.__version__, "max_pixels": max_pixels}
    return fingerprint(setting)[:12]


def load_records(cache: Path, *, max_pixels: int) -> dict[bytes, Record]:
    """All records of earlier audits with this limit, by SHA-256; damaged files are passed over."""
    known: dict[bytes, Record] = {}
    for path in sorted((cache / "audit").glob(f"{_prefix(max_pixels)}-*.npz")):
        # A file may be damaged, or removed by another process in this moment.
        with contextlib.suppress(Exception):
            known.update(_read(path))
    return known


def _read(path: Path) -> dict[bytes, Record]:
    # Opened here, since np.load leaves a file that it cannot read open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        table = {name: arrays[name] for name in arrays.files}
    found: dict[bytes, Record] = {}
    for row in range(len(table["sha256"])):
        record = Record(
            sha256=table["sha256"][row].tobytes(),
            height=int(table["size"][row, 0]),
            width=int(table["size"][row, 1]),
            pixels=table["pixels"][row].tobytes(),
            hash=int(table["hash"][row]),
            thumb=table["thumb"][row],
            reason=str(table["reason"][row]),
            detail=str(table["detail"][row]),
            notes=tuple(str(table["notes"][row]).split()),
        )
        found[record.sha256] = record
    return found


def save_records(cache: Path, records: Mapping[bytes, Record], *, max_pixels: int) -> None:
    """Remember these records, in one file named by their content, written whole or not at all."""
    rows = [records[sha] for sha in sorted(records)]
    if not rows:
        return
    digest = hashlib.sha256(b"".join(row.sha256 for row in rows)).hexdigest()[:32]
    folder = cache / "audit"
    path = folder / f"{_prefix(max_pixels)}-{digest}.npz"
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            sha256=_bytes(row.sha256 for row in rows),
            size=np.array([(row.height, row.width) for row in rows], dtype=np.int64),
            pixels=_bytes(row.pixels for row in rows),
            hash=np.array([row.hash for row in rows], dtype=np.uint64),
            thumb=np.stack([row.thumb for row in rows]),
            reason=np.array([row.reason for row in rows], dtype=np.str_),
            detail=np.array([row.detail for row in rows], dtype=np.str_),
            notes=np.array([" ".join(row.notes) for row in rows], dtype=np.str_),
        )
    # Another process may be removing the same files.
    with contextlib.suppress(OSError):
        stored = sorted(folder.glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
        for path in stored[:-MAX_FILES]:
            path.unlink(missing_ok=True)


def _bytes(values: Iterable[bytes]) -> NDArray[np.uint8]:
    return np.stack([np.frombuffer(value, dtype=np.uint8) for value in values])
