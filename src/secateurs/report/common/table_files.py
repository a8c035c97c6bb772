"""A table of plain rows as CSV, Markdown or Parquet."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import atomic_path, write_text
from secateurs.report.common.direction import isolated
from secateurs.report.common.markdown import literal

Row = dict[str, Any]

FORMATS = ("markdown", "csv", "parquet")


def columns_of(rows: list[Row]) -> list[str]:
    """Every column that some row has, in the order in which they first appear.

    >>> columns_of([{"a": 1}, {"a": 2, "b": 3}])
    ['a', 'b']
    """
    return list(dict.fromkeys(name for row in rows for name in row))


def write_table(rows: list[Row], kind: str, out: Path | None) -> str:
    """Write a table to `out`, whole or not at all, or return its text when `out` is None.

    Missing values are empty in CSV and Markdown and null in Parquet; CSV and Parquet hold numbers
    in full, Markdown those with fractions to six digits. Raises InputError for another format, and
    for Parquet without a file.
    """
    if kind not in FORMATS:
        raise InputError(f"format must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, got {kind!r}")
    if kind == "parquet":
        if out is None:
            raise InputError("format parquet is not text: give --out FILE")
        require("parquet", "the format parquet")
        _write_parquet(rows, out)
        return ""
    text = csv_text(rows) if kind == "csv" else markdown_text(rows)
    if out is None:
        return text
    write_text(out, text)
    return ""


def csv_text(rows: list[Row]) -> str:
    """Rows as CSV with a header; None is empty, true and false are words.

    >>> csv_text([{"depth": 5, "best": True, "loss": None}])
    'depth,best,loss\\n5,true,\\n'
    """
    text, names = io.StringIO(), columns_of(rows)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_word(row.get(name)) for name in names] for row in rows)
    return text.getvalue()


def markdown_text(rows: list[Row]) -> str:
    """Rows as a Markdown table, padded for reading as text, numbers to the right.

    >>> print(markdown_text([{"depth": 5, "name": "a|b"}]), end="")
    | depth | name |
    | ----: | :--- |
    |     5 | a\\|b |
    """
    names = columns_of(rows)
    cells = [[_shown(row.get(name)) for name in names] for row in rows]
    right = [all(_is_number(row.get(name)) for row in rows) for name in names]
    widths = [max(4, len(name), *(len(line[k]) for line in cells)) for k, name in enumerate(names)]

    def line(words: list[str]) -> str:
        padded = [
            word.rjust(width) if to_right else word.ljust(width)
            for word, width, to_right in zip(words, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (width - 1) + ":" if to_right else ":" + "-" * (width - 1)
        for width, to_right in zip(widths, right, strict=True)
    ]
    return "\n".join([line(names), line(rule), *(line(words) for words in cells)]) + "\n"


def _word(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return literal(isolated(text))


def _write_parquet(rows: list[Row], out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {name: _arrow([row.get(name) for row in rows]) for name in columns_of(rows)}
    packed = io.BytesIO()  # by way of memory: a full disk is then an error that names the file
    pq.write_table(pa.table(arrays), packed)
    with atomic_path(out) as temporary:
        temporary.write_bytes(packed.getbuffer())


def _arrow(values: list[Any]) -> Any:
    """A column of one type: boolean, int64, float64 (also a column of nulls) or text."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return pa.array(values, pa.int64() if kinds == {int} else pa.float64())
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    return pa.array([None if value is None else str(value) for value in values], pa.string())
