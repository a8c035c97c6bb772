"""A `.pt2` archive looked at before PyTorch reads it: no pickled objects, no code, whole bytes.

PyTorch's reader falls back to full unpickling and evaluates texts of the file. So each member is
compared with what the program of an image classifier holds.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import torch

from secateurs.errors import InputError

MAX_MEMBERS = 100_000
MAX_JSON_BYTES = 64 << 20
MAX_SIZE_TEXT = 2_000
_WORDS = (
    "Symbol Integer Rational Add Mul Pow Mod PythonMod FloorDiv CleanDiv ModularIndexing Min Max "
    "positive nonnegative integer True False"
).replace(" ", "|")
# Sizes as SymPy writes them, for example Symbol('s77', positive=True, integer=True).
_SIZE = re.compile(rf"(?:\b(?:{_WORDS})\b|'?\b[suz][0-9]+\b'?|\b[0-9]+\b|[-+*/(),= ])*")
_OPERATOR = re.compile(
    r"torch\.ops\.(?:aten|torchvision|higher_order)\.\w+(?:\.\w+)?|torch\.sym_\w+|"
    r"_operator\.\w+|math\.\w+"
)
_NAME = re.compile(r"[\w.]*")
_TREES = ("in_spec", "out_spec")
_ENUM = "__enum__"  # of a tree: a name that would be imported
# Members of the archive that the reader unpickles, by the beginning of their names.
_PICKLED = ("data/sample_inputs/", "data/constants/")
_TENSOR = "data/constants/tensor_"


def check_archive(path: Path) -> None:
    """Raise InputError unless a file is a `.pt2` archive of tensors, numbers and texts.

    Every member is compared with its checksum.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check(archive, path)
    except InputError:
        raise
    # What a damaged archive makes the reader raise is not documented.
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        raise InputError(f"{path}: not readable as a program ({reason:.200})") from None


def _check(archive: zipfile.ZipFile, path: Path) -> None:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise InputError(f"{path}: {len(members)} members, more than the limit of {MAX_MEMBERS}")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        # PyTorch compresses nothing, and a compressed member could be of any size.
        raise InputError(f"{path}: not a program of PyTorch (compressed members)")
    damaged = archive.testzip()
    if damaged is not None:
        raise InputError(f"{path}: damaged ({damaged} does not have its checksum)")
    for member in members:
        name = member.filename.partition("/")[2]
        if name.endswith(".json") and not name.startswith("extra/"):
            _check_json(archive, member, f"{path}: {name}")
        elif name.startswith(_PICKLED) and not name.startswith(_TENSOR) and member.file_size:
            _check_pickle(archive.read(member), f"{path}: {name}")


def _check_pickle(data: bytes, where: str) -> None:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception:  # of whatever kind: it is not to be read in another way
        raise InputError(f"{where}: holds more than tensors, numbers and texts") from None


def _check_json(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> None:
    if member.file_size > MAX_JSON_BYTES:
        raise InputError(f"{where}: {member.file_size / 2**20:.0f} MiB, more than a program has")
    try:
        data = json.loads(archive.read(member))
    except (ValueError, RecursionError):
        raise InputError(f"{where}: not readable as JSON") from None
    for record in _records(data):
        for wrong in _unsafe(record):
            raise InputError(f"{where}: {wrong!r:.80} is not what a program holds")


def _unsafe(record: dict[str, Any]) -> Generator[Any]:
    """The values of a record that PyTorch would unpickle, evaluate or import."""
    if record.get("use_pickle"):
        yield "use_pickle"
    name, size = record.get("name"), record.get("expr_str")
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        yield name
    if size is not None and not (isinstance(size, str) and _is_size(size)):
        yield size
    if "inputs" in record and "target" in record:  # a node of the graph
        target = record["target"]
        if not (isinstance(target, str) and _OPERATOR.fullmatch(target)):
            yield target
    for key in _TREES:
        if _ENUM in str(record.get(key, "")):
            yield record[key]
    place = record.get("path_name")
    if isinstance(place, str) and not _NAME.fullmatch(place):
        yield place


def _is_size(text: str) -> bool:
    """Whether a text is a size that is evaluated at once: powers of powers can take for ever."""
    if len(text) > MAX_SIZE_TEXT or not _SIZE.fullmatch(text):
        return False
    powers = text.count("Pow") + text.count("**")
    digits = max((len(number) for number in re.findall("[0-9]+", text)), default=0)
    return (powers == 0 and digits <= 18) or (powers == 1 and digits <= 3)


def _records(data: Any) -> Generator[dict[str, Any]]:
    """Every object in nested JSON data."""
    waiting = [data]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            record = cast("dict[str, Any]", found)
            yield record
            waiting += record.values()
        elif isinstance(found, list):
            waiting += cast("list[Any]", found)
