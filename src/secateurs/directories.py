"""Output directories: which command they belong to, leftovers of killed runs, overwriting."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path

from secateurs.errors import InputError
from secateurs.leases import held_elsewhere
from secateurs.leftovers import is_temporary, sweep

# What systems put into empty folders: `lost+found` is in every new disk that is mounted.
EXTRAS = frozenset({".DS_Store", "desktop.ini", "Thumbs.db", ".secateurs.lock", "lost+found"})
CONFIG = "config.toml"  # the options of the command; a user may put it there before the first run

INSTEAD = "choose another directory, or give --overwrite"

_MODEL = ("model.json", "model.safetensors", "model.onnx", "model.pt2", "README.md")
_INT8 = "int8.onnx"
_LOGS = (
    *("tensorboard/*/events.out.tfevents.*", "tensorboard/*/key.txt", "tensorboard/.lock"),
    *("mlflow/mlflow.db", "mlflow/.lock"),
)
_TRIALS = (
    *("trials/*.json", "trials/*.safetensors", "trials/*.lock", "trials/*.lease", "trials/*.log"),
    *("frozen/*.bin", *_LOGS),
)
_LEDGER = ("ledger.csv", "ledger.parquet")
_STUDY = (
    *(
        "results.json",
        "report.html",
        "labels.csv",
        "thumbnails/*.jpg",
        "thumbnails/*.webp",
        "stages/*.json",
    ),
    *("stages/*.safetensors", *(f"probe/*.{kind}" for kind in ("json", "safetensors", "lock"))),
    *(f"models/*/{name}" for name in (*_MODEL, _INT8)),
    *(f"{folder}/{name}" for folder in ("model", "unpruned") for name in (*_MODEL, _INT8)),
    *(*_LEDGER, *_TRIALS),
)
_SEARCH = ("search.json", "search.csv", "search.html", *_TRIALS)
# What each command writes, the file that marks its directory last: until that is removed, a
# deletion that was stopped in the middle can be repeated.
OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "study": (*_STUDY, "study.json"),
    "search": (*_SEARCH, "plan.json"),
    "paper": (
        *("paper.json", "paper.html", "stages/*.json", *_TRIALS),
        *(f"apart/{name}" for name in (*_STUDY, "study.json")),
        *(f"search/{name}" for name in (*_SEARCH, "plan.json")),
        "paper.plan.json",
    ),
    "probe": (
        *("probe/*.json", "probe/*.safetensors", "probe/*.lock"),
        *("probe.html", "labels.csv", "thumbnails/*.jpg", "probe.json"),
    ),
    "compare": ("comparison.html", "thumbnails/compared-*.jpg", "comparison.json"),
    "show": ("show.html",),
    "trust": ("trust.html", "thumbnails/mistake-*.jpg", "trust.json"),
    "grid": ("grid.csv", "grid.html", "grid.json"),
    "train": (*_MODEL, *_TRIALS, "training.json"),
    "prune": (
        *(*_MODEL, *_LEDGER, "units.csv", "pruning.html", "recovery.state.safetensors"),
        "pruning.json",
    ),
}


def open_output(out: Path, *, marker: str, kind: str, early: Collection[str] = ()) -> None:
    """Check that `out` is new, empty or a directory of this kind, and sweep what was left in it.

    A directory is of its kind when it has the file `marker`. `early` are names of files and folders
    that a run writes before the marker, so that one killed between them can go on. What killed runs
    have left half written is removed (see `sweep`). Raises InputError when `out` is a file, cannot
    be read, or holds anything else.
    """
    try:
        if out.is_symlink() and not out.exists():
            raise InputError(f"{out}: a broken link; remove it")
        if not out.exists():
            return
        if not out.is_dir():
            raise InputError(f"{out}: expected a directory, got a file")
        known = {marker, *early, *EXTRAS, CONFIG}
        names = {path.name for path in out.iterdir() if not is_temporary(path.name)}
    except OSError as error:
        raise InputError(f"{out}: cannot be used ({error.strerror}); choose another") from None
    if marker not in names and names - known:
        raise InputError(f"{out}: not empty and not {kind}; choose a new directory")
    sweep(out)


def sweep_output(out: Path) -> None:
    """Sweep a directory that a model is written to, which may hold anything else but a study.

    Only what names its process is removed, and only where a model is written. Raises InputError
    for the directory of a study, a search or a run of the paper, whose files it would mix with.
    """
    for kind, what in (
        ("study", "a study"),
        ("search", "a search"),
        ("paper", "a run of the paper"),
    ):
        if (out / OUTPUTS[kind][-1]).exists():
            raise InputError(f"{out}: is the directory of {what}; choose another --out")
    for folder in (out, out / "trials"):
        sweep(folder, deep=False, unnamed=False)


def clear_output(out: Path, kind: str) -> None:
    """Delete what an earlier run of a command has written to `out`; all other files stay.

    `kind` is a key of `OUTPUTS`. Nothing is deleted in a directory without the file that marks it
    as such an output, and nothing through a link to another folder. Raises InputError, with
    nothing deleted, when a folder in `out` is such a link, or another process is at work there.
    """
    *patterns, marker = OUTPUTS[kind]
    if not (out / marker).is_file():
        return
    folders = [found for folder in _folders(patterns) for found in sorted(out.glob(folder))]
    for folder in folders:
        if folder.is_symlink():
            raise InputError(f"{folder}: a link; --overwrite deletes nothing through links")
    held = [*filter(_is_held, out.glob("trials/*.lock"))]
    for _ in held or filter(held_elsewhere, out.glob("trials/*.lease")):
        raise InputError(f"{out}: another process is at work here; wait for it, or stop it")
    for pattern in (*patterns, marker):
        for path in out.glob(pattern):
            if path.is_symlink() or path.is_file():
                path.unlink(missing_ok=True)
    for folder in reversed(folders):
        with contextlib.suppress(OSError):  # it holds other files, or is none
            folder.rmdir()


def _folders(patterns: Collection[str]) -> list[str]:
    """The folders of these files, each after those that it is in."""
    found = {parent.as_posix() for pattern in patterns for parent in Path(pattern).parents} - {"."}
    return sorted(found)


def _is_held(lock: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
