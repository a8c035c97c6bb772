"""Paths given to a command, checked before any library is loaded; a check returns its value.

The command line calls these while it parses its arguments, so that a wrong path is an error within
a moment.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from secateurs.errors import InputError

FACES = "faces"


def data_path(data: str) -> str:
    """DATA: a folder, or the word faces; InputError for anything else."""
    if data != FACES and not Path(data).exists():
        raise InputError(f"{data}: no such folder")
    if data != FACES and not Path(data).is_dir():
        raise InputError(f"{data}: not a folder; expected a folder with one folder per class")
    return data


def model_path(model: Path) -> Path:
    """MODEL: a saved model or a study that has one; InputError for anything else."""
    saved_model(model)
    return model


def saved_model(path: Path, *, pruned: bool = True) -> Path:
    """The model that a path means: a folder with model.json, that file, or a study's directory.

    Of a study it is the pruned network, or without `pruned` the one before pruning; of a study
    that pruned nothing always that. Raises InputError when there is none.
    """
    if not path.exists():
        raise InputError(f"{path}: no such model; expected a folder with model.json, or a study's")
    if path.is_file() or (path / "model.json").exists():
        return path
    if not any((path / name).exists() for name in ("study.json", "results.json")):
        raise InputError(f"{path}: neither a saved model nor a study (no model.json in it)")
    for name in ("model", "unpruned") if pruned else ("unpruned",):
        if (path / name / "model.json").exists():
            return path / name
    raise InputError(f"{path}: this study has no network yet; finish it with `secateurs study`")


def existing_paths(paths: list[Path]) -> list[Path]:
    """Files and folders; InputError for the first that does not exist."""
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    return paths


def existing_path(path: Path) -> Path:
    """A file or a folder; InputError when it does not exist."""
    return existing_paths([path])[0]


def existing_directory(path: Path) -> Path:
    """A directory to read; InputError when it does not exist, or is a file."""
    if not path.exists():
        raise InputError(f"{path}: no such directory")
    if not path.is_dir():
        raise InputError(f"{path}: expected a directory, got a file")
    return path


def group_by_path(group_by: str | None) -> str | None:
    """Groups by a regular expression, or by a CSV file, which must exist."""
    if group_by is not None and group_by.lower().endswith(".csv") and not Path(group_by).exists():
        raise InputError(f"{group_by}: no such file")
    return group_by


def weights_path(weights: str | None) -> str | None:
    """Pretrained weights: auto, none, or a file, which must exist."""
    if weights not in (None, "auto", "none") and not Path(str(weights)).is_file():
        fault = "not a regular file" if Path(str(weights)).exists() else "no such weights file"
        raise InputError(f"{weights}: {fault} (or auto, or none)")
    return weights


def output_directory(out: Path | None) -> Path | None:
    """A directory to write, which may exist; InputError when it cannot be written."""
    if out is None:
        return out
    with _usable(out):
        if _is_there(out):
            if not out.is_dir():
                raise InputError(f"{out}: expected a directory, got a file")
            _check_writable(out, out)
        else:
            _check_above(out)
    return out


def output_file(out: Path | None) -> Path | None:
    """A file to write, which may exist; InputError for a directory or an unwritable place."""
    if out is None:
        return out
    with _usable(out):
        if _is_there(out) and out.is_dir():
            raise InputError(f"{out}: expected a file to write, got a directory")
        _check_above(out)
    return out


@contextmanager
def _usable(out: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{out!s:.80}: cannot be a path ({error})") from None


def _is_there(path: Path) -> bool:
    """Whether the path exists; OSError for names that are too long and circular links."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        path.stat()
    except FileNotFoundError:
        raise InputError(f"{path}: a broken link; remove it") from None
    return True


def _check_above(out: Path) -> None:
    above = next((path for path in out.parents if _is_there(path)), None)
    if above is None:
        return
    if not above.is_dir():
        raise InputError(f"{out}: {above} is a file, not a directory")
    _check_writable(out, above)


def _check_writable(out: Path, folder: Path) -> None:
    # On Windows the answer is of a folder's read-only mark, which does not count there.
    if os.name != "nt" and not os.access(folder, os.W_OK | os.X_OK):
        where = "" if folder == out else f"{folder} is "
        raise InputError(f"{out}: {where}not writable; choose another place")
