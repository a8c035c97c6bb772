"""Values out of untrusted JSON checked against the types of a dataclass's fields."""

from __future__ import annotations

import reprlib
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from secateurs.data.names import printable
from secateurs.errors import InputError


def check_fields(kind: type, plain: Mapping[str, Any], *, where: str) -> None:
    """Raise InputError for the first value that is not of its field's type in a dataclass.

    Lists stand for tuples, and whole numbers for fractions, as JSON has them.

    >>> from secateurs.study.setup.config import StudyConfig
    >>> check_fields(StudyConfig, {"seed": "x"}, where="config")
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: config.seed: expected int, got 'x'
    """
    hints = get_type_hints(kind)
    for name, value in plain.items():
        if name in hints and not _fits(value, hints[name]):
            shown = printable(reprlib.repr(value))[:60]
            raise InputError(f"{where}.{name}: expected {_words(hints[name])}, got {shown}")


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if origin is tuple:
        of = get_args(hint)[0]
        return isinstance(value, list | tuple) and all(
            _fits(part, of) for part in cast("list[Any]", value)
        )
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return type(value) is int and abs(value) < 2**63
    return hint is Any or (value is None if hint is type(None) else isinstance(value, hint))


def _words(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(part) for part in get_args(hint))
    if origin is Literal:
        return f"one of {', '.join(get_args(hint))}"
    if origin is tuple:
        return f"a list of {_words(get_args(hint)[0])}"
    return "null" if hint is type(None) else str(getattr(hint, "__name__", hint))
