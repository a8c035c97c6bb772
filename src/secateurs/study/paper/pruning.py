"""Table 3 and the grid of fc7: the published rule with its noise, as others read it, refitted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.fit.inputs import prefix_outputs, run_frozen
from secateurs.nets.backbones import find_layer, layers
from secateurs.nets.depth import split_at, tail_path
from secateurs.nets.trace import eval_mode
from secateurs.progress import SILENT, Progress
from secateurs.prune.compensation.shared_ridge import share
from secateurs.prune.layer_grid import GridOptions, LayerView, grid_cells, view_layer
from secateurs.prune.surgery.removal import find_consumer
from secateurs.stopping import StopFlag
from secateurs.study.paper.protocol import BACKBONE, PaperPlan
from secateurs.study.pruning.grid_rows import LayerSizes, accuracy, cell_row, mean_row
from secateurs.study.pruning.tail import training_inputs
from secateurs.study.setup.trial_context import TrialContext
from secateurs.study.stages import Stages
from secateurs.threads import one_thread

Record = dict[str, Any]
LAYER = "fc7"
FIRST = "fc6"  # the first layer that a dropout feeds
ROWS = 64
# The paper's own cell: 292 units without loss of accuracy.
CELL = (12.5, 1.5)
RANDOM_DRAWS = 5


@dataclass(frozen=True)
class _Layer:
    """fc7 of the best network: quiet activations, test images, and what the noise needs."""

    view: LayerView
    labels: Tensor  # (images,) of the test images
    sizes: LayerSizes
    trunk: nn.Sequential  # what comes before the first dropout
    noisy: nn.Sequential  # from there to the layer's own output
    between: nn.Module  # from that to what the next layer receives

    def rows(self, options: GridOptions, train: Tensor | None = None) -> list[Record]:
        """The cells of a grid on the test images, with other activations where given."""
        view = self.view if train is None else replace(self.view, train=train, copies=1)
        return [cell_row(cell, self.labels, self.sizes) for cell in grid_cells(view, options)]


def _open(model: nn.Module, context: TrialContext, progress: Progress) -> _Layer:
    device, config = context.device, context.config
    order = [one.path for one in layers(model.eval(), BACKBONE)]
    path = find_layer(model, BACKBONE, LAYER).path
    prefix, tail = split_at(model, BACKBONE, order.index(path))
    train, test = context.dataset.sides["train"], context.dataset.sides["test"]
    with progress.task("images of the grid", 2 * len(train) + len(test)) as advance:
        inputs = training_inputs(train, prefix, config, device=device, advance=advance)
        images = prefix_outputs(test, prefix, device=device, advance=advance)
    view = view_layer(tail, tail_path(tail, path), inputs, images)
    trunk, rest = split_at(model, BACKBONE, order.index(find_layer(model, BACKBONE, FIRST).path))
    here = tail_path(rest, path)
    last = [name for name, _ in rest.named_children()].index(here)
    return _Layer(
        view=replace(view, copies=1 + config.augment),
        labels=torch.from_numpy(test.labels),
        sizes=LayerSizes.of(model, path, "published"),
        trunk=trunk,
        noisy=rest[: last + 1],
        between=nn.Sequential(*find_consumer(rest, here).between),
    )


def grids(
    model: nn.Module,
    context: TrialContext,
    plan: PaperPlan,
    stages: Stages,
    identity: Record,
    *,
    stop: StopFlag,
    progress: Progress = SILENT,
) -> Record:
    """The paper's grid on fc7, on the test images, read in several ways, and without its filter.

    `published` is the program's: rows added to incoming weights, activations with the noise of new
    views and dropout if the plan says so. `quiet` is the same without noise; `per_neuron` maps each
    unit by itself to [-0.5, 0.5] instead of all by one minimum and maximum; `text` adds outgoing
    weights, as Gedeon and Harris do; `least_squares` refits them. Each norm threshold of the noisy
    grid is a stage of its own.
    """
    layer = _open(model, context, progress)
    whole = GridOptions(angles_deg=plan.angles_deg, norm_stds=plan.norm_stds, rule="published")
    ways: dict[str, list[Record]] = {"published": layer.rows(whole)}
    if plan.noisy_activations:
        ways = {"published": [], "quiet": ways["published"]}
        number = len(plan.norm_stds) * len(plan.angles_deg)
        with progress.task("cells of the grid, each with its own noise", number) as advance:
            for at, std in enumerate(plan.norm_stds):
                first = at * len(plan.angles_deg)

                def row(std: float = std, first: int = first) -> Record:
                    return {"cells": _noisy_row(layer, context, whole, std, first, stop)}

                ways["published"] += stages.run(f"noise-{std:g}", identity, row)["cells"]
                advance(len(plan.angles_deg))
    stop.check()
    ways["per_neuron"] = layer.rows(whole, by_unit(layer.view.train))
    ways["text"] = layer.rows(replace(whole, rule="pairwise", compensation="add"))
    ways["least_squares"] = layer.rows(replace(whole, rule="pairwise"))
    stop.check()
    view, labels = layer.view, layer.labels
    return {
        "layer": LAYER,
        "num_units": layer.sizes.units,
        "num_dead": int((view.train == 0).all(0).sum()),
        "unpruned": accuracy(view.logits(view.answer(view.receive(view.outputs))), labels),
        "settings": {"angles_deg": list(plan.angles_deg), "norm_stds": list(plan.norm_stds)},
        "cell": list(CELL),
        "ways": {
            name: {
                "cells": cells,
                "by_angle": [mean_row(cells, angle) for angle in plan.angles_deg],
            }
            for name, cells in ways.items()
        },
        "unfiltered": _unfiltered(layer, plan.angles_deg),
    }


def by_unit(activations: Tensor) -> Tensor:
    """Activations (samples, units), each unit's mapped to [-0.5, 0.5]; a constant one's to -0.5.

    >>> by_unit(torch.tensor([[0.0, 3.0], [2.0, 3.0]])).tolist()
    [[-0.5, -0.5], [0.5, -0.5]]
    """
    low, high = activations.amin(0), activations.amax(0)
    span = torch.where(high > low, high - low, torch.ones_like(high))
    return (activations - low) / span - 0.5


def _noisy_row(
    layer: _Layer, context: TrialContext, whole: GridOptions, std: float, first: int, stop: StopFlag
) -> list[Record]:
    rows: list[Record] = []
    for number, angle in enumerate(whole.angles_deg, start=first):
        stop.check()
        one = replace(whole, angles_deg=(angle,), norm_stds=(std,))
        rows += layer.rows(one, _noisy(layer, context, number))
    return rows


def _noisy(layer: _Layer, context: TrialContext, number: int) -> Tensor:
    """Activations (samples, units) on new views, all dropout before the layer being active."""
    train, device = context.dataset.sides["train"], context.device
    found: list[Tensor] = []
    for first in range(0, len(train), ROWS):
        batch = train.train_views(
            np.arange(first, min(first + ROWS, len(train))),
            seed=context.config.seed,
            epoch=context.config.epochs + number,  # views that training has not seen
            augmentation=context.config.augmentation(),
            device=device,
        )
        found.append(run_frozen(layer.trunk, batch, precision=context.precision).float())
    with (
        torch.no_grad(),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        eval_mode(layer.noisy),
        eval_mode(layer.between),
    ):
        torch.manual_seed(number)
        for step in layer.noisy.modules():
            if isinstance(step, nn.Dropout):
                step.train()
        return layer.between(layer.noisy(torch.cat(found)))


def _unfiltered(layer: _Layer, angles_deg: tuple[float, ...]) -> list[Record]:
    """At each angle all similar units, however long: added, refitted, and as many at random.

    Accuracies of random units are means of `RANDOM_DRAWS` draws.
    """
    options = GridOptions(angles_deg=angles_deg, norm_stds=(0.0,), rule="pairwise")
    refitted = layer.rows(options)
    added = layer.rows(replace(options, compensation="add"))
    view = layer.view
    received = view.receive(view.outputs)
    nobody = torch.zeros(layer.sizes.units, dtype=torch.bool, device=received.device)
    found: list[Record] = []
    with one_thread(), torch.no_grad():
        shared = share(view.train, received, view.weight, view.answer(received), nobody)
        for mine, other in zip(refitted, added, strict=True):
            alive = [
                _random(layer.sizes.units, mine["num_removed"], draw).to(received.device)
                for draw in range(RANDOM_DRAWS if mine["num_kept"] > 0 else 0)
            ]
            dropped = [received * one for one in alive]
            answers = [
                [view.answer(one) for one in dropped],
                [shared.refit(one, copies=view.copies)[0] for one in alive],
            ]
            means = [_mean(layer, one) for one in answers]
            found.append(
                {
                    **{key: mine[key] for key in ("low_deg", "num_removed", "num_kept")},
                    "refitted": _answered(mine),
                    "added": _answered(other),
                    "random_dropped": means[0],
                    "random_refitted": means[1],
                }
            )
    return found


def _random(units: int, removed: int, draw: int) -> Tensor:
    """(units,) bool with `removed` units gone at random."""
    generator = torch.Generator().manual_seed(draw)
    alive = torch.ones(units, dtype=torch.bool)
    alive[torch.randperm(units, generator=generator)[:removed]] = False
    return alive


def _mean(layer: _Layer, answers: list[Tensor]) -> float | None:
    known = [accuracy(layer.view.logits(one), layer.labels)["accuracy"] for one in answers]
    return sum(known) / len(known) if known else None


def _answered(row: Record) -> Record:
    return {key: row[key] for key in ("accuracy", "accuracy_low", "accuracy_high")}
