"""JSON records with a checksum: what was damaged is computed again, and never believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from secateurs.errors import InputError
from secateurs.files import fingerprint, read_json, write_json

CHECKSUM = "sha256"


def write_sealed(path: Path, record: dict[str, Any]) -> None:
    """Write a record and, under "sha256", the fingerprint of all else in it."""
    write_json(path, record | {CHECKSUM: fingerprint(record)})


def read_sealed(path: Path, *, unsealed: bool = True) -> dict[str, Any] | None:
    """A record that was written by `write_sealed`; None when there is none or it is damaged.

    Records of earlier versions have no checksum, and are believed when they are records at all,
    unless `unsealed` is False.
    """
    try:
        return unseal(read_json(path), unsealed=unsealed)
    except InputError:
        return None


def unseal(found: Any, *, unsealed: bool = True) -> dict[str, Any] | None:
    """A record as `read_sealed` gives it, out of what its file holds."""
    if not isinstance(found, dict):
        return None
    record = dict(cast("dict[str, Any]", found))
    try:
        seal = record.pop(CHECKSUM, None)
        if seal is None and not unsealed:
            return None
        if seal is None:
            # The last entry may be the checksum under a damaged name.
            last = list(record.values())[-1:]
            return None if last and isinstance(last[0], str) and len(last[0]) == 64 else record
        return record if seal == fingerprint(record) else None
    except (ValueError, RecursionError):  # a number may be NaN, or have 5,000 digits
        return None
