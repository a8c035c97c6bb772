"""Directories that a command writes into: whose they are, and what killed runs left in them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from secateurs.errors import InputError
from secateurs.leftovers import is_temporary, sweep

# What systems put into empty folders: `lost+found` is in every new disk that is mounted.
EXTRAS = frozenset({".DS_Store", "desktop.ini", "Thumbs.db", ".secateurs.lock", "lost+found"})


def open_output(out: Path, *, marker: str, kind: str, early: Collection[str] = ()) -> None:
    """Check that `out` is new, empty or a directory of this kind, and sweep what was left in it.

    A directory is of its kind when it has the file `marker`. `early` are names of files and folders
    that a run writes before the marker, so that one killed between them can go on. What killed runs
    have left half written is removed (see `sweep`). Raises InputError when `out` is a file, cannot
    be read, or holds anything else.
    """
    try:
        if out.is_symlink() and not out.exists():
            raise InputError(f"{out}: a link that leads nowhere; remove it")
        if not out.exists():
            return
        if not out.is_dir():
            raise InputError(f"{out}: expected a directory, got a file")
        known = {marker, *early, *EXTRAS}
        names = {path.name for path in out.iterdir() if not is_temporary(path.name)}
    except OSError as error:
        raise InputError(f"{out}: cannot be used ({error.strerror}); choose another") from None
    if marker not in names and names - known:
        raise InputError(f"{out}: not empty and not {kind}; choose a new directory")
    sweep(out)


def sweep_output(out: Path) -> None:
    """Sweep a directory that a model is written to, which may hold anything else as well.

    Only what names its process is removed, and only where a model is written.
    """
    for folder in (out, out / "trials"):
        sweep(folder, deep=False, unnamed=False)
