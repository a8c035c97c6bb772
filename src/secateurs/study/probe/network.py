"""The probe of one network, computed once for the same images, network and weights."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.files import fingerprint
from secateurs.fit.probe.head import Head
from secateurs.fit.probe.probing import probe
from secateurs.fit.tensors import DamagedError, read_checked, write_checked
from secateurs.nets.backbones import layers
from secateurs.nets.depth import auto_depths, depth_name, num_depths, steps
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.records.checksummed import read_sealed, write_sealed
from secateurs.study.records.waiting import held
from secateurs.study.setup.trial_context import TrialContext

FORMAT = 4
Record = dict[str, Any]


@dataclass(frozen=True)
class EarlierScores:
    """The scores and the head of the classifier that also reads earlier depths."""

    train_scores: Tensor
    val_scores: Tensor
    head: Head


@dataclass(frozen=True)
class NetworkProbe:
    """What is known of one network: a plain record, and the scores of each image.

    `record["depths"]` has one row per depth, and `record["earlier"]` the figures of `earlier`.
    `train_scores` and `val_scores` are, by depth, the class scores (views, images, classes) of
    training images by a classifier that was fitted without their group, plain and mirrored, and
    those (images, classes) of validation images.
    """

    record: Record
    train_scores: dict[int, Tensor]
    val_scores: dict[int, Tensor]
    head: Head | None
    earlier: EarlierScores | None = None

    @property
    def name(self) -> str:
        """The network's name."""
        return self.record["backbone"]

    def row(self, depth: int) -> Record:
        """The row of a depth."""
        return next(row for row in self.record["depths"] if row["depth"] == depth)

    def correct(self, depth: int, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which images are classified correctly: training images out of their group, validation.

        `labels` are those of the training images, then of the validation images.
        """
        scores = torch.cat([self.train_scores[depth][0], self.val_scores[depth]])
        return scores.argmax(1).numpy() == labels


def probe_network(
    context: TrialContext,
    folder: Path,
    *,
    depths: Sequence[int] | None = None,
    balanced: bool = False,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> NetworkProbe:
    """Probe a network at some depths, by default some six; what `folder` has of it is believed.

    The record is sealed and the scores have a checksum: what was damaged, or belongs to other
    images, weights or depths, is computed again. Another process that wants the same waits.
    """
    name, dataset = context.config.backbone, context.dataset
    model = replace(context, head=None).new_model(seed=context.config.seed, pretrained=True)
    wanted = tuple(sorted(set(auto_depths(model, name) if depths is None else depths)))
    key = _key(context, wanted, balanced=balanced)
    path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}-{key[:12]}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with held(path.with_suffix(".lock"), f"the probe of {name}", stop=stop, progress=progress):
        found = _read(path, key)
        if found is not None:
            return found
        started = time.perf_counter()
        result = probe(
            model,
            name,
            wanted,
            dataset.sides["train"],
            dataset.sides["val"],
            num_classes=len(dataset.classes),
            groups=dataset.side_groups("train"),
            val_groups=dataset.side_groups("val"),
            balanced=balanced,
            device=context.device,
            precision=context.precision,
            stop=stop,
            progress=progress,
        )
        record: Record = _record(context, model, wanted) | {
            "key": key,
            "balanced": balanced,
            "seconds": round(time.perf_counter() - started, 2),
        }
        for row, one in zip(record["depths"], result.to_json(), strict=True):
            row.update(one)
        earlier = result.earlier
        if earlier is not None:
            record["earlier"] = earlier.probe.to_json() | {
                "paths": list(earlier.paths),
                "gain": asdict(earlier.gain),
            }
        made = NetworkProbe(
            record,
            {one.depth: one.train_scores for one in result.depths},
            {one.depth: one.val_scores for one in result.depths},
            result.head,
            earlier
            and EarlierScores(earlier.probe.train_scores, earlier.probe.val_scores, earlier.head),
        )
        write_checked(_tensors(made), path.with_suffix(".safetensors"), {"key": key})
        write_sealed(path, record)
        return made


def _key(context: TrialContext, depths: Sequence[int], *, balanced: bool) -> str:
    groups = {side: context.dataset.side_groups(side) for side in ("train", "val")}
    return fingerprint(
        {
            "format": FORMAT,
            "images": context.dataset.identity(),
            "classes": list(context.dataset.classes),
            "labels": [context.dataset.sides[side].labels.tolist() for side in ("train", "val")],
            "groups": {side: None if own is None else list(own) for side, own in groups.items()},
            "input": _input(context),
            "backbone": context.config.backbone,
            "weights": context.weights.sha256,
            "seed": None if not _random(context) else context.config.seed,
            "depths": list(depths),
            "balanced": balanced,
            "precision": context.precision,
            "device": context.device.type,
        }
    )


def _input(context: TrialContext) -> Record:
    """How an image becomes the network's input."""
    train = context.dataset.sides["train"]
    return {
        "size": train.size,
        "resize": context.config.resize,
        "mean": list(train.mean),
        "std": list(train.std),
    }


def _random(context: TrialContext) -> bool:
    """Whether layers besides the head have random weights."""
    return len(context.weights.fresh) > 1


def _record(context: TrialContext, model: torch.nn.Module, depths: Sequence[int]) -> Record:
    name = context.config.backbone
    borders = [step.depth for step in steps(model, name)]
    loaded = set(context.weights.loaded)
    names = [layer.alias for layer in layers(model, name)]
    return {
        "format": FORMAT,
        "backbone": name,
        "weights": context.weights.to_json(),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "input": _input(context),
        "num_parts": len(borders),
        "num_depths": num_depths(model, name),
        "precision": context.precision,
        "depths": [
            {
                "depth": depth,
                "name": depth_name(model, name, depth),
                # Parts before the first that is trained, of all parts but the head.
                "share": sum(border < depth for border in borders) / max(1, len(borders) - 1),
                "random_frozen": [layer for layer in names[:depth] if layer not in loaded],
            }
            for depth in depths
        ],
    }


def _tensors(found: NetworkProbe) -> dict[str, Tensor]:
    tensors = {f"train/{depth}": scores for depth, scores in found.train_scores.items()}
    tensors |= {f"val/{depth}": scores for depth, scores in found.val_scores.items()}
    if found.head is not None:
        tensors |= _head_tensors("head", found.head)
    if found.earlier is not None:
        tensors |= _head_tensors("earlier", found.earlier.head)
        tensors["earlier scores/train"] = found.earlier.train_scores
        tensors["earlier scores/val"] = found.earlier.val_scores
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _head_tensors(start: str, head: Head) -> dict[str, Tensor]:
    return {f"{start}/{name}": tensor for name, tensor in head.tensors().items()}


def _read_head(start: str, tensors: Mapping[str, Tensor]) -> Head | None:
    place = f"{start}/"
    own = {name.removeprefix(place): t for name, t in tensors.items() if name.startswith(place)}
    return Head.from_tensors(own) if "weight" in own else None


def _read(path: Path, key: str) -> NetworkProbe | None:
    record = read_sealed(path, unsealed=False)
    if record is None or record.get("key") != key:
        return None
    try:
        tensors, words = read_checked(path.with_suffix(".safetensors"))
    except (OSError, DamagedError):
        return None
    if words.get("key") != key:
        return None
    depths = [row["depth"] for row in record["depths"]]
    earlier = _read_head("earlier", tensors)
    return NetworkProbe(
        record,
        {depth: tensors[f"train/{depth}"] for depth in depths},
        {depth: tensors[f"val/{depth}"] for depth in depths},
        _read_head("head", tensors),
        earlier
        and EarlierScores(tensors["earlier scores/train"], tensors["earlier scores/val"], earlier),
    )
