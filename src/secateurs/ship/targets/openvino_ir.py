"""OpenVINO's intermediate representation: NAME.xml with the graph, NAME.bin with the weights."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import atomic_path, sha256_file
from secateurs.nets.trace import copied
from secateurs.ship.about import SHA256, about, check_digest, parse_about
from secateurs.ship.export import check_example
from secateurs.ship.lacking import cannot_hold
from secateurs.ship.spec import ModelSpec
from secateurs.ship.targets.checking import checked, cpu_images
from secateurs.ship.targets.target import FileCheck, Images, Logits, OpenedFile

NAME = "OpenVINO"
ENDING = ".xml"
EXTRA = "openvino"
_SAID = ("secateurs", "about")  # where the file keeps what `about` says
_UNKNOWN = "0" * 64  # a digest, until the weights are written
_HEAD = 1000  # bytes in which <net> begins
_EXACT = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16 where the processor has it


def write(
    model: nn.Module,
    spec: ModelSpec,
    path: Path,
    example: Tensor,
    *,
    card: Mapping[str, Any] | None = None,
) -> FileCheck:
    """Write a model as .xml and .bin with a dynamic batch and check it; see `Target.write`."""
    require(EXTRA, "an OpenVINO file")
    openvino = _without_telemetry()
    size = check_example(spec, example)
    network = copied(model).cpu().eval()
    try:
        # Two images: a batch of one would be taken for a constant.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted: Any = openvino.convert_model(
                network, example_input=torch.zeros(2, 3, size, size)
            )
    except Exception as error:  # of the converter's own kinds
        raise cannot_hold(path, NAME, error, network, torch.zeros(2, 3, size, size)) from None
    converted.reshape([-1, 3, size, size])
    converted.inputs[0].get_tensor().set_names({"images"})
    converted.outputs[0].get_tensor().set_names({"logits"})
    return _save(converted, network, about(spec, card), path, cpu_images(example))


def _without_telemetry() -> Any:
    """The package, with its reports of use to its makers switched off."""
    name = "openvino_telemetry"
    modules: dict[str, Any] = cast("dict[str, Any]", sys.modules)
    modules.setdefault(name, None)
    try:
        return importlib.import_module("openvino")
    finally:
        if modules[name] is None:
            importlib.import_module("openvino.tools.ovc")
            del modules[name]


def _save(
    converted: Any, network: nn.Module, said: Mapping[str, Any], path: Path, images: Tensor
) -> FileCheck:
    openvino = _without_telemetry()
    converted.set_rt_info(json.dumps({**said, SHA256: _UNKNOWN}), list(_SAID))
    weights = path.with_suffix(".bin")
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        openvino.save_model(converted, made, compress_to_fp16=False)
        digest = sha256_file(made.with_suffix(".bin"))
        made.write_bytes(made.read_bytes().replace(_UNKNOWN.encode(), digest.encode(), 1))
        difference = checked(open(made).run, network, images, path)
        with atomic_path(path) as graph:
            graph.write_bytes(made.read_bytes())
            with atomic_path(weights) as values:
                values.write_bytes(made.with_suffix(".bin").read_bytes())
                # Stopped between the two, there is no model, rather than one of another's weights.
                path.unlink(missing_ok=True)
    return FileCheck(path, difference, path.stat().st_size + weights.stat().st_size)


def _check_head(path: Path) -> None:
    """Refuse what is not its XML: OpenVINO would try other formats, and print what each says."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if b"<net" not in head:
        raise InputError(f"{path}: not readable as OpenVINO (no <net> at its beginning)")


def _reason(error: Exception) -> str:
    """What an error says, without the places in OpenVINO's source that come before it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("Exception from")]
    return (said or lines or [type(error).__name__])[-1][:200]


def open(path: Path) -> OpenedFile:
    """Open a file that Secateurs wrote; see `Target.open`."""
    require(EXTRA, "an OpenVINO file")
    openvino = _without_telemetry()
    weights = path.with_suffix(".bin")
    if not weights.exists():
        raise InputError(f"{weights}: no such file; {path.name} needs it")
    _check_head(path)
    core: Any = openvino.Core()
    try:
        graph = core.read_model(path)
        text = str(graph.get_rt_info(list(_SAID)).value) if graph.has_rt_info(list(_SAID)) else "0"
        said = json.loads(text)
        if isinstance(said, dict):
            check_digest(weights, cast("dict[str, Any]", said))
        compiled = core.compile_model(graph, "CPU", dict(_EXACT))
    except InputError:
        raise
    except Exception as error:  # of OpenVINO's own kinds
        raise InputError(f"{path}: not readable as OpenVINO ({_reason(error)})") from None
    spec = parse_about(said, where=str(path))

    def run(images: Images) -> Logits:
        return compiled(images)[0]

    return OpenedFile(spec, run)
