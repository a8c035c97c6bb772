"""Where a command writes: the default of `--out`, and never into the images."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.paths import FACES

# Folders within a study; the study's own name says more.
_WITHIN_STUDY = ("model", "unpruned", "model.json")


def default_out(template: Path, params: dict[str, Any]) -> Path:
    """The output directory that `template` gives, with DATA and MODEL replaced by their names.

    >>> default_out(Path("models/MODEL-pruned"), {"model": Path("studies/photos/unpruned")})
    PosixPath('models/photos-pruned')
    """
    text = template.name
    for word, value in (("DATA", params.get("data")), ("MODEL", params.get("model"))):
        if word in text:
            text = text.replace(word, _name(str(value)))
    return template.with_name(text)


def _name(given: str) -> str:
    if given == FACES:
        return FACES
    place = Path(given).resolve()
    while place.name in _WITHIN_STUDY:
        place = place.parent
    if not place.name:
        raise InputError(f"{given}: gives no name for the results; give --out")
    return place.name


def check_outside(out: Path, folders: Iterable[Path]) -> None:
    """Raise InputError when `out` is one of the folders of images, or within one.

    Links are followed, and folders are compared by identity, so that another spelling of a name
    changes nothing.
    """
    there = [found for folder in folders if (found := _stat(folder)) is not None]
    place = out.resolve()
    for above in (place, *place.parents):
        own = _stat(above)
        if own is not None and any(os.path.samestat(own, one) for one in there):
            raise InputError(f"{out}: is within the folder of images {above}; choose another --out")


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat() if path.is_dir() else None
    except (OSError, ValueError):
        return None


def image_folders(params: dict[str, Any]) -> list[Path]:
    """The folders of images among the values of a command."""
    data, images = params.get("data"), params.get("images")
    found = [] if data in (None, FACES) else [Path(str(data))]
    if isinstance(images, Path):
        found.append(images)
    elif images is not None:
        found += [Path(str(one)) for one in images]
    return found
