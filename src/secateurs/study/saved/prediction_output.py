"""Predictions written as lines for people, CSV, JSON lines or one JSON object, as they come."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from secateurs.data.names import escaped, printable
from secateurs.errors import InputError

FORMATS = ("text", "csv", "jsonl", "json")
Record = dict[str, Any]


def format_of(name: str | None, out: Path | None) -> str:
    """The format asked for, else that of the file's ending, else text.

    >>> format_of(None, Path("answers.csv")), format_of("json", None), format_of(None, None)
    ('csv', 'json', 'text')
    """
    if name is not None and name not in FORMATS:
        raise InputError(f"--format must be one of {', '.join(FORMATS)}, got {name!r}")
    ending = "" if out is None else out.suffix.lower().removeprefix(".")
    return name or (ending if ending in FORMATS else "text")


def write_predictions(rows: Iterable[Record], file: TextIO, *, kind: str, top: int) -> int:
    """Write the records of `predict.predictions` to an open file; return how many have an error.

    Nothing is kept of a record once it is written.
    """
    write = {"text": _text, "csv": _csv, "jsonl": _json_lines, "json": _json}[kind]
    counter = _Counter(rows)
    write(counter, file, top)
    return counter.num_errors


class _Counter:
    """Passes records on and counts those with an error."""

    def __init__(self, rows: Iterable[Record]) -> None:
        self._rows, self.num_errors = rows, 0

    def __iter__(self) -> Any:
        for row in self._rows:
            self.num_errors += row["error"] is not None
            yield row | {"name": escaped(row["name"])}


def _text(rows: Iterable[Record], file: TextIO, top: int) -> None:
    for row in rows:
        answers = (f"{a['label']} {a['probability']:.1%}" for a in row["answers"])
        said = ", ".join(answers) if row["error"] is None else f"error: {row['error']}"
        if row.get("unsure"):
            said = f"does not know ({said})"
        print(printable(f"{row['name']}: {said}"), file=file)


def _csv(rows: Iterable[Record], file: TextIO, top: int) -> None:
    writer = csv.writer(file, lineterminator="\n")
    places = ["", *(f"_{place}" for place in range(2, top + 1))]
    head = [f"{word}{place}" for place in places for word in ("label", "probability")]
    first = True
    for row in rows:
        # Where a threshold is known every row says whether its answer is below it.
        known = "unsure" in row
        if first:
            writer.writerow(["name", *head, "error", *(["unsure"] if known else [])])
            first = False
        cells = [value for a in row["answers"] for value in (a["label"], f"{a['probability']:.6g}")]
        cells += [""] * (len(head) - len(cells))
        unsure = [str(row["unsure"]).lower()] if known else []
        writer.writerow([row["name"], *cells, row["error"] or "", *unsure])
    if first:
        writer.writerow(["name", *head, "error"])


def _json_lines(rows: Iterable[Record], file: TextIO, top: int) -> None:
    for row in rows:
        print(json.dumps(row, ensure_ascii=False, allow_nan=False), file=file)


def _json(rows: Iterable[Record], file: TextIO, top: int) -> None:
    file.write('{"predictions": [')
    for number, row in enumerate(rows):
        file.write(", " * (number > 0) + json.dumps(row, ensure_ascii=False, allow_nan=False))
    file.write("]}\n")
