"""Paths that a command is given, checked before any library is loaded; a check returns its value.

The command line calls these while it reads its words (`cli_options`), so that a wrong path is an
answer within a moment.
"""

from __future__ import annotations

from pathlib import Path

from secateurs.errors import InputError

FACES = "faces"


def data_path(data: str) -> str:
    """DATA: the word faces or a folder; InputError for anything else."""
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
    raise InputError(f"{path}: this study has no network yet; run `secateurs study` to its end")


def existing_paths(paths: list[Path]) -> list[Path]:
    """Files and folders; InputError for the first that is not there."""
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    return paths


def existing_path(path: Path) -> Path:
    """A file or a folder; InputError when it is not there."""
    return existing_paths([path])[0]


def existing_directory(path: Path) -> Path:
    """A directory to read; InputError when it is not there, or a file."""
    if not path.exists():
        raise InputError(f"{path}: no such directory")
    if not path.is_dir():
        raise InputError(f"{path}: expected a directory, got a file")
    return path


def group_by_path(group_by: str | None) -> str | None:
    """Groups by a regular expression, or by a CSV file, which must be there."""
    if group_by is not None and group_by.lower().endswith(".csv") and not Path(group_by).exists():
        raise InputError(f"{group_by}: no such file")
    return group_by


def weights_path(weights: str | None) -> str | None:
    """Pretrained weights by a word, or from a file, which must be there."""
    if weights not in (None, "auto", "none") and not Path(str(weights)).is_file():
        raise InputError(f"{weights}: no such weights file (or auto, or none)")
    return weights


def output_directory(out: Path | None) -> Path | None:
    """A directory to write, there already or not; InputError for a file and for a place in one."""
    if out is None:
        return out
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a directory, got a file")
    _check_above(out)
    return out


def output_file(out: Path | None) -> Path | None:
    """A file to write, there already or not; InputError for a directory and a place in a file."""
    if out is None:
        return out
    if out.is_dir():
        raise InputError(f"{out}: expected a file to write, got a directory")
    _check_above(out)
    return out


def _check_above(out: Path) -> None:
    above = next((path for path in out.parents if path.exists()), None)
    if above is not None and not above.is_dir():
        raise InputError(f"{out}: {above} is a file, not a directory")
