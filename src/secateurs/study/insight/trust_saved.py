"""Saved networks measured for trust: one, or two on the same images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateurs.directories import clear_output, open_output
from secateurs.errors import InputError
from secateurs.files import read_json, write_json
from secateurs.fit.precision import resolve_device
from secateurs.paths import saved_model
from secateurs.progress import SILENT, Progress
from secateurs.ship.checkpoint import JSON_NAME, Loaded, load
from secateurs.stopping import StopFlag
from secateurs.study.insight.mistake_maps import add_maps
from secateurs.study.insight.mistakes import mistakes_record
from secateurs.study.insight.trust import TARGET, trust_record
from secateurs.study.records.sameness import refuse_other, refuse_other_images, shown_place
from secateurs.study.saved.confidence import KEY, Confidence, confidence_of
from secateurs.study.saved.evaluation import side_logits
from secateurs.study.saved.opened import open_saved
from secateurs.study.setup.seen_images import is_refitted
from secateurs.study.setup.trial_context import Dataset

MARKER = "trust.json"
KIND = "a measure of trust"
SCHEMA = 1
Record = dict[str, Any]


def trust_saved(
    model: Path,
    data: str,
    out: Path,
    *,
    against: Path | None = None,
    side: str = "test",
    target: float = TARGET,
    changes: Record | None = None,
    save_threshold: bool = False,
    cache: Path,
    overwrite: bool = False,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Record:
    """Measure a saved network, and another one `against` it, on a side; write `out`/trust.json.

    Of a study the pruned network is measured against the unpruned one. With `save_threshold` the
    network's own temperature and threshold are kept in its model.json, where `predict` finds them.
    Raises InputError for bad input and for two networks of other classes or preprocessing.
    """
    started = time.perf_counter()
    if side not in ("val", "test"):
        raise InputError(f"side must be val or test, got {side!r}")
    if not 0 < target <= 1:
        raise InputError(f"target must be above 0 and at most 1, got {target!r}")
    open_output(out, marker=MARKER, kind=KIND, early=("thumbnails",))
    place = saved_model(model)
    other = against or _unpruned(model, place)
    config: Record = {
        "model": str(model),
        "against": None if other is None else str(other),
        "data": shown_place(data),
        "side": side,
        "target": target,
    }
    if not overwrite:
        refuse_other(out / MARKER, config, KIND)
    loaded, _, dataset = open_saved(
        model, data, changes or {}, cache, progress, sides=("val", side)
    )
    if overwrite:
        clear_output(out, "trust")
    else:
        refuse_other_images(out / MARKER, dataset.identity(), KIND)
    device = resolve_device("auto")
    models: dict[str, torch.nn.Module] = {}
    known: dict[str, Confidence] = {}
    networks = [loaded]
    if other is not None:
        networks.insert(0, load(saved_model(other)))
        _check_alike(networks[0], loaded)
    for when, network in zip(("before", "after"), networks, strict=False):
        models[when] = network.model.to(device)
        if is_refitted(network.spec.extra):
            known[when] = confidence_of(network.spec)
    record: Record = {
        "schema": SCHEMA,
        "data": {"name": dataset.name, "classes": list(dataset.classes)},
        "config": config,
        "identity": dataset.identity(),
    }
    record |= trust_record(
        models, dataset, dataset.side_groups(side), side=side, target=target, known=known,
        device=device, stop=stop, progress=progress,
    )  # fmt: skip
    record["mistakes"] = mistakes_record(
        {when: _probabilities(model, dataset, side, device) for when, model in models.items()},
        dataset,
        side,
        out,
    )
    add_maps(record["mistakes"], models, dataset, side, out, device=device)
    record["seconds"] = round(time.perf_counter() - started, 2)
    write_json(out / MARKER, record)
    if save_threshold:
        last = list(models)[-1]
        _keep(place, record["networks"][last]["confidence"])
    return record


def _probabilities(
    model: torch.nn.Module, dataset: Dataset, side: str, device: torch.device
) -> NDArray[np.float64]:
    return torch.softmax(side_logits(model, dataset, side, device).double(), 1).numpy()


def _unpruned(model: Path, place: Path) -> Path | None:
    """A study's network before pruning, where `place` is the pruned one."""
    if place == model or not (model / "unpruned" / JSON_NAME).exists():
        return None
    return None if place == model / "unpruned" else model / "unpruned"


def _check_alike(one: Loaded, other: Loaded) -> None:
    if one.spec.classes != other.spec.classes:
        raise InputError("the two models have other classes: they cannot be compared")
    if one.spec.preprocessing != other.spec.preprocessing:
        raise InputError("the two models see images in another way: they cannot be compared here")


def _keep(place: Path, confidence: Record) -> None:
    path = place if place.is_file() else place / JSON_NAME
    plain = read_json(path)
    plain["extra"] = plain["extra"] | {KEY: confidence}
    write_json(path, plain)
