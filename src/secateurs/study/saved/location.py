"""Where a network to look at and its images are."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.files import read_json
from secateurs.shape import Maybe, check_shape

Record = dict[str, Any]
_KNOWN = {"data": Maybe(str, absent=True), "identity": Maybe(dict, absent=True)}


@dataclass(frozen=True)
class Location:
    """Where a network and its images are; `identity` is that of a study's images, if it is one."""

    directory: Path
    model: Path
    data: str
    identity: Record | None = None


def find_location(directory: Path, data: str | None) -> Location:
    """The unpruned network of a study, or a saved model, and its images.

    A study knows its images; those of another model must be given. Raises InputError when there is
    no model or no image at hand.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; give a study's or a saved model's")
    is_model = (directory / "model.json").exists()
    root = directory.parent if is_model else directory
    marker = root / "study.json"
    study = None
    if marker.exists():
        # Of any version: the one that goes on with the study is the one to refuse another.
        study = check_shape(read_json(marker), _KNOWN, where=str(marker))
    if not is_model and study is None:
        raise InputError(
            f"{directory}: neither a study nor a saved model (no study.json, no model.json in it)"
        )
    model = directory if is_model else directory / "unpruned"
    if not (model / "model.json").exists():
        raise InputError(
            f"{directory}: this study has no network yet; run `secateurs study` to its end"
        )
    known = study["data"] if study else None
    words = f"secateurs explore {shlex.quote(str(directory))} DATA"
    if data is None and known is None:
        raise InputError(f"{directory}: no images at hand; say where they are: {words}")
    if data is None and known != "faces" and not _is_folder(str(known)):
        raise InputError(f"{known}: the study's images are no longer there; {words}")
    identity = study["identity"] if study else None
    return Location(directory, model, data or str(known), identity)


def images_of(model: Path, data: str | None, *, command: str) -> str:
    """The images that were given, or those of the study that `model` is or belongs to.

    `command` is what the error shows with DATA behind it. Raises InputError when no image is at
    hand.
    """
    if data is not None:
        return data
    folder = model.parent if model.is_file() else model
    # A study, one of its networks, or one of those in models/.
    for root in (folder, folder.parent, folder.parent.parent):
        marker = root / "study.json"
        if marker.is_file():
            known = check_shape(read_json(marker), _KNOWN, where=str(marker))["data"]
            if known == "faces" or (known is not None and _is_folder(known)):
                return known
            if known is not None:
                raise InputError(
                    f"{known}: the study's images are no longer there; `secateurs {command} DATA`"
                )
    raise InputError(f"{model}: no images at hand; say where they are: `secateurs {command} DATA`")


def _is_folder(text: str) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a name that no system takes
        return Path(text).is_dir()
    return False
