"""A model as one ONNX file that carries its classes and preprocessing, checked against PyTorch."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.extras import installed, require
from secateurs.files import atomic_path
from secateurs.ship.about import about
from secateurs.ship.lacking import cannot_hold
from secateurs.ship.latency import onnx_session
from secateurs.ship.spec import ModelSpec

OPSET = 18
TOLERANCE = 1e-4
ROUNDING = 1e-5  # of the largest logit: what is within it is no difference
MAX_BYTES = 2**31 - 2**22  # of values: Protocol Buffers write at most 2 GiB, and the rest is small


@dataclass(frozen=True)
class OnnxCheck:
    """An ONNX file and the largest difference of a logit from PyTorch's on the images given."""

    path: Path
    max_abs_difference: float
    opset: int
    num_bytes: int


def export_onnx(
    model: nn.Module,
    spec: ModelSpec,
    path: Path,
    example: Tensor,
    *,
    tolerance: float = TOLERANCE,
    card: Mapping[str, Any] | None = None,
) -> OnnxCheck:
    """Write a model as ONNX with a dynamic batch, whole or not at all, and check it.

    `example` (n, 3, size, size) holds real, preprocessed images: ONNX Runtime must give PyTorch's
    logits on them within `tolerance` (within rounding, where they are larger than 10), at batch
    sizes 1 and n. What `about` says of the model, with `card`, is JSON in the file's metadata, one
    entry per key. The model is not changed. Raises InputError for an example of
    another shape, when the extra `onnx` is not installed and for values of 2 GiB or more,
    RuntimeError when the check fails.
    """
    require("onnx", "an ONNX file")
    obstacle = onnx_obstacle(model)
    if obstacle:
        raise InputError(f"{path}: {obstacle}; export it as .pt2")
    size = check_example(spec, example)
    network = copy.deepcopy(model).cpu().eval()
    images = example.detach().cpu().float()
    with atomic_path(path) as temporary:
        program = _program(network, torch.zeros(2, 3, size, size), path)
        _write(program, about(spec, card), temporary)
        difference = onnx_difference(network, temporary, images)
        most = allowed(network, images, difference, tolerance)
        # Written so that NaN fails, too.
        if not difference <= most:
            raise RuntimeError(
                f"{path}: ONNX Runtime differs from PyTorch by {difference:.3g}, at most "
                f"{most:.3g} is allowed; not written"
            )
    return OnnxCheck(path, difference, OPSET, path.stat().st_size)


def onnx_obstacle(model: nn.Module) -> str | None:
    """Why a network cannot be written as one ONNX file, or None when it can.

    >>> with torch.device("meta"):
    ...     large = nn.Linear(2**15, 2**15)
    >>> onnx_obstacle(large)
    "the network's values take 4.0 GiB, and an ONNX file holds less than 2"
    """
    if not installed("onnx"):
        return "the ONNX packages are not installed: pip install 'secateurs[onnx]'"
    num_bytes = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    if num_bytes > MAX_BYTES:
        size = f"{num_bytes / 2**30:.1f} GiB"
        return f"the network's values take {size}, and an ONNX file holds less than 2"
    return None


def check_example(spec: ModelSpec, example: Tensor) -> int:
    """The model's input size in pixels; InputError unless `example` is (n, 3, size, size)."""
    size = spec.preprocessing.size
    if example.ndim != 4 or tuple(example.shape[1:]) != (3, size, size) or len(example) < 1:
        raise InputError(
            f"example images: expected (n, 3, {size}, {size}), got {tuple(example.shape)}"
        )
    return size


def onnx_difference(model: nn.Module, path: Path, images: Tensor) -> float:
    """The largest absolute difference of a logit between ONNX Runtime and PyTorch.

    `images` is (n, 3, h, w); they are run in one batch and one by one.
    """
    session = onnx_session(path)
    name = session.get_inputs()[0].name
    largest = 0.0
    for batch in dict.fromkeys((len(images), 1)):
        for part in images.split(batch):
            with torch.no_grad():
                expected = model(part).numpy()
            (got,) = session.run(None, {name: part.numpy()})
            # np.maximum, unlike max, keeps NaN.
            largest = float(np.maximum(largest, np.abs(got - expected).max()))
    return largest


def allowed(model: nn.Module, images: Tensor, difference: float, tolerance: float) -> float:
    """How far logits may differ: `tolerance`, or more by rounding where logits are large.

    The model is run again only where the `difference` measured is more than the tolerance.
    """
    if difference <= tolerance:
        return tolerance
    return max(tolerance, _rounding(model, images))


def _rounding(model: nn.Module, images: Tensor) -> float:
    """How far logits may differ by the order in which numbers are added."""
    with torch.no_grad():
        return ROUNDING * max(float(model(image[None]).abs().max()) for image in images)


def _program(network: nn.Module, sample: Tensor, path: Path) -> Any:
    # `sample` is two images: a batch of one would be taken for a constant.
    try:
        with quiet_exporter():
            return torch.onnx.export(
                network,
                (sample,),
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # of the exporter's own kinds
        raise cannot_hold(path, "ONNX", error, network, sample) from None


def _write(program: Any, said: Mapping[str, Any], path: Path) -> None:
    program.model.metadata_props.clear()
    for key, value in said.items():
        program.model.metadata_props[key] = value if key == "backbone" else json.dumps(value)
    program.model.producer_name = "secateurs"
    # The exporter notes source files and lines at every node: private paths, and large.
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    # By way of memory: the exporter puts the weights of a large model into a second file, and the
    # writer's errors do not say that a disk is full.
    path.write_bytes(program.model_proto.SerializeToString())


@contextlib.contextmanager
def quiet_exporter() -> Generator[None]:
    """Keep the exporter's remarks off the terminal; its errors are raised all the same."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
