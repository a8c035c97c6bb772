"""Groups of images that belong together (one person, one sender, one film), from names or a CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from secateurs.errors import InputError


def groups_from_pattern(names: Sequence[str], pattern: str) -> tuple[str, ...]:
    r"""The group of each image: what the regular expression finds in its file name.

    The first capture group, or the whole match when there is none. Raises InputError for a broken
    expression, and for the first file name in which it finds nothing.

    >>> groups_from_pattern(["Sad/012_a.jpg", "Angry/007_b.jpg"], r"^(\d+)_")
    ('012', '007')
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--group-by {pattern!r}: not a regular expression ({error})") from None
    groups: list[str] = []
    for name in names:
        found = expression.search(PurePosixPath(name).name)
        group = found and found.group(1 if expression.groups else 0)
        if not group:
            raise InputError(
                f"--group-by {pattern!r}: finds nothing in the file name of {name};"
                " every image needs a group"
            )
        groups.append(group)
    return tuple(groups)


def groups_from_csv(names: Sequence[str], path: Path) -> tuple[str, ...]:
    """The group of each image, from a CSV file with the columns `name` and `group`.

    `name` is the path relative to the data folder. Raises InputError when the file or a column is
    missing, an image has no row, or two rows give an image different groups. Rows about other
    files are passed over, so that one CSV can serve several folders.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            rows = list(reader)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not readable as CSV ({error})") from None
    if not {"name", "group"} <= set(columns):
        raise InputError(f"{path}: expected the columns name,group, got {','.join(columns)}")
    table: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        name, group = (row["name"] or "").strip().replace("\\", "/"), (row["group"] or "").strip()
        if not name or not group:
            raise InputError(f"{path}: line {line} lacks a name or a group")
        if table.setdefault(name, group) != group:
            raise InputError(f"{path}: {name} is in two groups, {table[name]} and {group}")
    missing = [name for name in names if name not in table]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(names)} images have no row (first: {missing[0]});"
            " names are relative to the data folder"
        )
    return tuple(table[name] for name in names)


def parse_group_by(names: Sequence[str], text: str) -> tuple[str, ...]:
    """Groups from what follows `--group-by`: the path of a .csv file, or a regular expression."""
    path = Path(text)
    if path.suffix.lower() == ".csv":
        return groups_from_csv(names, path)
    return groups_from_pattern(names, text)
