"""A study's images, weights and configuration as plain data and files, for other machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateurs.fit.images import Images
from secateurs.fit.precision import Precision
from secateurs.fit.probe.head import Head
from secateurs.nets.download import WeightsFile
from secateurs.nets.weights import WeightsReport
from secateurs.study.setup.config import StudyConfig, from_json
from secateurs.study.setup.trial_context import Dataset, TrialContext, seeded_model, with_weights
from secateurs.study.trials.contents import Column, Content, content_of, map_arrays, write_arrays
from secateurs.study.trials.kept_files import limit_bytes

Find = Callable[[Content], Path]
_FIELDS = ("pixels", "eval_pixels", "ids", "sizes", "labels")


@dataclass(frozen=True)
class Package:
    """A context in plain data, and the files that it names."""

    plain: dict[str, Any]
    files: tuple[Content, ...]


@dataclass(frozen=True)
class PackedImages:
    """Images by side, as a worker has them."""

    classes: tuple[str, ...]
    sides: dict[str, Images]
    packed_identity: dict[str, Any]

    def identity(self) -> dict[str, Any]:
        """What decides which pixels are on which side."""
        return self.packed_identity


@dataclass(frozen=True)
class PackedSetting:
    """A context as a worker has it: what a training needs and no more."""

    config: StudyConfig
    dataset: PackedImages
    weights: WeightsReport
    weights_file: WeightsFile
    device: torch.device
    precision: Precision
    cache: Path
    head: Head | None

    def new_model(self, *, seed: int, pretrained: bool) -> torch.nn.Module:
        """The network before training, as `TrialContext.new_model` gives it."""
        name = self.config.backbone
        model = seeded_model(name, len(self.dataset.classes), seed)
        if pretrained:
            model = with_weights(model, name, self.weights_file, self.head, cache=self.cache)
        return model.to(self.device)


class Packer:
    """Makes packages; files that are not yet on disk go to `folder`.

    The images of all sides are one file, the rows of each side another: contexts that differ in
    their split, weights or configuration share the images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._datasets: dict[int, tuple[Dataset, dict[str, Content]]] = {}

    def pack(self, context: TrialContext) -> Package:
        """A context as plain data, with its files by content."""
        files = dict(self._dataset(context.dataset))
        found = context.weights_file
        if found.path is not None:
            files["weights"] = content_of(found.path, found.sha256)
        if context.head is not None:
            files["head"] = write_arrays(
                _head_columns(context.head), self.folder, limit=limit_bytes()
            )
        train = context.dataset.sides["train"]
        plain: dict[str, Any] = {
            "config": context.config.to_json(),
            "classes": list(context.dataset.classes),
            "identity": context.dataset.identity(),
            "mean": list(train.mean),
            "std": list(train.std),
            "weights": context.weights.to_json(),
            "weights_source": [found.source, found.detail, found.sha256],
            "device": context.device.type,
            "precision": context.precision,
            "files": {name: file.to_json() for name, file in files.items()},
        }
        return Package(plain, tuple(files.values()))

    def _dataset(self, dataset: Dataset) -> dict[str, Content]:
        if id(dataset) not in self._datasets:  # kept, so that the number stays its own
            sides = dataset.sides
            rows = {name: np.asarray(getattr(dataset.split, name)) for name in sides}
            order = np.sort(np.concatenate(list(rows.values())))
            places = {
                name: Column.of(np.searchsorted(order, rows[name]).astype("<i8"))
                for name in ("train", "val")
            }
            files = {
                "images": write_arrays(_columns(sides, rows), self.folder, limit=limit_bytes()),
                "rows": write_arrays(places, self.folder, limit=limit_bytes()),
            }
            self._datasets[id(dataset)] = (dataset, files)
        return self._datasets[id(dataset)][1]


def unpack(plain: dict[str, Any], find: Find, cache: Path) -> PackedSetting:
    """What a `Packer` made plain, with the files that `find` gives."""
    files = {name: find(Content(**one)) for name, one in plain["files"].items()}
    arrays = map_arrays(files["images"])
    whole = Images(
        **{name: arrays[name] for name in _FIELDS},
        mean=tuple(plain["mean"]),
        std=tuple(plain["std"]),
    )
    sides = {name: whole.take(np.array(rows)) for name, rows in map_arrays(files["rows"]).items()}
    report = plain["weights"]
    source, detail, sha256 = plain["weights_source"]
    return PackedSetting(
        config=from_json(plain["config"]),
        dataset=PackedImages(tuple(plain["classes"]), sides, plain["identity"]),
        weights=WeightsReport(
            **report | {name: tuple(report[name]) for name in ("loaded", "fresh")}
        ),
        weights_file=WeightsFile(source, files.get("weights"), detail, sha256),
        device=torch.device(plain["device"]),
        precision=plain["precision"],
        cache=cache,
        head=_head(map_arrays(files["head"])) if "head" in files else None,
    )


def _columns(sides: dict[str, Images], rows: dict[str, NDArray[np.int64]]) -> dict[str, Column]:
    """The fields of all sides' images together, in the order of the listing."""
    order = np.argsort(np.concatenate(list(rows.values())), kind="stable")
    owner = np.repeat(np.arange(len(sides)), [len(side) for side in sides.values()])[order]
    place = np.concatenate([np.arange(len(side)) for side in sides.values()])[order]
    images = list(sides.values())

    def column(name: str) -> Column:
        first: NDArray[Any] = getattr(images[0], name)

        def part(start: int, stop: int) -> NDArray[Any]:
            found = np.empty((stop - start, *first.shape[1:]), first.dtype)
            for number, side in enumerate(images):
                mine = owner[start:stop] == number
                found[mine] = getattr(side, name)[place[start:stop][mine]]
            return found

        return Column((len(order), *first.shape[1:]), first.dtype, part)

    return {name: column(name) for name in _FIELDS}


def _head_columns(head: Head) -> dict[str, Column]:
    return {name: Column.of(tensor.numpy()) for name, tensor in head.tensors().items()}


def _head(arrays: dict[str, NDArray[Any]]) -> Head:
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    return Head.from_tensors(tensors)
