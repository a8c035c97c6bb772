"""The directory of a study: opened, and found again when its study.json was lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateurs.directories import INSTEAD, open_output
from secateurs.errors import InputError
from secateurs.files import read_json
from secateurs.shape import check_record
from secateurs.study.records.kinds import STUDY, STUDY_SCHEMA

MARKER = "study.json"
# What a study writes beside its marker; `WORK` are the folders with what can be resumed.
PARTS = (
    *("results.json", "report.html", "labels.csv", "ledger.csv", "ledger.parquet"),
    *("thumbnails", "models", "model", "unpruned", "frozen", "tensorboard", "mlflow"),
)
WORK = ("stages", "trials", "probe")


def open_study(out: Path, *, kind: str | None) -> None:
    """Check that `out` is new, empty or a study, also one whose study.json was lost.

    `kind` is what results.json says of such studies: "frontier", or None for one network. Raises
    InputError for anything else.
    """
    lost = not (out / MARKER).exists() and any((out / name).is_dir() for name in WORK)
    open_output(out, marker=MARKER, kind="a study", early=(*PARTS, *WORK) if lost else ())
    if not lost or not (out / "results.json").is_file():
        return
    try:
        found = read_json(out / "results.json")
    except InputError:
        return  # it is written again
    if isinstance(found, dict) and found.get("kind") != kind:  # pyright: ignore[reportUnknownMemberType]
        raise InputError(f"{out}: holds another kind of study; {INSTEAD}")


def read_study(out: Path) -> dict[str, Any]:
    """The record study.json of a study.

    Raises InputError when it is damaged, with what to do, and when another version wrote it.
    """
    path = out / MARKER
    try:
        found = read_json(path)
    except InputError:
        found = None
    if not isinstance(found, dict):
        raise InputError(
            f"{path}: damaged; delete this file to resume with what the directory holds, or give "
            "--overwrite to begin again"
        )
    return check_record(found, STUDY, schema=STUDY_SCHEMA, where=str(path), what="a study")
