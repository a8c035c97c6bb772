"""What a record must hold: objects with fields, lists and types, checked in data from files.

A kind is a type (`int`, `float`, `str`, `bool`, `dict`, `list`), `{"field": kind}` for an object
that has at least these fields, `[kind]` for a list, or `Maybe(kind)`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from secateurs.errors import InputError
from secateurs.files import read_json

_NAMES = {dict: "an object", list: "a list", str: "text", int: "a whole number", float: "a number"}
MAX_WHOLE = 2**63


@dataclass(frozen=True)
class Maybe:
    """A value that may be null, and with `absent` a key that may be missing."""

    kind: Any
    absent: bool = False


def check_shape(value: Any, kind: Any, *, where: str, advice: str = "") -> Any:
    """Return `value` if it is of `kind`, with keys that may be absent filled with None.

    Raises InputError that names `where` and the first field that is missing or of another type;
    `advice` follows the name of a missing one.

    >>> check_shape({"a": [1, 2.5]}, {"a": [float], "b": Maybe(str, absent=True)}, where="x.json")
    {'a': [1, 2.5], 'b': None}
    >>> check_shape({"a": [True]}, {"a": [float]}, where="x.json")
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: x.json: a[0] should be a number, got true
    """
    return _checked(value, kind, "", where, advice)


def fits(value: Any, kind: Any) -> bool:
    """Whether `value` is of `kind`."""
    try:
        _checked(value, kind, "", "", "")
    except InputError:
        return False
    return True


def read_record(path: Path, kind: dict[str, Any], *, schema: int, what: str) -> dict[str, Any]:
    """Read the JSON object of a file of this `schema` whose fields are of `kind`.

    `what` names it in words, such as "a study". Raises InputError that names the file, and the
    field that is missing or wrong.
    """
    return check_record(read_json(path), kind, schema=schema, where=str(path), what=what)


def check_record(
    value: Any, kind: dict[str, Any], *, schema: int, where: str, what: str
) -> dict[str, Any]:
    """Return `value` if it is an object of this schema and kind; InputError as `read_record`."""
    check_schema(value, schema, where=where, what=what)
    advice = "written by another version, or damaged; choose a new directory"
    return check_shape(value, kind, where=where, advice=advice)


@contextmanager
def made_of(path: Path) -> Generator[None]:
    """Turn any error of what is made of a file's checked content into InputError that names it.

    For pages and tables, which use hundreds of fields that one check does not describe.
    """
    try:
        yield
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path}: not what this version writes ({words:.120}); written by another version, or "
            "damaged"
        ) from error


def check_schema(value: Any, schema: int, *, where: str, what: str) -> None:
    """Raise InputError unless `value` is an object of this schema."""
    if not isinstance(value, dict):
        raise InputError(
            f"{where}: expected an object, got {kind_words(value)}; damaged: not {what}"
        )
    got = cast("dict[str, Any]", value).get("schema")
    if type(got) is not int or got != schema:
        shown = "no schema" if got is None else f"schema {got!r:.40}"
        raise InputError(
            f"{where}: {what} of another version of Secateurs ({shown}, expected {schema}); "
            "choose a new directory"
        )


def _checked(value: Any, kind: Any, at: str, where: str, advice: str) -> Any:
    if isinstance(kind, Maybe):
        return None if value is None else _checked(value, kind.kind, at, where, advice)
    if isinstance(kind, dict):
        _expect(value, dict, at, where)
        kinds = cast("dict[str, Any]", kind)
        filled = dict(cast("dict[str, Any]", value))
        for key, inner in kinds.items():
            below = f"{at}.{key}" if at else key
            if key not in filled and not (isinstance(inner, Maybe) and inner.absent):
                raise InputError(f"{where}: missing key {below!r}" + (advice and f"; {advice}"))
            filled[key] = _checked(filled.get(key), inner, below, where, advice)
        return filled
    if isinstance(kind, list):
        _expect(value, list, at, where)
        inner = cast("list[Any]", kind)[0]
        items = enumerate(cast("list[Any]", value))
        return [_checked(item, inner, f"{at}[{index}]", where, advice) for index, item in items]
    _expect(value, kind, at, where)
    return value


def _expect(value: Any, kind: type, at: str, where: str) -> None:
    allowed = (int, float) if kind is float else kind
    wrong_bool = isinstance(value, bool) and kind is not bool
    if not isinstance(value, allowed) or wrong_bool:
        expected = _NAMES.get(kind, "true or false")
        raise InputError(
            f"{where}: {f'{at} ' if at else ''}should be {expected}, got {kind_words(value)}"
        )
    if isinstance(value, int) and abs(value) >= MAX_WHOLE:
        raise InputError(f"{where}: {at} is a number of over 18 digits")


def kind_words(value: Any) -> str:
    """The kind of a value of JSON, in words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return next(
        (name for kind, name in _NAMES.items() if isinstance(value, kind)), "something else"
    )
