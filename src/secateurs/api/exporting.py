"""Any model as an ONNX file or a PyTorch program, checked against PyTorch."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.api.models import call, call_with, unwrapped
from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import atomic_path
from secateurs.nets.batches import map_tensors
from secateurs.nets.trace import first_line, tensors_of
from secateurs.ship.export import OPSET, quiet_exporter
from secateurs.ship.latency import onnx_session

TOLERANCE = 1e-4  # of the largest output


@dataclass(frozen=True)
class ExportCheck:
    """An exported file, and its largest difference from PyTorch relative to the largest output."""

    path: Path
    difference: float
    num_bytes: int


def export(
    model: nn.Module,
    path: str | Path,
    example_inputs: Any,
    *,
    tolerance: float = TOLERANCE,
) -> ExportCheck:
    """Write a model as `.onnx` or `.pt2`, whole or not at all, and check it on the example inputs.

    `example_inputs` is what the model is called with: a tensor, a tuple of all arguments, or a
    mapping of keywords. The first axis of every tensor in it that is as long as that of the first
    tensor is the batch, whose size stays free where the model allows it. The model is not changed.
    Raises InputError for another ending and for a model that cannot be exported, RuntimeError when
    the file's outputs differ by more than `tolerance` of the largest one.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".pt2"):
        raise InputError(f"{path}: the file to write must end in .onnx or .pt2")
    if path.suffix == ".onnx":
        require("onnx", "an ONNX file")
    network = copy.deepcopy(unwrapped(model)).cpu().eval()
    inputs = map_tensors(call_with(example_inputs), lambda tensor: tensor.detach().cpu())
    expected = _outputs(network, inputs)
    if not expected:
        raise InputError("the model gives no tensor: there is nothing to check an export by")
    with atomic_path(path) as temporary:
        try:
            if path.suffix == ".onnx":
                _write_onnx(network, inputs, temporary)
                found = _run_onnx(temporary, inputs)
            else:
                found = _outputs(_write_program(network, inputs, temporary), inputs)
        except (InputError, OSError):
            raise
        except Exception as error:  # the exporters raise whatever meets them
            raise InputError(
                f"{path}: the model cannot be exported ({type(error).__name__}: "
                f"{first_line(error)})"
            ) from error
        difference = _difference(found, expected)
        if not difference <= tolerance:
            raise RuntimeError(
                f"{path}: its outputs differ from PyTorch's by {difference:.3g} of the largest, at "
                f"most {tolerance:.3g} is allowed; not written"
            )
    return ExportCheck(path, difference, path.stat().st_size)


@torch.no_grad()
def _outputs(network: nn.Module, inputs: Any) -> list[Tensor]:
    return tensors_of(call(network, inputs))


def _program(network: nn.Module, inputs: Any) -> torch.export.ExportedProgram:
    """The model as a program, with a free batch size where it allows one."""
    positional = () if isinstance(inputs, Mapping) else tuple(inputs)
    keywords = dict(inputs) if isinstance(inputs, Mapping) else {}
    length = len(tensors_of(inputs)[0])
    batch = torch.export.Dim.AUTO

    def axes(value: Any) -> Any:
        return _structure_of(value, lambda t: {0: batch} if t.ndim and len(t) == length else None)

    shapes = {**keywords} if keywords else positional
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(
                network, positional, keywords or None, dynamic_shapes=axes(shapes)
            )
        except Exception:  # it insists on the size that it was given
            return torch.export.export(network, positional, keywords or None)


def _structure_of(value: Any, change: Any) -> Any:
    """Nested tuples, lists and mappings with something else in the place of each tensor."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _structure_of(part, change) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_structure_of(part, change) for part in value)
    return None


def _write_program(network: nn.Module, inputs: Any, path: Path) -> nn.Module:
    # By way of memory: where a disk is full, the writer of the archive ends the process.
    packed = io.BytesIO()
    torch.export.save(_program(network, inputs), packed)
    path.write_bytes(packed.getvalue())
    packed.seek(0)
    return torch.export.load(packed).module()


def _write_onnx(network: nn.Module, inputs: Any, path: Path) -> None:
    with quiet_exporter():
        program: Any = torch.onnx.export(
            _program(network, inputs), dynamo=True, opset_version=OPSET, verbose=False
        )
    program.model.producer_name = "secateurs"
    for node in program.model.graph.all_nodes():  # source files and lines at every node
        node.metadata_props.clear()
        node.doc_string = None
    path.write_bytes(program.model_proto.SerializeToString())


def _run_onnx(path: Path, inputs: Any) -> list[Tensor]:
    session = onnx_session(path)
    names = [entry.name for entry in session.get_inputs()]
    given = [tensor.numpy() for tensor in tensors_of(inputs)]
    if len(names) != len(given):
        raise InputError(f"the model reads {len(names)} of its {len(given)} inputs")
    found = session.run(None, dict(zip(names, given, strict=True)))
    return [torch.as_tensor(value) for value in found]


def _difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference relative to the largest expected value; infinite for other shapes."""
    if [tuple(t.shape) for t in found] != [tuple(t.shape) for t in expected]:
        return float("inf")
    largest = max(float(t.double().abs().max()) for t in expected if t.numel())
    away = max(
        float((a.double() - b.double()).abs().max())
        for a, b in zip(found, expected, strict=True)
        if a.numel()
    )
    return away / max(largest, 1e-12)
