"""The grid of a saved network: one layer at every angle and norm threshold, kept in a folder."""

from __future__ import annotations

import csv
import io
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

import secateurs
from secateurs.errors import InputError
from secateurs.files import read_json, write_json, write_text
from secateurs.fit.inputs import prefix_outputs
from secateurs.fit.metrics import wilson_interval
from secateurs.fit.precision import resolve_device
from secateurs.nets.backbones import Layer, find_layer, layers
from secateurs.nets.depth import split_at, tail_path
from secateurs.progress import SILENT, Progress
from secateurs.prune.grid import Cell, GridOptions, LayerView, grid_cells, view_layer
from secateurs.prune.removal import find_consumer
from secateurs.ship.checkpoint import Loaded, load
from secateurs.study.bench import Dataset, open_dataset
from secateurs.study.config import StudyConfig, difference
from secateurs.study.single import own_config

SCHEMA = 1
SIDES = {"val": "validation", "test": "test"}
FILES = {"grid": "grid.json", "csv": "grid.csv", "page": "grid.html"}
COLUMNS = (
    *("low_deg", "norm_std", "num_candidates", "num_removed", "num_kept", "num_parameters"),
    *("num_correct", "accuracy", "accuracy_low", "accuracy_high", "ridge", "note"),
)

Record = dict[str, Any]


@dataclass(frozen=True)
class GridPlan:
    """What a grid is asked for: its cells, the layer, and the side that cells are evaluated on."""

    options: GridOptions = field(default_factory=GridOptions)
    layer: str = "fc7"
    on: str = "val"

    def check(self) -> None:
        """Raise InputError on a side that is neither val nor test, and as the options do."""
        if self.on not in SIDES:
            raise InputError(f"on: expected one of {', '.join(SIDES)}, got {self.on!r}")
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
            "on": self.on,
        }


