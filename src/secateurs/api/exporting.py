"""Any model as an ONNX file or a PyTorch program, checked against PyTorch."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from secateurs.api.models import call, call_with, check_runs, taken, unwrapped
from secateurs.api.plain_inputs import WithRecords, is_plain, plain
from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import atomic_path
from secateurs.nets.batches import map_tensors
from secateurs.nets.trace import copied, first_line, tensors_of
from secateurs.ship.export import OPSET, onnx_obstacle, quiet_exporter
from secateurs.ship.latency import onnx_session

# Of the largest output, by the type of the parameters: kernels round in other orders.
TOLERANCE = {torch.float16: 5e-3, torch.bfloat16: 4e-2}
OTHER_TOLERANCE = 1e-4


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
    tolerance: float | None = None,
) -> ExportCheck:
    """Write a model as `.onnx` or `.pt2`, whole or not at all, and check it on the example inputs.

    `example_inputs` is what the model is called with: a tensor, a tuple of all arguments, or a
    mapping of keywords. The first axis of every tensor in it that is as long as that of the first
    tensor is the batch, whose size stays free where the model allows it. The model is not changed.
    Raises InputError for another ending and for a model that cannot be exported, RuntimeError when
    the file's outputs differ by more than `tolerance` of the largest one, by default 1e-4 (float16
    5e-3, bfloat16 4e-2). In ONNX a complex output is pairs of real numbers along a last axis. The
    file takes tuples for named tuples, and mappings of their fields for dataclasses.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".pt2"):
        raise InputError(f"{path}: the file to write must end in .onnx or .pt2")
    if path.suffix == ".onnx":
        require("onnx", "an ONNX file")
        if obstacle := onnx_obstacle(model):
            raise InputError(f"{path}: {obstacle}")
    network = copied(unwrapped(model)).cpu().eval()
    inputs = map_tensors(call_with(example_inputs), lambda tensor: tensor.detach().cpu())
    inputs = taken(network, inputs) if isinstance(inputs, Mapping) else inputs
    check_runs(network, inputs, call)
    if not is_plain(inputs):
        network, inputs = WithRecords(network, inputs), plain(inputs)
    expected = _outputs(network, inputs)
    dtype = _most_used_type(network)
    if tolerance is None:
        tolerance = TOLERANCE.get(dtype, OTHER_TOLERANCE)
    if not _difference(_outputs(network, inputs), expected) <= max(tolerance, OTHER_TOLERANCE):
        raise InputError(
            f"{path}: the model gives other outputs each time that it runs (random numbers in "
            "evaluation, or a state that it keeps), so that a file cannot be checked"
        )
    with atomic_path(path) as temporary:
        try:
            found = _written(network, inputs, temporary, onnx=path.suffix == ".onnx")
        except InputError as error:
            reason = str(error).replace(str(temporary), str(path))
            if path.suffix == ".onnx" and dtype != torch.float32:
                reason = (
                    f"{path}: ONNX Runtime cannot run all of the model in {str(dtype)[6:]}; export "
                    f"model.float() ({reason.removeprefix(f'{path}: ')})"
                )
            raise InputError(reason) from error
        except OSError:
            raise
        except Exception as error:  # the exporters raise whatever meets them
            raise InputError(
                f"{path}: the model cannot be exported ({type(error).__name__}: "
                f"{plain_line(error)})"
            ) from error
        difference = _difference(found, expected)
        if not difference <= tolerance:
            raise RuntimeError(
                f"{path}: its outputs differ from PyTorch's by {difference:.3g} of the largest, at "
                f"most {tolerance:.3g} is allowed; not written"
            )
    return ExportCheck(path, difference, path.stat().st_size)


def _written(network: nn.Module, inputs: Any, path: Path, *, onnx: bool) -> list[Tensor]:
    """Write a model; what the file gives for the inputs."""
    try:
        return _written_as_it_is(network, inputs, path, onnx=onnx)
    except Exception as first:
        # Something beside tensors, as a cache of keys and values, is no output of a file.
        hook = network.register_forward_hook(lambda _, __, output: tuple(tensors_of(output)))
        try:
            return _written_as_it_is(network, inputs, path, onnx=onnx)
        except Exception:
            raise first from first.__cause__
        finally:
            hook.remove()


def _written_as_it_is(network: nn.Module, inputs: Any, path: Path, *, onnx: bool) -> list[Tensor]:
    if onnx:
        _write_onnx(network, inputs, path)
        return _run_onnx(path, inputs)
    try:
        return _outputs(_write_program(network, inputs, path), inputs)
    except Exception:  # read back it does not take another size, as with `**kwargs`
        return _outputs(_write_program(network, inputs, path, fixed=True), inputs)


@torch.no_grad()
def _outputs(network: nn.Module, inputs: Any) -> list[Tensor]:
    return tensors_of(call(network, inputs))


