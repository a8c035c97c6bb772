"""`.mlpackage`, a program for Core ML on Apple's systems; read back here, and run only there."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import atomic_folder
from secateurs.nets.trace import copied
from secateurs.ship.about import about
from secateurs.ship.export import check_example
from secateurs.ship.lacking import cannot_hold
from secateurs.ship.spec import ModelSpec
from secateurs.ship.targets.target import FileCheck, OpenedFile

NAME = "Core ML"
ENDING = ".mlpackage"
EXTRA = "coreml"
SAID = "secateurs"  # the metadata entry with what `about` says
NOTE = "not run: Core ML runs on Apple's systems only; inputs, outputs and metadata were read back"


def write(
    model: nn.Module,
    spec: ModelSpec,
    path: Path,
    example: Tensor,
    *,
    card: Mapping[str, Any] | None = None,
) -> FileCheck:
    """Write a model for single images, a folder in float32; see `Target.write`.

    It is not run: the package is read back, and its inputs, outputs and metadata are compared.
    """
    require(EXTRA, "a Core ML package")
    size = check_example(spec, example)
    network = copied(model).cpu().eval()
    said = json.dumps(about(spec, card))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = _converted(network, size)
    except Exception as error:  # of the converter's own kinds
        raise cannot_hold(path, NAME, error, network, torch.zeros(1, 3, size, size)) from None
    converted.user_defined_metadata[SAID] = said
    with atomic_folder(path) as folder:
        made = folder / path.name  # the converter wants the ending
        converted.save(str(made))
        _check(made, said, size, len(spec.classes), path)
        for part in made.iterdir():
            part.rename(folder / part.name)
        made.rmdir()
    num_bytes = sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    return FileCheck(path, None, num_bytes, NOTE)


def _converted(network: nn.Module, size: int) -> Any:
    tools: Any = import_module("coremltools")
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with torch.no_grad():
        traced = torch.jit.trace(network, torch.zeros(1, 3, size, size), check_trace=False)
    # One image: a range of batches would keep the program from Apple's Neural Engine.
    return tools.convert(
        traced,
        inputs=[tools.TensorType("images", shape=(1, 3, size, size))],
        outputs=[tools.TensorType("logits")],
        convert_to="mlprogram",
        compute_precision=tools.precision.FLOAT32,
        minimum_deployment_target=tools.target.iOS16,
        skip_model_load=True,
    )


def _check(made: Path, said: str, size: int, num_classes: int, path: Path) -> None:
    tools: Any = import_module("coremltools")
    described = tools.models.MLModel(str(made), skip_model_load=True).get_spec().description
    found = (
        [(one.name, tuple(one.type.multiArrayType.shape)) for one in described.input],
        [(one.name, tuple(one.type.multiArrayType.shape)) for one in described.output],
        described.metadata.userDefined[SAID],
    )
    expected = ([("images", (1, 3, size, size))], [("logits", (1, num_classes))], said)
    if found != expected:
        raise RuntimeError(f"{path}: read back as {found!r:.200}; not written")


def open(path: Path) -> OpenedFile:
    """Refuse: no runtime of the format is there."""
    raise InputError(
        f"{path}: Core ML runs on Apple's systems only; give another file of the model"
    )
