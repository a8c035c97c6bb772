"""Configuration files: the options of one command in TOML, read and written.

Paths in a file are relative to its folder, so that a directory with its configuration can be moved
together with what it names.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

import secateurs
from secateurs.errors import InputError
from secateurs.files import read_regular, write_text
from secateurs.limits import shown
from secateurs.paths import FACES

NAME = "config.toml"
RECORD_KEY = "config_toml"  # of a record: the text of that file
COMMAND = "command"  # the key that names the command
MAX_BYTES = 1 << 20
_MARK = "# Written by secateurs"
# What is printed, and what may be deleted, is not kept.
LEFT_OUT = frozenset({"config", "overwrite", "json", "quiet", "progress", "open", "cache", "help"})
_WORDS = {"weights": ("auto", "none"), "data": (FACES,)}  # no paths
_LIST = re.compile(r"[0-9N],|A,B|\.\.\.")  # in the placeholder of an option that takes a list
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", list: "a list of texts"}


@dataclass(frozen=True)
class Parameter:
    """One option or argument of a command: its key in a file, its type and its placeholder."""

    key: str
    name: str
    kind: type
    metavar: str
    is_path: bool

    @property
    def takes_numbers(self) -> bool:
        """Whether it is text that stands for one number or several."""
        return self.kind is str and bool(_LIST.search(self.metavar) or "N|" in self.metavar)


def kind_of(hint: Any) -> type:
    """The type of a parameter, without None: bool, int, float, str, Path or list.

    >>> kind_of(str | None), kind_of(list[Path])
    (<class 'str'>, <class 'list'>)
    """
    if get_origin(hint) in (Union, UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    return cast("type", get_origin(hint) or hint)


def read_config(
    file: Path, command: str, parameters: Mapping[str, Parameter], renamed: Mapping[str, str]
) -> tuple[dict[str, bool | str | list[str]], list[str]]:
    """The values of a configuration file as words of the command line, by name, and notices.

    Raises InputError in one line that names the file, and the key that is unknown or of another
    type.
    """
    try:
        plain = tomllib.loads(read_regular(file, max_bytes=MAX_BYTES).decode("utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: no such configuration file") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"{file}: not valid TOML ({error})") from None
    of = plain.pop(COMMAND, command)
    if of != command:
        raise InputError(f"{file}: {COMMAND} is {shown(of)}, but the command is {command}")
    found: dict[str, bool | str | list[str]] = {}
    notices: list[str] = []
    for given, value in plain.items():
        key = given.replace("_", "-")
        if key not in parameters and renamed.get(f"--{key}", "")[2:] in parameters:
            new = renamed[f"--{key}"][2:]
            notices.append(f"{file}: {given} is now {new}")
            key = new
        parameter = parameters.get(key)
        if parameter is None or key in ("config", "help"):
            raise InputError(
                f"{file}: unknown key {given!r}; `secateurs {command} --help` lists the options"
            )
        if parameter.name in found:
            raise InputError(f"{file}: {given!r} is given twice")
        found[parameter.name] = _words(file, given, value, parameter)
    return found, notices


def _words(file: Path, key: str, value: Any, parameter: Parameter) -> bool | str | list[str]:
    kind, is_number = parameter.kind, type(value) in (int, float)
    if kind is bool and isinstance(value, bool):
        return value
    if (kind is int and type(value) is int) or (kind is float and is_number):
        return _number(file, key, value)
    if kind is list and isinstance(value, list) and value:
        texts = cast("list[Any]", value)
        if all(isinstance(text, str) for text in texts):
            return [_path(file, text, parameter) for text in texts]
    if kind not in (bool, int, float, list):
        if isinstance(value, str):
            return _path(file, value, parameter)
        if parameter.takes_numbers:
            several = cast("list[Any]", value if isinstance(value, list) else [value])
            if several and all(type(one) in (int, float) for one in several):
                return ",".join(_number(file, key, one) for one in several)
    expected = _KINDS.get(kind, "a number, a list of numbers or a text")
    if kind not in _KINDS and not parameter.takes_numbers:
        expected = "a text"
    raise InputError(f"{file}: {key}: expected {expected}, got {shown(value)}")


def _number(file: Path, key: str, value: float) -> str:
    try:
        return repr(value)
    except ValueError:  # Python prints no whole number of more than 4300 digits
        raise InputError(f"{file}: {key}: a number of thousands of digits") from None


def _path(file: Path, text: str, parameter: Parameter) -> str:
    if not _is_path(parameter, text) or not text:
        return text
    place = file.parent / text
    # In the shortest form that means the same from here.
    try:
        near = Path(os.path.relpath(place.resolve()))
    except (OSError, ValueError, RuntimeError):
        return str(place)
    return str(place.resolve() if near.parts[:3] == ("..", "..", "..") else near)


def _is_path(parameter: Parameter, text: str) -> bool:
    if parameter.key == "group-by":
        return text.lower().endswith(".csv")
    return parameter.is_path and text not in _WORDS.get(parameter.key, ())


@dataclass(frozen=True)
class RunConfig:
    """What a command was run with: its values by key, as they go into a file."""

    command: str
    parameters: tuple[Parameter, ...]
    values: Mapping[str, Any]

    def text(self, folder: Path) -> str:
        """The configuration file for `folder`; ValueError for a path that TOML cannot hold."""
        lines = [
            f"{_MARK} {secateurs.__version__}. `secateurs {self.command} --config {NAME}` runs "
            "the same command again.",
            "# Paths are relative to this file.",
            f"{COMMAND} = {_toml(self.command)}",
        ]
        for parameter in self.parameters:
            value = self.values.get(parameter.name)
            if value is None or parameter.key in LEFT_OUT:
                continue
            if isinstance(value, list | tuple):
                value = [self._written(one, parameter, folder) for one in cast("list[Any]", value)]
            else:
                value = self._written(value, parameter, folder)
            lines.append(f"{parameter.key} = {_toml(value)}")
        return "\n".join(lines) + "\n"

    def _written(self, value: Any, parameter: Parameter, folder: Path) -> Any:
        if isinstance(value, Path) or (isinstance(value, str) and _is_path(parameter, value)):
            place = Path(value).resolve()
            try:
                return Path(os.path.relpath(place, folder.resolve())).as_posix()
            except ValueError:  # on another drive
                return place.as_posix()
        return value

    def differs_from(self, folder: Path) -> list[str]:
        """The options that differ from those that an earlier run in `folder` has kept."""
        path = folder / NAME
        if not is_ours(path):
            return []
        try:
            old = tomllib.loads(read_regular(path, max_bytes=MAX_BYTES).decode("utf-8"))
            new = tomllib.loads(self.text(folder))
        except (OSError, ValueError):  # not readable, or not to be written
            return []
        keys = sorted((old.keys() | new.keys()) - {"cache-budget", "cache-in", "log"})
        return [
            f"{key:.40} ({shown(old.get(key))} there, {shown(new.get(key))} now)"
            for key in keys
            if old.get(key) != new.get(key)
        ]

    def save(self, folder: Path) -> str | None:
        """Write config.toml into `folder`; a sentence where that was not possible."""
        path = folder / NAME
        if path.exists() and not is_ours(path):
            return f"{path}: not written by Secateurs, and left as it is"
        try:
            write_text(path, self.text(folder))
        except ValueError as error:
            return f"{path}: not written ({error})"
        return None


def is_ours(path: Path) -> bool:
    """Whether a file is a configuration that Secateurs wrote."""
    try:
        return read_regular(path, max_bytes=MAX_BYTES).startswith(_MARK.encode())
    except OSError:
        return False


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(_toml(one) for one in cast('list[Any]', value))}]"
    text = str(value)
    if re.search("[\ud800-\udfff]", text):
        raise ValueError("a path that is not valid UTF-8 cannot be written in TOML")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda c: f"\\u{ord(c[0]):04x}", escaped) + '"'
