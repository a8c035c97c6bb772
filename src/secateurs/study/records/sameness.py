"""Whether an output directory holds the result of the same request, which may be made again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secateurs.directories import INSTEAD
from secateurs.errors import InputError
from secateurs.files import read_json
from secateurs.paths import FACES
from secateurs.shape import check_shape
from secateurs.study.records.kinds import odd_keys


def shown_place(data: str) -> str:
    """Images as a record names them: the whole path of a folder, or faces.

    >>> shown_place("faces")
    'faces'
    """
    return data if data == FACES else str(Path(data).resolve())


def refuse_other(path: Path, config: Mapping[str, Any], kind: str) -> None:
    """Raise InputError when the record `path` is there and says another configuration.

    `kind` names the record in words, such as "a probe". What the record does not say, because an
    earlier version wrote it, is not compared.
    """
    if not path.is_file():
        return
    old = _read(path)["config"]
    for name, value in config.items():
        if name in old and old[name] != value:
            raise InputError(
                f"{path.parent}: holds {kind} with {name} {old[name]!r}, not {value!r}; {INSTEAD}"
            )


def refuse_other_images(path: Path, identity: Mapping[str, Any], kind: str) -> None:
    """Raise InputError when the record `path` is there and is of other images, or split otherwise.

    `identity` is a dataset's.
    """
    if not path.is_file():
        return
    old = _read(path).get("identity")
    if old is not None and (odd := odd_keys(old, identity)):
        raise InputError(f"{path.parent}: holds {kind} of other {' and '.join(odd)}; {INSTEAD}")


def _read(path: Path) -> dict[str, Any]:
    try:
        return check_shape(read_json(path), {"config": dict}, where=str(path))
    except InputError:
        raise InputError(f"{path}: damaged; {INSTEAD}") from None
