"""All file formats, found by the ending of a file."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import cast

from secateurs.errors import InputError
from secateurs.ship.targets.target import OpenedFile, Target

_MODULES = {
    ".onnx": "onnx_file",
    ".pt2": "torch_program",
    ".xml": "openvino_ir",
    ".pte": "executorch_program",
    ".tflite": "litert_file",
    ".mlpackage": "coreml_package",
}


def endings() -> tuple[str, ...]:
    """The endings of the files that `target_of` knows.

    >>> endings()
    ('.onnx', '.pt2', '.xml', '.pte', '.tflite', '.mlpackage')
    """
    return tuple(_MODULES)


def target_of(path: Path) -> Target:
    """The format of a file; InputError for an ending that is not known.

    >>> target_of(Path("photos.onnx")).NAME
    'ONNX'
    """
    name = _MODULES.get(path.suffix)
    if name is None:
        *others, last = endings()
        raise InputError(f"{path}: expected a file that ends in {', '.join(others)} or {last}")
    return cast("Target", import_module(f"secateurs.ship.targets.{name}"))


def open_file(path: Path) -> OpenedFile:
    """An exported file of any known format, opened in its runtime.

    Raises InputError when it is missing, damaged, of an unknown format or lacks its runtime.
    """
    target = target_of(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    return target.open(path)
