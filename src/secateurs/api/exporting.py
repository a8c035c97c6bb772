"""Any model as an ONNX file or a PyTorch program, checked against PyTorch."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from secateurs.api.arguments import checked_number, file_to_write
from secateurs.api.batch_sizes import (
    MORE,
    batch_axes,
    batch_size,
    fixed_program,
    free_program,
    parted,
    with_samples,
)
from secateurs.api.models import call, call_with, check_runs, taken, unwrapped
from secateurs.api.plain_inputs import WithRecords, is_plain, plain
from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import atomic_path
from secateurs.nets.batches import map_tensors
from secateurs.nets.trace import copied, first_line, tensors_of
from secateurs.ship.export import OPSET, onnx_obstacle, quiet_exporter
from secateurs.ship.lacking import operator_in
from secateurs.ship.latency import onnx_session

# Of the largest output, by the type of the parameters: kernels round in other orders.
TOLERANCE = {torch.float16: 5e-3, torch.bfloat16: 4e-2}
OTHER_TOLERANCE = 1e-4
FIXED = "batch_size"  # what a file says of the only one that it takes

Outputs = Callable[[Any], list[Tensor]]  # what a file gives for inputs
Write = Callable[[torch.export.ExportedProgram, Path, str], Outputs]  # and what fixes the batch


@dataclass(frozen=True)
class ExportCheck:
    """An exported file, and its largest difference from PyTorch relative to the largest output.

    `batch_size` is the only number of samples that the file takes, None where it takes any, and
    `note` says why.
    """

    path: Path
    difference: float
    num_bytes: int
    batch_size: int | None = None
    note: str = ""


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
    tensor is the batch (the second one, where the model runs with more samples only so), whose size
    stays free where the model allows it: the file is tried on three samples more, and on one. Where
    it takes those of the example alone, a warning says why, and so do the result and the file
    ("batch_size", in the metadata of ONNX or an extra file of a program).

    The model is not changed. Raises InputError for another ending and for a model that cannot be
    exported, RuntimeError when the file's outputs differ by more than `tolerance` of the largest
    one, by default 1e-4 (float16 5e-3, bfloat16 4e-2). In ONNX a complex output is pairs of real
    numbers along a last axis. The file takes tuples for named tuples, and mappings of their fields
    for dataclasses.
    """
    path = file_to_write(path)
    unwrapped(model)
    if tolerance is not None:
        tolerance = checked_number(tolerance, "tolerance")
    if path.suffix not in (".onnx", ".pt2"):
        raise InputError(f"{path}: the file to write must end in .onnx or .pt2")
    if path.suffix == ".onnx":
        require("onnx", "an ONNX file")
        if obstacle := onnx_obstacle(model):
            raise InputError(f"{path}: {obstacle}")
    network = copied(unwrapped(model)).cpu().eval()
    inputs = map_tensors(call_with(example_inputs, network), lambda tensor: tensor.detach().cpu())
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
            found, note = _written(
                network, inputs, temporary, tolerance, onnx=path.suffix == ".onnx"
            )
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
            with _exporting():
                reason = operator_in(error, network, *parted(inputs))
            reason = reason and f"the format has no {reason}"
            reason = reason or f"{type(error).__name__}: {plain_line(error)}"
            raise InputError(f"{path}: the model cannot be exported ({reason})") from error
        difference = _difference(found, expected)
        if not difference <= tolerance:
            raise RuntimeError(
                f"{path}: its outputs differ from PyTorch's by {difference:.3g} of the largest, at "
                f"most {tolerance:.3g} is allowed; not written"
            )
    size = batch_size(inputs) if note else None
    if note:
        warnings.warn(f"{path}: written for a batch of {size} only: {note}", stacklevel=2)
    return ExportCheck(path, difference, path.stat().st_size, size, note)


def _written(
    network: nn.Module, inputs: Any, path: Path, tolerance: float, *, onnx: bool
) -> tuple[list[Tensor], str]:
    """Write a model; what the file gives for the inputs, and why it takes no other batch size."""
    write = _write_onnx if onnx else _write_program
    try:
        return _written_free(network, inputs, path, tolerance, write)
    except Exception as first:
        # Something beside tensors, as a cache of keys and values, is no output of a file.
        hook = network.register_forward_hook(lambda _, __, output: tuple(tensors_of(output)))
        try:
            return _written_free(network, inputs, path, tolerance, write)
        except Exception:
            raise first from first.__cause__
        finally:
            hook.remove()


def _written_free(
    network: nn.Module, inputs: Any, path: Path, tolerance: float, write: Write
) -> tuple[list[Tensor], str]:
    """Write a model for any batch size, or for that of the inputs where no file takes another."""
    number = batch_size(inputs)
    axes = batch_axes(inputs, lambda other: _outputs_if_any(network, other) is not None)
    why = "the model itself does not run on others" if axes is None else ""
    if axes is not None:
        others = [with_samples(inputs, axes, size) for size in (number + MORE, 1) if size != number]
        known = [(other, _outputs_if_any(network, other)) for other in others]
        # A batch of one would be taken for a constant.
        example = others[0] if number == 1 else inputs
        for strict in (False, True):
            try:
                with _exporting():
                    program = free_program(network, example, axes, strict=strict)
                run = write(program, path, "")
                found = run(inputs)
                if all(
                    expected is None or _difference(run(other), expected) <= tolerance
                    for other, expected in known
                ):
                    return found, ""
                why = why or "with a free one it gives other outputs than the model"
            except Exception as error:  # whatever an exporter raises; the next one may do better
                why = why or _why_fixed(error)
    with _exporting():
        program = fixed_program(network, inputs)
    return write(program, path, f"{number}: {why}")(inputs), why


def _why_fixed(error: Exception) -> str:
    """Why a program with a free batch size cannot be had, in words."""
    if any(word in str(error) for word in ("Guard failed", "specialized", "onstraint")):
        return (
            "PyTorch's exporter fixes it, as where a model loops over its samples or branches by "
            "their number"
        )
    return f"with a free one there is an error ({plain_line(error)})"


def _outputs_if_any(network: nn.Module, inputs: Any) -> list[Tensor] | None:
    try:
        return _outputs(network, inputs)
    except Exception:  # whatever the model raises on so many samples
        return None


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


def _write_program(program: torch.export.ExportedProgram, path: Path, fixed: str) -> Outputs:
    # By way of memory: where a disk is full, the writer of the archive ends the process.
    packed = io.BytesIO()
    with _exporting():
        torch.export.save(program, packed, extra_files={FIXED: fixed} if fixed else {})
        path.write_bytes(packed.getvalue())
        packed.seek(0)
        loaded = torch.export.load(packed).module()
    return lambda inputs: _outputs(loaded, inputs)


def _write_onnx(program: torch.export.ExportedProgram, path: Path, fixed: str) -> Outputs:
    with quiet_exporter(), _exporting():
        made: Any = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
    made.model.producer_name = "secateurs"
    if fixed:
        made.model.metadata_props[FIXED] = fixed
    for node in made.model.graph.all_nodes():  # source files and lines at every node
        node.metadata_props.clear()
        node.doc_string = None
    path.write_bytes(made.model_proto.SerializeToString())
    session = onnx_session(path)
    return lambda inputs: _run_onnx(session, inputs)


def _run_onnx(session: Any, inputs: Any) -> list[Tensor]:
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
