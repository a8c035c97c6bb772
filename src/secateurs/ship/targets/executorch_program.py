"""`.pte`, a program for ExecuTorch on phones and boards, with XNNPACK; classes in a JSON beside."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import atomic_path, sha256_file
from secateurs.nets.several_depths import FixedNorm
from secateurs.nets.trace import copied
from secateurs.ship.about import about, read_beside, write_beside
from secateurs.ship.export import check_example
from secateurs.ship.lacking import cannot_hold, first_line
from secateurs.ship.latency import fill_batch
from secateurs.ship.spec import ModelSpec
from secateurs.ship.targets.checking import checked, cpu_images
from secateurs.ship.targets.target import FileCheck, Images, Logits, OpenedFile

NAME = "ExecuTorch"
ENDING = ".pte"
EXTRA = "executorch"
MOST_BATCH = 64  # memory is planned for it


def write(
    model: nn.Module,
    spec: ModelSpec,
    path: Path,
    example: Tensor,
    *,
    card: Mapping[str, Any] | None = None,
) -> FileCheck:
    """Write a model for batches of 1 to 64, with a JSON file beside it; see `Target.write`."""
    require(EXTRA, "an ExecuTorch file")
    size = check_example(spec, example)
    network = _with_weights(copied(model).cpu().eval())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            packed = _program(network, size)
    except Exception as error:  # of the converter's own kinds
        raise cannot_hold(path, NAME, error, network, torch.zeros(2, 3, size, size)) from None
    with atomic_path(path) as temporary:
        temporary.write_bytes(packed)
        images, run = cpu_images(example), _runner(temporary)
        difference = checked(run, network, images, path)
        run(fill_batch(images, MOST_BATCH).numpy())  # raises where its memory is for fewer
        write_beside(path, about(spec, card), sha256=sha256_file(temporary))
    return FileCheck(path, difference, path.stat().st_size)


def _with_weights(network: nn.Module) -> nn.Module:
    """The network, its batch norms without weights replaced by ones with weights of one.

    XNNPACK's pass names what it makes of a norm after the norm's weight, so that of several norms
    without weights each would get the values of another.
    """
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            if (
                not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
                or "weight" in norm.state_dict()
            ):
                continue
            if type(norm) in (FixedNorm, nn.BatchNorm1d, nn.BatchNorm2d):
                kind = nn.BatchNorm2d if isinstance(norm, nn.BatchNorm2d) else nn.BatchNorm1d
                made = kind(norm.num_features, eps=norm.eps)
                made.load_state_dict(norm.state_dict(), strict=False)
                setattr(parent, name, made.eval())
    return network


def _program(network: nn.Module, size: int) -> bytes:
    lower: Any = import_module("executorch.exir").to_edge_transform_and_lower
    xnnpack: Any = import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    # As many images as it is for: of fewer than 16 a convolution makes memory for at most 15.
    exported = torch.export.export(
        network,
        (torch.zeros(MOST_BATCH, 3, size, size),),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=MOST_BATCH)},),
    )
    return lower(exported, partitioner=[xnnpack.XnnpackPartitioner()]).to_executorch().buffer


def open(path: Path) -> OpenedFile:
    """Open a file that Secateurs wrote; see `Target.open`."""
    require(EXTRA, "an ExecuTorch file")
    spec = read_beside(path)  # first: a damaged program may end the process
    try:
        run = _runner(path)
    except Exception as error:  # of ExecuTorch's own kinds
        raise InputError(f"{path}: not readable as ExecuTorch ({first_line(error)})") from None
    return OpenedFile(spec, run)


def _runner(path: Path) -> _Running:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental
        runtime: Any = import_module("executorch.runtime").Runtime.get()
        data = path.read_bytes()
        program = runtime.load_program(data)
        method = program.load_method("forward")
    return _Running(data, program, method)


@dataclass(frozen=True)
class _Running:
    """A method with what it reads and does not keep alive: the file's bytes and the program."""

    data: bytes
    program: Any
    method: Any

    def __call__(self, images: Images) -> Logits:
        # In the plain order of memory: a method reads any other order wrongly, without an error.
        parts = torch.from_numpy(images).contiguous().split(MOST_BATCH)
        # A copy: the next call writes into the same memory.
        return torch.cat([self.method.execute([part])[0].clone() for part in parts]).numpy()
