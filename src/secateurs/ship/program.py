"""A model as one `torch.export` program that carries its classes and preprocessing, checked."""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.files import atomic_path
from secateurs.ship.about import about
from secateurs.ship.export import TOLERANCE, allowed, check_example
from secateurs.ship.lacking import cannot_hold
from secateurs.ship.spec import ModelSpec

EXTRA = "secateurs.json"


@dataclass(frozen=True)
class ProgramCheck:
    """A program's file and the largest difference of a logit from the model's on given images."""

    path: Path
    max_abs_difference: float
    num_bytes: int


def export_program(
    model: nn.Module,
    spec: ModelSpec,
    path: Path,
    example: Tensor,
    *,
    tolerance: float = TOLERANCE,
    card: Mapping[str, Any] | None = None,
) -> ProgramCheck:
    """Write a model as a `.pt2` file with a dynamic batch, whole or not at all, and check it.

    `example` (n, 3, size, size) holds real, preprocessed images: the file, read back, must give
    the model's logits on them within `tolerance`, at batch sizes 1 and n. What `about` says of the
    model, with `card`, is JSON in its extra file "secateurs.json". The model is not changed. Raises
    InputError for an example of another shape, RuntimeError when the check fails.
    """
    check_example(spec, example)
    network = copy.deepcopy(model).cpu().eval()
    images = example.detach().cpu().float()
    extra = about(spec, card)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's remarks on itself
        # Two images: a batch of one would be taken for a constant.
        sample = torch.zeros(2, *images.shape[1:])
        try:
            program = torch.export.export(
                network, (sample,), dynamic_shapes=({0: torch.export.Dim("batch")},)
            )
        except Exception as error:  # of the exporter's own kinds
            raise cannot_hold(path, "a PyTorch program", error, network, sample) from None
        _strip(program)
        # By way of memory: where a disk is full, the writer of the archive ends the process.
        packed = io.BytesIO()
        torch.export.save(program, packed, extra_files={EXTRA: json.dumps(extra)})
        temporary.write_bytes(packed.getbuffer())
        difference = _difference(network, temporary, images)
        most = allowed(network, images, difference, tolerance)
        # Written so that NaN fails, too.
        if not difference <= most:
            raise RuntimeError(
                f"{path}: the exported program differs from the model by {difference:.3g}, at most "
                f"{most:.3g} is allowed; not written"
            )
    return ProgramCheck(path, difference, path.stat().st_size)


def _strip(program: torch.export.ExportedProgram) -> None:
    """Leave out what no reader needs: source files with private paths, and the sample images."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    program.example_inputs = None


def _difference(model: nn.Module, path: Path, images: Tensor) -> float:
    with path.open("rb") as file:
        read = torch.export.load(file).module()
    largest = torch.zeros(())
    with torch.no_grad():
        for batch in dict.fromkeys((len(images), 1)):
            for part in images.split(batch):
                # torch.maximum, unlike max, keeps NaN.
                largest = torch.maximum(largest, (read(part) - model(part)).abs().max())
    return float(largest)