def parse_numbers(text: str, what: str) -> tuple[float, ...]:
    """Numbers from words such as `7.5,10`; InputError names what they are for.

    >>> parse_numbers("7.5, 10", "angles")
    (7.5, 10.0)
    """
    try:
        return tuple(float(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise InputError(f"{what}: expected numbers with commas, got {text!r}") from None


def grid_saved(
    model: Path,
    data: str,
    plan: GridPlan,
    out: Path,
    *,
    changes: Record,
    cache: Path,
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
    _check_directory(out)
    loaded = load(model)
    if loaded.spec.kept:
        raise InputError(f"{model}: already pruned; give the network that it was made from")
    config = own_config(loaded.spec, changes)
    layer = find_layer(loaded.model, config.backbone, plan.layer)
    find_consumer(loaded.model, layer.path)
    settings = plan.to_json() | {"layer": layer.alias} | _split_words(config)
    _check_settings(out, settings)
    dataset = open_dataset(data, config, cache=cache, progress=progress)
    if dataset.classes != loaded.spec.classes:
        raise InputError(
            f"{data}: the model knows the classes {', '.join(loaded.spec.classes)}; "
            f"the folder has {', '.join(dataset.classes)}"
        )
    identity = dataset.identity() | {"model": read_json(model / "model.json")["tensors"]["sha256"]}
    stored = _stored(out, identity)
    if stored is not None:
        return stored
    opened = time.perf_counter()
    view = _look(loaded, config, layer, dataset, plan.on, progress)
    seen = time.perf_counter()
    cells = grid_cells(view, plan.options, progress=progress)
    done = time.perf_counter()
    labels = torch.from_numpy(dataset.sides[plan.on].labels)
    sizes = _Sizes.of(loaded.model, layer.path, plan.options.rule)
    rows = [_row(cell, labels, sizes) for cell in cells]
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
        "evaluated": {"on": plan.on, "side": SIDES[plan.on], "num_images": len(labels)},
        "unpruned": _accuracy(view.logits(view.answer(view.receive(view.outputs))), labels),
        "cells": rows,
        "by_angle": [_mean(rows, angle) for angle in plan.options.angles_deg],
        "files": FILES,
        "versions": _versions(),
        "timing": {
            "opening": opened - started,
            "images": seen - opened,
            "cells": done - seen,
            "total": done - started,
        },
    }
    write_text(out / FILES["csv"], _csv(rows))
    write_json(out / FILES["grid"], answer)
    return answer


def _split_words(config: StudyConfig) -> Record:
    plain = config.to_json()
    return {key: plain[key] for key in ("split", "group_by", "seed", "resize", "device")}


def _check_directory(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a directory, got a file")
    if out.is_dir() and any(out.iterdir()) and not (out / FILES["grid"]).exists():
        raise InputError(f"{out}: not empty and not a grid; choose a new directory")


def _check_settings(out: Path, settings: Record) -> None:
    """Refuse a folder with another grid before the images are looked at."""
    path = out / FILES["grid"]
    if not path.exists():
        return
    found = read_json(path)
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise InputError(f"{out}: a grid of another version of Secateurs; choose a new directory")
    if found["settings"] != settings:
        differs = difference(found["settings"], settings)
        raise InputError(f"{out}: holds a grid with other settings: {differs}; choose another")


def _stored(out: Path, identity: Record) -> Record | None:
    path = out / FILES["grid"]
    if not path.exists():
        return None
    found = read_json(path)
    odd = [key for key, value in identity.items() if found["identity"].get(key) != value]
    if odd:
        raise InputError(f"{out}: holds a grid of other {' and '.join(odd)}; choose another")
    if not (out / FILES["csv"]).exists():
        write_text(out / FILES["csv"], _csv(found["cells"]))
    return found


def _look(
    loaded: Loaded,
    config: StudyConfig,
    layer: Layer,
    dataset: Dataset,
    side: str,
    progress: Progress,
) -> LayerView:
    """The one pass over the training images and those of the side that is evaluated."""
    device = resolve_device(config.device)
    model = loaded.model.to(device).eval()
    order = [one.path for one in layers(model, config.backbone)]
    prefix, tail = split_at(model, config.backbone, order.index(layer.path))
    train, images = dataset.sides["train"], dataset.sides[side]
    with progress.task("images", len(train) + len(images)) as advance:
        inputs = prefix_outputs(train, prefix, device=device, advance=advance)
        others = prefix_outputs(images, prefix, device=device, advance=advance)
    return view_layer(tail, tail_path(tail, layer.path), inputs, others)


@dataclass(frozen=True)
class _Sizes:
    """Parameters of the network, of one unit, and of the bias that compensation may add."""

    whole: int
    units: int
    unit: int
    added: int

    @classmethod
    def of(cls, model: nn.Module, path: str, rule: str) -> _Sizes:
        layer, consumer = model.get_submodule(path), find_consumer(model, path).layer
        assert isinstance(layer, nn.Linear)
        biases = [dict(one.named_parameters()).get("bias") for one in (layer, consumer)]
        inner = layer.in_features + (biases[0] is not None) + consumer.out_features
        # Under the published rule rows become zero and none goes.
        kept = rule == "published"
        return cls(
            whole=sum(parameter.numel() for parameter in model.parameters()),
            units=layer.out_features,
            unit=0 if kept else inner,
            added=0 if kept or biases[1] is not None else consumer.out_features,
        )


def _accuracy(logits: torch.Tensor, labels: torch.Tensor) -> Record:
    num_correct = int((logits.argmax(1) == labels).sum())
    low, high = wilson_interval(num_correct, len(labels))
    return {
        "num_correct": num_correct,
        "accuracy": num_correct / len(labels),
        "accuracy_low": low,
        "accuracy_high": high,
    }


def _row(cell: Cell, labels: torch.Tensor, sizes: _Sizes) -> Record:
    empty = cell.logits is None
    answered: Record = dict.fromkeys(("num_correct", "accuracy", "accuracy_low", "accuracy_high"))
    if cell.logits is not None:
        answered = _accuracy(cell.logits, labels)
    return {
        "low_deg": cell.low_deg,
        "norm_std": cell.norm_std,
        "num_candidates": cell.num_candidates,
        "num_removed": cell.num_removed,
        "num_kept": sizes.units - cell.num_removed,
        "num_parameters": (
            None if empty else sizes.whole - cell.num_removed * sizes.unit + sizes.added
        ),
        **answered,
        "ridge": cell.ridge,
        "note": "every unit would be removed" if empty else None,
    }


def _mean(rows: list[Record], angle: float) -> Record:
    """The paper's Table 3: means over the norm thresholds, where there is an accuracy."""
    mine = [row for row in rows if row["low_deg"] == angle]
    known = [row["accuracy"] for row in mine if row["accuracy"] is not None]
    return {
        "low_deg": angle,
        "accuracy_mean": sum(known) / len(known) if known else None,
        "num_removed_mean": sum(row["num_removed"] for row in mine) / len(mine),
    }


def _csv(rows: list[Record]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _versions() -> dict[str, str]:
    return {
        "secateurs": secateurs.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}",
    }


def grid_words(answer: Record) -> str:
    """The grid for people: what was there before, and accuracy and removed units of each cell."""
    settings, layer, unpruned = answer["settings"], answer["layer"], answer["unpruned"]
    lines = [
        f"{layer['layer']} of {answer['model']['name']}: {layer['num_units']} units, "
        f"{layer['num_dead']} never fire; {answer['evaluated']['side']} accuracy before pruning "
        f"{unpruned['accuracy']:.1%} ({unpruned['accuracy_low']:.1%} to "
        f"{unpruned['accuracy_high']:.1%}) on {answer['evaluated']['num_images']} images",
        "accuracy and units removed, by norm threshold (rows) and angle (columns):",
        "  std" + "".join(f"{f'{angle:g}°':>14}" for angle in settings["angles_deg"]),
    ]
    width = len(settings["angles_deg"])
    for at, std in enumerate(settings["norm_stds"]):
        row = answer["cells"][at * width : (at + 1) * width]
        cells = [
            "all gone" if cell["accuracy"] is None else f"{cell['accuracy']:.1%} {removed:>5}"
            for cell, removed in ((cell, cell["num_removed"]) for cell in row)
        ]
        lines.append(f"{std:>5g}" + "".join(f"{cell:>14}" for cell in cells))
    if settings["on"] == "test":
        lines.append("these are test images: a cell chosen by them has no honest test accuracy")
    return "\n".join(lines)
