"""A grid of 45 cells against one cell, and against the paper's double loop over pairs per cell.

Without arguments: AlexNet with random weights and 405 + 135 drawn images, so the layer has 4096
units and the pass over images is the real one. With MODEL and DATA: the command itself, from its
start to the written page, in processes of its own. One cell is the same with one angle and one
norm threshold. The double loop is timed on a sample of pairs of the same layer and extrapolated.

    python benchmarks/speed/grid.py [MODEL DATA [--group-by REGEX]] [--layer fc7] [--rule pairwise]
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from secateurs.files import cache_dir
from secateurs.fit.inputs import prefix_outputs, run_frozen
from secateurs.nets.backbones import find_layer, layers
from secateurs.nets.depth import split_at, tail_path
from secateurs.progress import SILENT
from secateurs.prune.layer_grid import GridOptions, LayerView, grid_cells, view_layer
from secateurs.prune.similarity.normalise import directions, outside_norms
from secateurs.ship.checkpoint import load
from secateurs.study.pruning.tail import training_inputs
from secateurs.study.saved.opened import own_config, saved_dataset
from secateurs.study.setup.trial_context import seeded_model

ONE = GridOptions((12.5,), (1.0,))
LOOP_PAIRS = 20_000
BATCH = 32


def tail_of(model: nn.Module, backbone: str, layer: str) -> tuple[nn.Module, nn.Sequential, str]:
    """What runs before the layer, the rest, and where the layer is in it."""
    path = find_layer(model, backbone, layer).path
    order = [one.path for one in layers(model, backbone)]
    prefix, tail = split_at(model.eval(), backbone, order.index(path))
    return prefix, tail, tail_path(tail, path)


def drawn_images(number: int, seed: int) -> torch.Tensor:
    """Smooth random images (number, 3, 224, 224)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(number, 3, 14, 14, generator=generator)
    return nn.functional.interpolate(coarse, size=(224, 224), mode="bilinear")


