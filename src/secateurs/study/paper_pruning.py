"""Table 3 and the grid: the published rule with its noise, the text's, and what is possible."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.fit.inputs import prefix_outputs, run_frozen
from secateurs.nets.backbones import find_layer, layers
from secateurs.nets.depth import split_at, tail_path
from secateurs.nets.trace import eval_mode
from secateurs.progress import SILENT, Progress
from secateurs.prune.grid import GridOptions, LayerView, grid_cells, view_layer
from secateurs.prune.removal import find_consumer
from secateurs.stopping import StopFlag
from secateurs.study.bench import Bench
from secateurs.study.cut import prune_network, training_inputs
from secateurs.study.grid_rows import LayerSizes, accuracy, cell_row, mean_row
from secateurs.study.models import evaluate_model
from secateurs.study.paper_plan import PaperPlan
from secateurs.study.whole import Budget, prune_whole

Record = dict[str, Any]
LAYER = "fc7"
ROWS = 64
# The paper's own cell: 292 neurons without loss of accuracy.
CELL = (12.5, 2.0)


def grids(
    model: nn.Module, bench: Bench, plan: PaperPlan, *, stop: StopFlag, progress: Progress = SILENT
) -> Record:
    """The paper's grid on fc7, on the test images, in four ways.

    `published` is the program's: rows added to incoming weights, activations with the noise of new
    views and dropout if the plan says so. `quiet` is the same without noise; `text` adds outgoing
    weights, as the text (after Gedeon and Harris) says; `least_squares` refits them.
    """
    device, config = bench.device, bench.config
    layer = find_layer(model, config.backbone, LAYER)
    order = [one.path for one in layers(model, config.backbone)]
    prefix, tail = split_at(model.eval(), config.backbone, order.index(layer.path))
    train, test = bench.dataset.sides["train"], bench.dataset.sides["test"]
    with progress.task("images of the grid", 2 * len(train) + len(test)) as advance:
        inputs = training_inputs(train, prefix, config, device=device, advance=advance)
        images = prefix_outputs(test, prefix, device=device, advance=advance)
    path = tail_path(tail, layer.path)
    view = replace(view_layer(tail, path, inputs, images), copies=1 + config.augment)
    labels = torch.from_numpy(test.labels)
    sizes = LayerSizes.of(model, layer.path, "published")

    whole = GridOptions(angles_deg=plan.angles_deg, norm_stds=plan.norm_stds, rule="published")

    def rows(source: LayerView, options: GridOptions) -> list[Record]:
        return [cell_row(cell, labels, sizes) for cell in grid_cells(source, options)]

    if plan.noisy_activations:
        noisy: list[Record] = []
        cells = [(std, angle) for std in plan.norm_stds for angle in plan.angles_deg]
        with progress.task("cells of the grid, each with its own noise", len(cells)) as advance:
            for number, (std, angle) in enumerate(cells):
                stop.check()
                drawn = _noisy(prefix, tail, path, bench, number)
                one = replace(whole, angles_deg=(angle,), norm_stds=(std,))
                noisy += rows(replace(view, train=drawn, copies=1), one)
                advance(1)
        ways = {"published": noisy, "quiet": rows(view, whole)}
    else:
        ways = {"published": rows(view, whole)}
    ways["text"] = rows(view, replace(whole, rule="pairwise", compensation="add"))
    ways["least_squares"] = rows(view, replace(whole, rule="pairwise"))
    return {
        "layer": layer.alias,
        "num_units": sizes.units,
        "unpruned": accuracy(view.logits(view.answer(view.receive(view.outputs))), labels),
        "settings": {"angles_deg": list(plan.angles_deg), "norm_stds": list(plan.norm_stds)},
        "ways": {
            name: {
                "cells": cells,
                "by_angle": [mean_row(cells, angle) for angle in plan.angles_deg],
            }
            for name, cells in ways.items()
        },
    }


def _noisy(
    prefix: nn.Sequential, tail: nn.Sequential, path: str, bench: Bench, number: int
) -> Tensor:
    """Activations (samples, units) of the layer on new views, with dropout active before it."""
    train, device = bench.dataset.sides["train"], bench.device
    found: list[Tensor] = []
    for first in range(0, len(train), ROWS):
        batch = train.train_views(
            np.arange(first, min(first + ROWS, len(train))),
            seed=bench.config.seed,
            epoch=bench.config.epochs + number,  # views that training has not seen
            augmentation=bench.config.augmentation(),
            device=device,
        )
        found.append(run_frozen(prefix, batch, precision=bench.precision).float())
    consumer = find_consumer(tail, path)
    steps = tail[: [name for name, _ in tail.named_children()].index(path) + 1]
    with (
        torch.no_grad(),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        eval_mode(tail),
    ):
        torch.manual_seed(number)
        for step in steps.modules():
            if isinstance(step, nn.Dropout):
                step.train()
        given = steps(torch.cat(found))
    with torch.no_grad(), eval_mode(tail):
        return consumer.after(given)


def smallest(
    model: nn.Module, bench: Bench, *, stop: StopFlag, progress: Progress = SILENT
) -> list[Record]:
    """The smallest networks that lose nothing on validation: fc7, fc6 and fc7, the whole network.

    Units are merged by their angles and the next layers refitted by least squares; the whole
    network goes by the loss that each unit costs. No training follows.
    """
    sides = bench.dataset.sides
    rows = [_measured("unpruned", model, model, bench)]
    for names in ((LAYER,), ("fc6", LAYER)):
        stop.check()
        config = replace(bench.config, layers=names, max_loss=0.0)
        cut = prune_network(
            model, sides["train"], sides["val"], config, device=bench.device, progress=progress
        )
        kept = {layer["layer"]: layer["num_kept"] for layer in cut.layers}
        rows.append(_measured(" and ".join(names), cut.model, model, bench) | {"kept": kept})
    stop.check()
    whole = prune_whole(
        model,
        bench.dataset,
        bench.config,
        Budget(max_loss=0.0),
        device=bench.device,
        stop=stop,
        progress=progress,
    )
    rows.append(_measured("the whole network", whole.model, model, bench))
    return rows


def _measured(what: str, model: nn.Module, before: nn.Module, bench: Bench) -> Record:
    parts = [sum(p.numel() for p in one.parameters()) for one in (model, before)]
    return {
        "what": what,
        "kept": None,
        "num_parameters": parts[0],
        "fraction": parts[0] / parts[1],
        **{
            side: evaluate_model(model, bench.dataset, side, bench.device).to_json()
            for side in ("val", "test")
        },
    }