def _most_used_type(network: nn.Module) -> torch.dtype:
    """The floating-point type of most of a model's parameters; float32 without any."""
    counts: dict[torch.dtype, int] = {torch.float32: 0}
    for parameter in network.parameters():
        if parameter.is_floating_point():
            counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
    return max(counts, key=counts.__getitem__)


def plain_line(error: BaseException) -> str:
    """The first line of what an exporter says, without colours; of what caused it, if known.

    >>> plain_line(ValueError("\\x1b[96mstep\\x1b[0m 2"))
    'step 2'
    """
    known = error.__cause__ if error.__cause__ is not None else error
    if "data-dependent" in str(known):
        return (
            "a size or a branch depends on values, as with int(x.max()), which a file cannot hold"
        )
    return re.sub(r"\x1b\[[0-9;]*m", "", first_line(known))


@contextmanager
def _exporting() -> Generator[None]:
    """Attention as products of matrices: a fused kernel lays its result out in another order, which
    the file's operations do not. Warnings of the exporters are not the user's to act on."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:  # the exporter prints the whole program where values decide what runs
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                yield
        finally:
            logging.disable(before)


def _fixed_program(network: nn.Module, inputs: Any) -> torch.export.ExportedProgram:
    """The model as a program for the batch size of the inputs."""
    if isinstance(inputs, Mapping):
        return torch.export.export(network, (), dict(inputs))
    return torch.export.export(network, tuple(inputs))


def _program(network: nn.Module, inputs: Any) -> torch.export.ExportedProgram:
    """The model as a program, with a free batch size where it allows one."""
    positional = () if isinstance(inputs, Mapping) else tuple(inputs)
    keywords = dict(inputs) if isinstance(inputs, Mapping) else {}
    length = len(tensors_of(inputs)[0])
    batch = torch.export.Dim.AUTO

    def axes(value: Any) -> Any:
        return _structure_of(value, lambda t: {0: batch} if t.ndim and len(t) == length else None)

    try:
        return torch.export.export(
            network, positional, keywords or None, dynamic_shapes=axes(keywords or positional)
        )
    except Exception:  # it insists on the size that it was given
        return _fixed_program(network, inputs)


def _structure_of(value: Any, change: Any) -> Any:
    """Nested tuples, lists and mappings with something else in the place of each tensor."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _structure_of(part, change) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_structure_of(part, change) for part in value)
    return None


def _write_program(
    network: nn.Module, inputs: Any, path: Path, *, fixed: bool = False
) -> nn.Module:
    # By way of memory: where a disk is full, the writer of the archive ends the process.
    packed = io.BytesIO()
    with _exporting():
        program = _fixed_program(network, inputs) if fixed else _program(network, inputs)
        torch.export.save(program, packed)
        path.write_bytes(packed.getvalue())
        packed.seek(0)
        return torch.export.load(packed).module()


def _write_onnx(network: nn.Module, inputs: Any, path: Path) -> None:
    with quiet_exporter(), _exporting():
        program = _onnx_program(network, inputs)
    program.model.producer_name = "secateurs"
    for node in program.model.graph.all_nodes():  # source files and lines at every node
        node.metadata_props.clear()
        node.doc_string = None
    path.write_bytes(program.model_proto.SerializeToString())


def _onnx_program(network: nn.Module, inputs: Any) -> Any:
    def converted(program: torch.export.ExportedProgram) -> Any:
        return torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)

    try:
        return converted(_program(network, inputs))
    except Exception:  # not for every size of the batch
        return converted(_fixed_program(network, inputs))


def _run_onnx(path: Path, inputs: Any) -> list[Tensor]:
    session = onnx_session(path)
    names = [entry.name for entry in session.get_inputs()]
    given = tensors_of(inputs)
    known = dict(zip(names, given, strict=False))
    if isinstance(inputs, Mapping):  # by name: what the model does not read is no input
        known |= {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    elif len(names) != len(given):
        raise InputError(f"the model reads {len(names)} of its {len(given)} inputs")
    found = session.run(None, {name: known[name].numpy() for name in names})
    return [torch.as_tensor(value) for value in found]


def _difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference relative to the largest expected value; infinite for other shapes."""
    if len(found) == len(expected):  # in ONNX complex numbers are pairs
        expected = [
            torch.view_as_real(e.resolve_conj()) if e.is_complex() and not f.is_complex() else e
            for e, f in zip(expected, found, strict=True)
        ]
    if [tuple(t.shape) for t in found] != [tuple(t.shape) for t in expected]:
        return float("inf")
    largest = max(float(_wide(t).abs().max()) for t in expected if t.numel())
    away = max(
        float((_wide(a) - _wide(b)).abs().max())
        for a, b in zip(found, expected, strict=True)
        if a.numel()
    )
    return away / max(largest, 1e-12)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
