"""Backbones worth comparing: a short list over sizes, of those whose weights can be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secateurs.errors import InputError
from secateurs.nets.backbones import bare, preprocessing
from secateurs.nets.batches import blank_image
from secateurs.nets.counting import macs
from secateurs.nets.download import WeightsFile, find_weights
from secateurs.progress import SILENT, Progress

# From small to large; each is the usual choice of its size, and comes with published weights.
AUTO = (
    "squeezenet1_1",
    "mobilenet_v2",
    "resnet18",
    "resnet50",
)


@dataclass(frozen=True)
class Candidate:
    """A backbone whose weights are on this machine; its cost is for one image at its own size."""

    name: str
    file: WeightsFile
    num_parameters: int
    macs: int
    size: int


@dataclass(frozen=True)
class Skipped:
    """A backbone that was left out, and why."""

    name: str
    reason: str


def candidates(
    names: Sequence[str] = AUTO, *, cache: Path, progress: Progress = SILENT
) -> tuple[tuple[Candidate, ...], tuple[Skipped, ...]]:
    """Those of some backbones whose weights are at hand or can be had, and the others."""
    found: list[Candidate] = []
    skipped: list[Skipped] = []
    for name in names:
        try:
            found.append(candidate(name, cache=cache, progress=progress))
        except InputError as error:
            skipped.append(Skipped(name, str(error)))
    return tuple(found), tuple(skipped)


def candidate(
    name: str, *, weights: str | Path = "auto", cache: Path, progress: Progress = SILENT
) -> Candidate:
    """A backbone with the file of its weights; raises InputError where there are none."""
    file = find_weights(name, weights, cache=cache, progress=progress)
    size = preprocessing(name).size
    network = bare(name, 1000)
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return Candidate(name, file, num_parameters, macs(network, blank_image(network, size)), size)
