"""Pruning a trained network on its training images: the tail is cut, the whole network follows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from secateurs.fit.inputs import Images, prefix_outputs
from secateurs.fit.metrics import predict_logits
from secateurs.nets.backbones import find_layer, layers
from secateurs.nets.depth import split_at, tail_path
from secateurs.progress import SILENT, Progress
from secateurs.prune.ledger import Ledger
from secateurs.prune.pipeline import PrunedLayer, PruneOptions, apply_cut, prune_layers
from secateurs.prune.removal import find_consumer
from secateurs.study.config import StudyConfig

ANGLE_STEP_DEG = 0.5

Cuts = tuple[PrunedLayer, ...]


@dataclass(frozen=True)
class Cut:
    """A pruned network, what was done to each layer, and the surviving units by layer path.

    `low_deg` is the angle that was used; `tried` what the search for it saw, one record an angle.
    """

    model: nn.Module
    layers: tuple[dict[str, Any], ...]
    kept: dict[str, list[int]]
    ledgers: tuple[Ledger, ...]
    parity: float
    low_deg: float
    tried: tuple[dict[str, Any], ...]
    seconds: float


def prune_network(
    model: nn.Module,
    train: Images,
    val: Images,
    config: StudyConfig,
    *,
    device: torch.device,
    progress: Progress = SILENT,
) -> Cut:
    """Remove similar units of `config.layers`, measured and refitted on the training images.

    The layers before the first one cut run once; all that follows works on their output. With
    `config.max_loss` (points of validation accuracy) the angle is the largest, up to
    `config.low_deg`, whose cut costs no more; otherwise it is `low_deg`. The
    model given is not changed. Raises InputError for a layer that is unknown or cannot be pruned,
    before anything is done.
    """
    started = time.perf_counter()
    paths, aliases = layers_to_cut(model, config)
    order = [layer.path for layer in layers(model, config.backbone)]
    prefix, tail = split_at(model.eval(), config.backbone, order.index(paths[0]))
    with progress.task("layers before the cut", len(train) + len(val)) as advance:
        inputs = prefix_outputs(train, prefix, device=device, advance=advance)
        val_inputs = prefix_outputs(val, prefix, device=device, advance=advance)
    labels = torch.from_numpy(val.labels)
    where = [tail_path(tail, path) for path in paths]

    def cut_at(low_deg: float) -> Cuts:
        options = PruneOptions(
            compensation=config.compensation,
            low_deg=low_deg,
            high_deg=config.high_deg,
            norm_std=config.norm_std,
        )
        return prune_layers(tail, where, inputs, options=options)

    def accuracy(module: nn.Module) -> float:
        answers = predict_logits(module, val_inputs).argmax(1)
        return float((answers == labels).double().mean())

    with progress.task("pruning", 1) as advance:
        if config.max_loss is None:
            cuts, low_deg, tried = cut_at(config.low_deg), config.low_deg, ()
        else:
            floor = accuracy(tail) - config.max_loss / 100
            cuts, low_deg, tried = search_angle(cut_at, accuracy, floor, config.low_deg)
        advance(1)
    pruned = model
    for path, cut in zip(paths, cuts, strict=True):
        pruned = apply_cut(pruned, path, cut)
    return Cut(
        model=pruned.eval(),
        layers=tuple(_record(*row) for row in zip(aliases, paths, cuts, strict=True)),
        kept={p: cut.selection.survivors.tolist() for p, cut in zip(paths, cuts, strict=True)},
        ledgers=tuple(cut.ledger for cut in cuts),
        parity=max(cut.parity for cut in cuts),
        low_deg=low_deg,
        tried=tried,
        seconds=time.perf_counter() - started,
    )


def layers_to_cut(model: nn.Module, config: StudyConfig) -> tuple[list[str], list[str]]:
    """Paths and aliases of the layers to prune, in the order they run.

    Raises InputError for a layer that is unknown or whose consumer cannot be found.
    """
    order = [layer.path for layer in layers(model, config.backbone)]
    found = {find_layer(model, config.backbone, text) for text in config.layers}
    for layer in found:
        find_consumer(model, layer.path)
    rows = sorted(found, key=lambda layer: order.index(layer.path))
    return [layer.path for layer in rows], [layer.alias for layer in rows]


def search_angle(
    cut_at: Callable[[float], Cuts],
    accuracy: Callable[[nn.Module], float],
    floor: float,
    highest_deg: float,
) -> tuple[Cuts, float, tuple[dict[str, Any], ...]]:
    """The cut at the largest angle, in steps of half a degree, whose accuracy is at least `floor`.

    Angles are tried from `highest_deg` downwards, since accuracy does not fall evenly with the
    angle; angle 0, which removes dead units alone, is taken when none is good. Returns the cut,
    its angle, and what was seen at each angle tried, in ascending order.
    """
    tried: list[dict[str, Any]] = []
    for low_deg in [*np.arange(highest_deg, 0, -ANGLE_STEP_DEG).tolist(), 0.0]:
        cuts = cut_at(low_deg)
        reached = accuracy(cuts[-1].model)
        kept = sum(len(cut.selection.survivors) for cut in cuts)
        tried.append({"low_deg": low_deg, "num_kept": kept, "val_accuracy": reached})
        if low_deg == 0 or reached >= floor - 1e-12:
            return cuts, low_deg, tuple(reversed(tried))
    raise AssertionError("angle 0 is always taken")


def _record(alias: str, path: str, cut: PrunedLayer) -> dict[str, Any]:
    histogram, selection = cut.histogram, cut.selection
    return {
        "layer": alias,
        "path": path,
        "num_units": selection.num_units,
        "num_kept": len(selection.survivors),
        "num_dead": selection.num_dead,
        "angle_deg_quantiles": {
            "p01": histogram.p01,
            "p50": histogram.p50,
            "p99": histogram.p99,
        },
        "angle_deg_histogram": {
            "edges": histogram.edges.tolist(),
            "counts": histogram.counts.tolist(),
        },
    }
