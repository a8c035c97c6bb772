"""ONNX, for ONNX Runtime and whatever else reads it; float32 and int8 files alike."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.ship.about import KEYS, parse_about
from secateurs.ship.export import export_onnx
from secateurs.ship.latency import onnx_session
from secateurs.ship.spec import ModelSpec
from secateurs.ship.targets.target import FileCheck, Images, Logits, OpenedFile

NAME = "ONNX"
ENDING = ".onnx"
EXTRA = "onnx"


def write(
    model: nn.Module,
    spec: ModelSpec,
    path: Path,
    example: Tensor,
    *,
    card: Mapping[str, Any] | None = None,
) -> FileCheck:
    """Write a model as ONNX and check it; see `Target.write`."""
    check = export_onnx(model, spec, path, example, card=card)
    return FileCheck(check.path, check.max_abs_difference, check.num_bytes)


def open(path: Path) -> OpenedFile:
    """Open an ONNX file that Secateurs wrote; see `Target.open`."""
    session = onnx_session(path)
    said: dict[str, Any] = {}
    for key, text in session.get_modelmeta().custom_metadata_map.items():
        try:
            said[key] = text if key == "backbone" else json.loads(text)
        except ValueError:
            if key in KEYS:
                raise InputError(f"{path}: {key}: not readable as JSON") from None
    spec = parse_about(said, where=str(path))
    name = session.get_inputs()[0].name

    def run(images: Images) -> Logits:
        return session.run(None, {name: images})[0]

    @functools.cache  # a session has a fixed number of threads, and the weights once more
    def session_on(threads: int) -> Any:
        return onnx_session(path, threads=threads)

    def run_on(images: Images, threads: int) -> Logits:
        all_of_them = threads >= torch.get_num_threads()
        power = 1 << (threads.bit_length() - 1)  # few sessions on many processors
        wanted = session if all_of_them else session_on(power)
        return wanted.run(None, {name: images})[0]

    return OpenedFile(spec, run, run_on)
