"""The grid of a saved network: one layer at every angle and norm threshold, kept in a folder."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import secateurs
from secateurs.directories import INSTEAD, clear_output, open_output
from secateurs.errors import InputError
from secateurs.files import read_json, write_text
from secateurs.fit.inputs import prefix_outputs
from secateurs.fit.metrics import majority_share
from secateurs.fit.precision import resolve_device
from secateurs.limits import shown
from secateurs.nets.backbones import Layer, find_layer, layers
from secateurs.nets.depth import split_at, tail_path
from secateurs.paths import saved_model
from secateurs.progress import SILENT, Progress
from secateurs.prune.layer_grid import GridOptions, LayerView, grid_cells, view_layer
from secateurs.ship.checkpoint import Loaded
from secateurs.study.pruning.grid_rows import LayerSizes, accuracy, cell_row, csv_text, mean_row
from secateurs.study.pruning.tail import training_inputs
from secateurs.study.records.checksummed import read_sealed, write_sealed
from secateurs.study.records.kinds import check_grid, odd_keys
from secateurs.study.saved.opened import own_config, saved_dataset, unpruned_model
from secateurs.study.setup.config import StudyConfig, difference
from secateurs.study.setup.defaults import check_hidden, chosen_layers
from secateurs.study.setup.trial_context import Dataset, settle_split

SCHEMA = 1
SIDES = {"val": "validation", "test": "test"}
FILES = {"grid": "grid.json", "csv": "grid.csv", "page": "grid.html"}
Record = dict[str, Any]


@dataclass(frozen=True)
class GridPlan:
    """What a grid is asked for: its cells, the layer, and the side that cells are evaluated on."""

    options: GridOptions = field(default_factory=GridOptions)
    layer: str | None = None  # None is the hidden linear layer that feeds the head
    side: str = "val"

    def check(self) -> None:
        """Raise InputError on a side that is neither val nor test, and as the options do."""
        if self.side not in SIDES:
            raise InputError(f"side: expected one of {', '.join(SIDES)}, got {self.side!r}")
        self.options.check()

    def to_json(self) -> Record:
        """Plain data, as `grid.json` keeps it; the published rule has no compensation."""
        options = self.options
        return {
            "layer": self.layer,
            "angles_deg": list(options.angles_deg),
            "norm_stds": list(options.norm_stds),
            "rule": options.rule,
            "compensation": None if options.rule == "published" else options.compensation,
            "on": self.side,  # the name of this key in schema 1
        }


def parse_numbers(text: str, what: str) -> tuple[float, ...]:
    """Numbers from words such as `7.5,10`; InputError names what they are for.

    >>> parse_numbers("7.5, 10", "angles")
    (7.5, 10.0)
    """
    try:
        return tuple(float(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise InputError(f"{what}: expected numbers with commas, got {shown(text)}") from None


def grid_saved(
    model: Path,
    data: str,
    plan: GridPlan,
    out: Path,
    *,
    changes: Record,
    cache: Path,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Record:
    """Cut one layer of a saved network at every angle and norm threshold of `plan`.

    Pairs are looked at once, and so is every image; `changes` are fields of StudyConfig, for
    instance another split or device. Writes `out`/grid.json and grid.csv and returns what the
    first holds. A folder that holds the same grid is only read. Raises InputError for bad input
    and when `out` holds another grid or anything else.
    """
    started = time.perf_counter()
    plan.check()
    open_output(out, marker=FILES["grid"], kind="a grid", early=(FILES["csv"],))
    loaded = unpruned_model(model)
    model = saved_model(model, pruned=False)
    config = settle_split(data, own_config(loaded.spec, changes))
    (name,) = chosen_layers(
        None if plan.layer is None else (plan.layer,), loaded.model, config.backbone
    )
    layer = find_layer(loaded.model, config.backbone, name)
    check_hidden(loaded.model, loaded.spec.backbone, layer.path)
    settings = plan.to_json() | {"layer": layer.alias} | _split_words(config)
    stored = None if overwrite else _read(out)
    if stored is not None:
        _check_settings(out, stored, settings)
    dataset = saved_dataset(
        loaded.spec, data, config, cache=cache, progress=progress, sides=("train", plan.side)
    )
    identity = dataset.identity() | {"model": read_json(model / "model.json")["tensors"]["sha256"]}
    if stored is not None:
        _check_identity(out, stored, identity)
        write_text(out / FILES["csv"], csv_text(stored["cells"]))  # the file may be damaged
        return stored
    if overwrite:
        clear_output(out, "grid")
    opened = time.perf_counter()
    view = _look(loaded, config, layer, dataset, plan.side, progress)
    seen = time.perf_counter()
    cells = grid_cells(view, plan.options, progress=progress)
    done = time.perf_counter()
    labels = torch.from_numpy(dataset.sides[plan.side].labels)
    sizes = LayerSizes.of(loaded.model, layer.path, plan.options.rule)
    groups = dataset.side_groups(plan.side)
    rows = [cell_row(cell, labels, sizes, groups) for cell in cells]
    answer: Record = {
        "schema": SCHEMA,
        "settings": settings,
        "identity": identity,
        "model": {
            "name": model.resolve().name,
            "backbone": config.backbone,
            "depth": loaded.spec.extra.get("depth"),
            "num_parameters": sizes.whole,
        },
        "data": {"name": dataset.name, "num_images": len(dataset.audit.listing.names)},
        "split": {key: value for key, value in dataset.split_json().items() if key != "names"},
        "layer": {
            "layer": layer.alias,
            "path": layer.path,
            "num_units": sizes.units,
            "num_dead": int((view.train == 0).all(0).sum()),
        },
        "evaluated": {
            "on": plan.side,
            "side": SIDES[plan.side],
            "num_images": len(labels),
            "majority_accuracy": majority_share(labels.numpy()),
        },
        "unpruned": accuracy(view.logits(view.answer(view.receive(view.outputs))), labels, groups),
        "cells": rows,
        "by_angle": [mean_row(rows, angle) for angle in plan.options.angles_deg],
        "files": FILES,
        "versions": _versions(),
        "timing": {
            "opening": opened - started,
            "images": seen - opened,
            "cells": done - seen,
            "total": done - started,
        },
    }
    write_text(out / FILES["csv"], csv_text(rows))
    write_sealed(out / FILES["grid"], answer)
    return answer


def _split_words(config: StudyConfig) -> Record:
    plain = config.to_json()
    return {key: plain[key] for key in ("split", "group_by", "seed", "resize", "device")}


def _read(out: Path) -> Record | None:
    """What an earlier run has written; None when there is none, or it is damaged.

    A damaged one is made again. InputError on one of another version.
    """
    path = out / FILES["grid"]
    found = read_sealed(path)
    return None if found is None else check_grid(found, schema=SCHEMA, where=str(path))


def _check_settings(out: Path, found: Record, settings: Record) -> None:
    """Refuse a folder with another grid before the images are looked at."""
    if found["settings"] != settings:
        differs = difference(found["settings"], settings)
        raise InputError(f"{out}: holds a grid with other settings: {differs}; {INSTEAD}")


def _check_identity(out: Path, found: Record, identity: Record) -> None:
    odd = odd_keys(found["identity"], identity)
    if odd:
        raise InputError(f"{out}: holds a grid of other {' and '.join(odd)}; {INSTEAD}")


def _look(
    loaded: Loaded,
    config: StudyConfig,
    layer: Layer,
    dataset: Dataset,
    side: str,
    progress: Progress,
) -> LayerView:
    """The one pass over the training images, as pruning takes them, and those evaluated."""
    device = resolve_device(config.device)
    model = loaded.model.to(device).eval()
    order = [one.path for one in layers(model, config.backbone)]
    prefix, tail = split_at(model, config.backbone, order.index(layer.path))
    train, images = dataset.sides["train"], dataset.sides[side]
    num_sides = 1 + config.augment
    with progress.task("images", num_sides * len(train) + len(images)) as advance:
        inputs = training_inputs(train, prefix, config, device=device, advance=advance)
        others = prefix_outputs(images, prefix, device=device, advance=advance)
    view = view_layer(tail, tail_path(tail, layer.path), inputs, others)
    return replace(view, copies=num_sides)


def _versions() -> dict[str, str]:
    return {
        "secateurs": secateurs.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}",
    }
