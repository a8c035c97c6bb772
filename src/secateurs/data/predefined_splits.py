"""Trees that come split: which folders are the train, validation and test sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from secateurs.data.names import printable, same_name
from secateurs.errors import InputError

SIDES = ("train", "val", "test")
_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation", "holdout"),
}
_SIDE = {
    name + end: side for side, names in _NAMES.items() for name in names for end in ("", "set")
}
ALIKE = 0.5  # share of all sub-folder names that several "classes" have in common


def side_of(name: str) -> str | None:
    """The side that a folder's name stands for, in any case; None for every other name.

    >>> side_of("Training"), side_of("HOLD_OUT"), side_of("valid"), side_of("trains")
    ('train', 'test', 'val', None)
    """
    letters = name.strip().casefold().replace("_", "").replace("-", "").replace(" ", "")
    return _SIDE.get(letters)


def side_folders(root: Path, folders: Sequence[str]) -> dict[str, str]:
    """The folders that are sides by their names, as side -> folder; empty without a train folder.

    Beside a test folder and without a validation folder, `eval` is the validation side. Raises
    InputError when two folders are the same side, and for several sides without a train folder.
    """
    named = {name: side for name in folders if (side := side_of(name)) is not None}
    if "val" not in named.values() and list(named.values()).count("test") == 2:
        named |= {name: "val" for name in named if name.strip().casefold().startswith("eval")}
    found: dict[str, str] = {}
    for name, side in named.items():
        if side in found and "train" in named.values():
            one, other = printable(found[side]), printable(name)
            raise InputError(f"{root}: {one} and {other} are the same fold; keep one")
        found[side] = name
    if "train" in found and len(found) > 1:
        return {side: found[side] for side in SIDES if side in found}
    return {}


def refuse_sides_without_train(root: Path, folders: Sequence[str]) -> None:
    """Raise InputError when all of a tree's folders are sides by name, and none is for training."""
    if len(folders) > 1 and all(side_of(name) in ("val", "test") for name in folders):
        raise InputError(
            f"{root}: {', '.join(map(printable, folders))} are sides of a split and there is no"
            " train folder; expected one folder per class, or train and test folders"
        )


def refuse_same_folders(root: Path, inner: Mapping[str, Sequence[str]]) -> None:
    """Raise InputError when the "classes" of a tree are no classes but parts with the same ones.

    `inner` has the path of each image within its class folder. Classes look the same when none has
    images of its own beside sub-folders, and at least two names of sub-folders, and half of all of
    them, are in every class.
    """
    names: list[set[str]] = []
    for paths in inner.values():
        if any("/" not in path for path in paths):
            return
        names.append({same_name(path.partition("/")[0]) for path in paths})
    if len(names) < 2:
        return
    common, every = set.intersection(*names), set.union(*names)
    if len(common) >= 2 and len(common) >= ALIKE * len(every):
        if all(side_of(name) for name in common):
            raise InputError(
                f"{root}: every class has folders {' and '.join(map(printable, sorted(common)))} of"
                " its own; expected the other way round, one folder per class in each of these"
                " (or split all images anew: --split random)"
            )
        shown = [printable(name) for name in sorted(common)]
        listed = ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "")
        raise InputError(
            f"{root}: the folders {', '.join(map(printable, inner))} all hold the same sub-folders"
            f" ({listed}), which are classes as it seems; expected one folder per class, or such"
            " folders in train and test (if the outer ones are the classes: --split random)"
        )
