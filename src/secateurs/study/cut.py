"""Pruning a trained network on its training images: the tail is cut, the whole network follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.fit.inputs import PAPER_AUGMENTATION, Images, ViewPlan, prepare_inputs
from secateurs.nets.backbones import find_layer, layers
from secateurs.nets.depth import split_at, tail_path
from secateurs.progress import SILENT, Progress
from secateurs.prune.ledger import Ledger
from secateurs.prune.pipeline import PrunedLayer, PruneOptions, apply_cut, prune_layers
from secateurs.prune.removal import find_consumer
from secateurs.study.config import StudyConfig

NUM_VIEWS = 4


@dataclass(frozen=True)
class Cut:
    """A pruned network, what was done to each layer, and the surviving units by layer path."""

    model: nn.Module
    layers: tuple[dict[str, Any], ...]
    kept: dict[str, list[int]]
    ledgers: tuple[Ledger, ...]
    parity: float
    seconds: float


def prune_network(
    model: nn.Module,
    images: Images,
    config: StudyConfig,
    *,
    device: torch.device,
    progress: Progress = SILENT,
) -> Cut:
    """Remove similar units of `config.layers`, measured and refitted on the training `images`.

    The layers before the first one cut run once over each image's evaluation view and, when the
    configuration augments, over a few augmented views of it. The model given is not changed.
    Raises InputError for a layer that is unknown or cannot be pruned, before anything is done.
    """
    name = config.backbone
    order = [layer.path for layer in layers(model, name)]
    chosen = {layer.path: layer for layer in (find_layer(model, name, x) for x in config.layers)}
    paths = sorted(chosen, key=order.index)
    for path in paths:
        find_consumer(model, path)
    prefix, tail = split_at(model.eval(), name, order.index(paths[0]))
    inputs = _tail_inputs(images, prefix, config, device=device, progress=progress)
    options = PruneOptions(
        compensation=config.compensation,
        low_deg=config.low_deg,
        high_deg=config.high_deg,
        norm_std=config.norm_std,
    )
    where = [tail_path(tail, path) for path in paths]
    cuts = prune_layers(tail, where, inputs, options=options, progress=progress)
    pruned = model
    for path, cut in zip(paths, cuts, strict=True):
        pruned = apply_cut(pruned, path, cut)
    return Cut(
        model=pruned.eval(),
        layers=tuple(
            _record(chosen[path].alias, path, cut) for path, cut in zip(paths, cuts, strict=True)
        ),
        kept={
            path: cut.selection.survivors.tolist() for path, cut in zip(paths, cuts, strict=True)
        },
        ledgers=tuple(cut.ledger for cut in cuts),
        parity=max(cut.parity for cut in cuts),
        seconds=sum(cut.seconds for cut in cuts),
    )


def _tail_inputs(
    images: Images,
    prefix: nn.Module,
    config: StudyConfig,
    *,
    device: torch.device,
    progress: Progress,
) -> Tensor:
    num_views = min(config.views or NUM_VIEWS, NUM_VIEWS)
    prepared = prepare_inputs(
        images,
        images,
        prefix,
        ViewPlan(
            seed=config.seed,
            num_views=num_views,
            augmentation=PAPER_AUGMENTATION if config.augment else None,
        ),
        num_epochs=num_views,
        device=device,
        budget_bytes=2**62 if config.augment else 0,
        progress=progress,
    )
    if prepared.stored is None:
        return prepared.val
    return torch.cat([prepared.val, prepared.stored.flatten(0, 1)])


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
