"""Backbones worth comparing: a short list over sizes, of those whose weights can be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secateurs.nets.backbones import backbones, bare, preprocessing
from secateurs.nets.batches import blank_image
from secateurs.nets.counting import macs
from secateurs.nets.download import NoWeightsError, WeightsFile, find_weights
from secateurs.nets.sources import timm_models
from secateurs.progress import SILENT, Progress

# From small to large, each a usual choice of its size; the files have 5 to 98 MB, 205 MB together.
AUTO = (
    "squeezenet1_1",
    "mobilenet_v2",
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite2",
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
    """Those of some backbones whose weights are at hand or can be had, and the others.

    Weights that are not on this machine are fetched. A site that does not answer is asked once, so
    that without a network this takes seconds. Raises InputError for an unknown name.
    """
    found: list[Candidate] = []
    skipped: list[Skipped] = []
    unreachable: set[str] = set()
    for name in dict.fromkeys(names):
        if name in AUTO and name not in backbones() and not timm_models.is_installed():
            skipped.append(Skipped(name, "timm is not installed"))
            continue
        try:
            one = candidate(name, cache=cache, progress=progress, unreachable=unreachable)
            found.append(one)
        except NoWeightsError as error:
            skipped.append(Skipped(name, f"no pretrained weights; tried {error.tried}"))
    return tuple(found), tuple(skipped)


def candidate(
    name: str,
    *,
    weights: str | Path = "auto",
    cache: Path,
    progress: Progress = SILENT,
    unreachable: set[str] | None = None,
) -> Candidate:
    """A backbone with the file of its weights; raises InputError where there are none.

    `unreachable` are sites that are not asked again (see `find_weights`).
    """
    file = find_weights(name, weights, cache=cache, progress=progress, unreachable=unreachable)
    size = preprocessing(name).size
    network = bare(name, 1000)
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    return Candidate(name, file, num_parameters, macs(network, blank_image(network, size)), size)