def random_alexnet(layer: str) -> nn.Module:
    """AlexNet with random weights, its cells as different as can be.

    All layers keep the scale of what they receive; in the one to cut every fourth unit is a more
    or less noisy copy of the one before, and lengths are spread over orders of magnitude.
    """
    model = seeded_model("alexnet", 7, 0)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            nn.init.zeros_(module.bias)
    cut = model.get_submodule(find_layer(model, "alexnet", layer).path)
    assert isinstance(cut, nn.Linear)
    units, inputs = cut.weight.shape
    with torch.no_grad():
        noise = normal(units // 4, inputs) * math.sqrt(2 / inputs)
        share = torch.rand(units // 4, 1, generator=generator) / 2
        cut.weight[1::4] = cut.weight[0::4] + share * noise
        scale = normal(units).exp()
        cut.weight.mul_(scale[:, None])
        cut.bias.copy_(normal(units) * scale)
    return model


@dataclass(frozen=True)
class Cost:
    """Medians over the repeats: seconds by the clock, and of processor time."""

    wall: float
    cpu: float


def median(costs: list[Cost]) -> Cost:
    wall, cpu = ([getattr(cost, key) for cost in costs] for key in ("wall", "cpu"))
    return Cost(statistics.median(wall), statistics.median(cpu))


def synthetic(layer: str, options: GridOptions, repeats: int) -> tuple[list[Cost], LayerView]:
    """Cost of one cell and of all, pass over images included, and the layer."""
    prefix, tail, where = tail_of(random_alexnet(layer), "alexnet", layer)
    train, images = drawn_images(405, 1), drawn_images(135, 2)

    def outputs(batch: torch.Tensor) -> torch.Tensor:
        return torch.cat([run_frozen(prefix, part) for part in batch.split(BATCH)])

    costs: dict[bool, list[Cost]] = {True: [], False: []}
    view = view_layer(tail, where, outputs(train[:2]), outputs(images[:2]))
    for _ in range(repeats):
        for whole in (False, True):
            started, before = time.perf_counter(), time.process_time()
            view = view_layer(tail, where, outputs(train), outputs(images))
            seen = time.perf_counter()
            cells = grid_cells(view, options if whole else one_of(options))
            done = time.perf_counter()
            costs[whole].append(Cost(done - started, time.process_time() - before))
            name = f"{len(cells)} cells" if whole else "1 cell"
            print(f"{name}: images {seen - started:.2f} s, cells {done - seen:.3f} s", flush=True)
    return [median(costs[whole]) for whole in (False, True)], view


def one_of(options: GridOptions) -> GridOptions:
    return GridOptions(ONE.angles_deg, ONE.norm_stds, options.rule, options.compensation)


def command(words: argparse.Namespace) -> list[Cost]:
    """Cost of the command with one cell and with all, in a process of its own."""
    costs: dict[bool, list[Cost]] = {True: [], False: []}
    call = [sys.executable, "-c", "from secateurs.cli import main; main()", "grid"]
    call += [words.model, words.data, "--layer", words.layer, "--rule", words.rule, "--quiet"]
    if words.rule == "pairwise":
        call += ["--compensation", words.compensation]
    if words.group_by:
        call += ["--group-by", words.group_by]
    environment = {**os.environ, "OMP_NUM_THREADS": str(words.threads)}
    for _ in range(words.repeats):
        for whole in (False, True):
            cells = [] if whole else ["--angles-deg", "12.5", "--norm-stds", "1"]
            with tempfile.TemporaryDirectory() as out:
                used = resource.getrusage(resource.RUSAGE_CHILDREN)
                started = time.perf_counter()
                subprocess.run(
                    [*call, *cells, "--out", str(Path(out) / "grid")],
                    check=True,
                    stdout=subprocess.DEVNULL,
                    env=environment,
                )
                wall = time.perf_counter() - started
            now = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
            costs[whole].append(Cost(wall, cpu))
            print(f"{'all cells' if whole else '1 cell'}: {wall:.2f} s, {cpu:.2f} s of processor")
    return [median(costs[whole]) for whole in (False, True)]


def saved_view(words: argparse.Namespace) -> LayerView:
    """The layer of a saved model, for the double loop."""
    loaded = load(Path(words.model))
    config = own_config(loaded.spec, {"group_by": words.group_by})
    dataset = saved_dataset(
        loaded.spec, words.data, config, cache=cache_dir(), progress=SILENT, sides=("train", "val")
    )
    prefix, tail, where = tail_of(loaded.model, config.backbone, words.layer)
    device = torch.device("cpu")
    train = training_inputs(dataset.sides["train"], prefix, config, device=device)
    images = prefix_outputs(dataset.sides["val"], prefix, device=device)
    # With mirror images, as the command looks at them.
    return replace(view_layer(tail, where, train, images), copies=1 + config.augment)


def double_loop(view: LayerView, options: GridOptions) -> float:
    """Seconds that plain loops over pairs would take for all cells, extrapolated.

    Per cell the paper's program looks at every pair i < j, passes over those that are not both
    candidates, and computes the angle of the others, column by column.
    """
    source = directions(view.train)
    low, high = view.train.min(), view.train.max()
    columns = ((view.train - low) / (high - low) - 0.5).numpy().T.copy()
    units = len(columns)
    generator = np.random.default_rng(0)
    pairs = [tuple(sorted(generator.choice(units, 2, replace=False))) for _ in range(LOOP_PAIRS)]

    def seconds(candidate: np.ndarray) -> float:
        found = []
        started = time.perf_counter()
        for i, j in pairs:
            if candidate[i] and candidate[j]:
                a, b = columns[i], columns[j]
                cosine = np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
                angle = math.degrees(math.acos(min(1.0, max(-1.0, cosine))))
                if angle < 15 or angle > 165:
                    found.append((i, j))
        return (time.perf_counter() - started) / len(pairs)

    looked, passed = (seconds(np.full(units, value)) for value in (True, False))

    def cell(std: float) -> float:
        number = int(outside_norms(source.norm, std).sum())
        mine, total = number * (number - 1) / 2, units * (units - 1) / 2
        return mine * looked + (total - mine) * passed

    print(f"double loop: {looked * 1e6:.1f} us a pair of candidates, {passed * 1e6:.2f} us another")
    return sum(cell(std) for std in options.norm_stds) * len(options.angles_deg)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("data", nargs="?")
    parser.add_argument("--group-by")
    parser.add_argument("--layer", default="fc7")
    parser.add_argument("--rule", default="pairwise")
    parser.add_argument("--compensation", default="least_squares")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    words = parser.parse_args()
    if (words.model is None) != (words.data is None):
        parser.error("give MODEL and DATA, or neither")
    torch.set_num_threads(words.threads)
    kinds: dict[str, Any] = {"rule": words.rule, "compensation": words.compensation}
    options = GridOptions(**kinds)
    if words.model is None:
        (one, whole), view = synthetic(words.layer, options, words.repeats)
    else:
        one, whole = command(words)
        view = saved_view(words)
    started = time.perf_counter()
    cells = grid_cells(view, options)
    alone = time.perf_counter() - started
    loop = double_loop(view, options)
    num = len(cells)
    what = "random AlexNet" if words.model is None else Path(words.data).name
    step = "" if words.rule == "published" else f", {words.compensation}"
    print(
        f"\n{datetime.date.today().isoformat()}, {words.threads} threads, {platform.machine()}, "
        f"torch {torch.__version__}\n\n"
        "| what | rule | units | 1 cell, s | 45 cells, s | ratio | processor, s | ratio | "
        "cells alone, s | double loops, s | times |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|\n"
        f"| {what}, {words.layer} | {words.rule}{step} | {view.train.shape[1]} | {one.wall:.2f} | "
        f"{whole.wall:.2f} | {whole.wall / one.wall:.2f} | {one.cpu:.2f}, {whole.cpu:.2f} | "
        f"{whole.cpu / one.cpu:.2f} | {alone:.2f} | {loop:.0f} | {loop / alone:.0f} |\n\n"
        f"{num} cells, {len({tuple(c.alive.tolist()) for c in cells})} with survivors of their "
        f"own; {min(c.num_removed for c in cells)} to {max(c.num_removed for c in cells)} units "
        f"removed. The paper's program also passes every image through the network in every cell: "
        f"{num} x {one.wall:.1f} s and the loops are {(num * one.wall + loop) / whole.wall:.0f} "
        "times ours."
    )


if __name__ == "__main__":
    main()
