"""Groups of images that belong together (one person, one sender, one film), from names or a CSV."""

from __future__ import annotations

import csv
import io
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from secateurs.data.names import same_name
from secateurs.errors import InputError
from secateurs.files import read_regular
from secateurs.limited_process import bounded, can_fork

MAX_BYTES = 2**28  # of a CSV file
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
TABLES = (".csv", ".tsv")
MATCHING_SECONDS = 10.0  # for all file names; an ordinary expression takes milliseconds
MATCHING_MIB = 512
REPEATS, CHOICES = "*+{", "?|"  # of regular expressions


def groups_from_pattern(names: Sequence[str], pattern: str) -> tuple[str, ...]:
    r"""The group of each image: what the regular expression finds in its file name.

    The first capture group, or the whole match when there is none. Raises InputError for a broken
    expression, for the first file name in which it finds nothing, and when matching takes longer
    than ten seconds, as nested repeats such as (a+)+ can: it is done in a process of its own.

    >>> groups_from_pattern(["Sad/012_a.jpg", "Angry/007_b.jpg"], r"^(\d+)_")
    ('012', '007')
    """
    try:
        expression = re.compile(same_name(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(
            f"--group-by {reprlib.repr(pattern)}: not a regular expression ({error})"
        ) from None
    groups: list[str] = []
    for name, group in zip(names, _matches(expression, names, pattern), strict=True):
        if not group:
            raise InputError(
                f"--group-by {pattern!r}: finds nothing in the file name of {name};"
                " every image needs a group"
            )
        groups.append(group)
    return tuple(groups)


def _matches(expression: re.Pattern[str], names: Sequence[str], pattern: str) -> list[str | None]:
    def match_all() -> list[str | None]:
        found = (expression.search(same_name(PurePosixPath(name).name)) for name in names)
        which = 1 if expression.groups else 0
        return [match and match.group(which) for match in found]

    if _is_simple(pattern) or not can_fork():
        return match_all()
    try:
        return bounded(match_all, seconds=MATCHING_SECONDS, mib=MATCHING_MIB)
    except (TimeoutError, MemoryError) as error:
        raise InputError(
            f"--group-by {pattern!r}: matching the file names takes {error};"
            " use an expression without nested repeats such as (a+)+"
        ) from None


def _is_simple(pattern: str) -> bool:
    """Whether an expression has one repeat at most, and nothing else to try in more than one way.

    Matching one file name then takes at most about as many steps as the square of its length: no
    process of its own is needed, which takes long to start from one that holds a large network.
    """
    return sum(map(pattern.count, REPEATS)) <= 1 and not any(map(pattern.count, CHOICES))


def groups_from_csv(names: Sequence[str], path: Path) -> tuple[str, ...]:
    """The group of each image, from a CSV file with the columns `name` and `group`.

    `name` is the path relative to the data folder. The file is UTF-8 or has a mark of UTF-16, and
    has commas, semicolons, tabs or bars between its columns. Raises InputError when the file or a
    column is missing, an image has no row, or two rows give an image different groups. Rows about
    other files are passed over, so that one CSV can serve several folders.
    """
    table: dict[str, str] = {}
    for line, name, group in _rows(path):
        if not name or not group:
            raise InputError(f"{path}: line {line} lacks a name or a group")
        if table.setdefault(name, group) != group:
            raise InputError(f"{path}: {name} is in two groups, {table[name]} and {group}")
    found = [table.get(_posix(name)) for name in names]
    missing = [name for name, group in zip(names, found, strict=True) if group is None]
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of {len(names)} images have no row (first: {missing[0]});"
            " names are relative to the data folder"
        )
    return tuple(group for group in found if group is not None)


def _posix(name: str) -> str:
    return same_name(name).replace("\\", "/").removeprefix("./")


def _rows(path: Path) -> list[tuple[int, str, str]]:
    # The number of the line, the name and the group of each row that is not empty.
    try:
        data = read_regular(path, max_bytes=MAX_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: not readable as CSV ({error.strerror})") from None
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        first, separator = 0, ","
        lines = text.split("\n", 1)
        if re.fullmatch(r"sep=.\s*", lines[0]):  # as Excel writes and reads it
            first, text = 1, lines[1] if len(lines) > 1 else ""
        header = text.split("\n", 1)[0]
        separator = max(SEPARATORS, key=lambda mark: (_names_columns(header, mark), mark == ","))
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except (UnicodeDecodeError, csv.Error) as error:
        hint = "; save it as CSV in UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise InputError(f"{path}: not readable as CSV ({error}{hint})") from None
    columns = [cell.strip() for cell in rows[0]] if rows else []
    lower = [column.casefold() for column in columns]
    if not {"name", "group"} <= set(lower):
        raise InputError(
            f"{path}: expected the columns name,group, got {','.join(columns)}"
            f" (separated by {SEPARATORS[separator]})"
        )
    places = lower.index("name"), lower.index("group")
    found: list[tuple[int, str, str]] = []
    for line, row in enumerate(rows[1:], start=2 + first):
        if any(cell.strip() for cell in row):
            name, group = (row[at].strip() if at < len(row) else "" for at in places)
            found.append((line, _posix(name), same_name(group)))
    return found


def _names_columns(header: str, separator: str) -> int:
    cells = {cell.strip(' \r"').casefold() for cell in header.split(separator)}
    return len(cells & {"name", "group"})


def parse_group_by(names: Sequence[str], text: str) -> tuple[str, ...]:
    """Groups from what follows `--group-by`: a .csv or .tsv file, or a regular expression."""
    path = Path(text)
    if path.suffix.lower() in TABLES:
        return groups_from_csv(names, path)
    return groups_from_pattern(names, text)


def joined_groups(
    groups: Sequence[str] | None, copies: Sequence[Sequence[int]], num: int
) -> tuple[str, ...] | None:
    """Groups of `num` images in which the images of each of `copies` are together.

    `groups` are names by image, None where every image is its own. Unchanged without copies.

    >>> joined_groups(["a", "b", "b", "c"], [(0, 1)], 4)
    ('a', 'a', 'a', 'c')
    >>> joined_groups(None, [], 2) is None
    True
    """
    if not copies:
        return None if groups is None else tuple(groups)
    names = [f"{index}" for index in range(num)] if groups is None else list(groups)
    first: dict[str, str] = {}

    def root(name: str) -> str:
        while first.get(name, name) != name:
            name = first[name]
        return name

    for same in copies:
        roots = [root(names[index]) for index in same]
        for name in roots[1:]:
            first[root(name)] = root(roots[0])
    return tuple(root(name) for name in names)
