"""The probe of several networks on the same images and split."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.fit.metrics import grouped_interval
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.probe.choice import Suggestion, everything, suggest
from secateurs.study.probe.network import NetworkProbe, Record, probe_network
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import Dataset, open_context

SCHEMA = 1
FOLDER = "probe"


@dataclass(frozen=True)
class Probed:
    """The probes of all networks, with the plain record of a page and the images' labels.

    `labels` and `groups` are those of the training images, then of the validation images.
    """

    record: Record
    networks: tuple[NetworkProbe, ...]
    suggestions: tuple[Suggestion, ...]
    dataset: Dataset
    labels: NDArray[np.int64]
    groups: tuple[str, ...] | None

    def network(self, name: str) -> NetworkProbe:
        """The probe of a network."""
        return next(one for one in self.networks if one.name == name)


def run_probe(
    data: str,
    config: StudyConfig,
    backbones: Sequence[str],
    out: Path,
    *,
    weights: Mapping[str, str] | None = None,
    depths: Sequence[int] | None = None,
    balanced: bool = False,
    num: int = 3,
    allowed: Callable[[Record], bool] = everything,
    cache: Path,
    strict: bool = False,
    on_dataset: Callable[[Dataset], None] = lambda dataset: None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Probed:
    """Probe some networks, one after the other, and suggest which of them to fine-tune.

    A network whose weights cannot be had is left out, which is said and recorded; `weights` has the
    source of those for which it is not the configuration's. `depths` are the
    same for all networks; by default each has some six of its own. `allowed` is a predicate on a
    network's record, for constraints. `on_dataset` gets the images before they are used, and may
    raise. What is computed is kept in `out`/probe, so that the same
    call resumes. Raises InputError when no network can be probed.
    """
    started = time.perf_counter()
    found: list[NetworkProbe] = []
    skipped: list[Record] = []
    dataset: Dataset | None = None
    for name in dict.fromkeys(backbones):
        if stop is not None:
            stop.check()
        try:
            context = open_context(
                data,
                replace(
                    config,
                    backbone=name,
                    weights=(weights or {}).get(name, config.weights),
                    depths=(0,),
                ),
                cache=cache,
                strict=strict,
                progress=progress,
            )
        except InputError as error:
            if len(backbones) == 1:
                raise
            progress.note(f"{name} is left out: {error}")
            skipped.append({"backbone": name, "reason": str(error)})
            continue
        if dataset is None:
            on_dataset(context.dataset)
        dataset = context.dataset
        found.append(
            probe_network(
                context, out / FOLDER, depths=depths, balanced=balanced, stop=stop,
                progress=progress,
            )
        )  # fmt: skip
    if dataset is None:
        reasons = "; ".join(f"{one['backbone']}: {one['reason']}" for one in skipped)
        raise InputError(f"no network can be probed: {reasons or 'none was given'}")
    return gather(
        dataset, found, skipped, num=num, allowed=allowed,
        seconds=time.perf_counter() - started,
    )  # fmt: skip


def gather(
    dataset: Dataset,
    found: Sequence[NetworkProbe],
    skipped: Sequence[Record],
    *,
    num: int,
    allowed: Callable[[Record], bool],
    seconds: float,
) -> Probed:
    """The probes of some networks on the images of `dataset` as one result; see `run_probe`."""
    sides = ("train", "val")
    labels = np.concatenate([dataset.sides[side].labels for side in sides])
    parts = [dataset.side_groups(side) for side in sides]
    groups = None if None in parts else tuple(name for part in parts for name in part or ())
    suggestions = suggest(found, labels, groups, num=num, allowed=allowed)
    common = int(np.bincount(labels).argmax())
    val = dataset.sides["val"].labels == common
    low, high = grouped_interval(val, parts[1])
    record: Record = {
        "schema": SCHEMA,
        "data": {
            "name": dataset.name,
            "classes": list(dataset.classes),
            "num_train": len(dataset.sides["train"]),
            "num_val": len(dataset.sides["val"]),
            "num_groups": None if groups is None else len(set(groups)),
        },
        "majority": {"class": dataset.classes[common], "accuracy": float(val.mean())}
        | {"low": low, "high": high},
        "networks": [one.record for one in found],
        "skipped": list(skipped),
        "suggestions": [one.to_json() for one in suggestions],
        "seconds": round(seconds, 2),
    }
    return Probed(record, tuple(found), suggestions, dataset, labels, groups)
