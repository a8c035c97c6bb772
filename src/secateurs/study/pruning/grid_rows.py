"""What a grid says of each cell: counts, parameters, accuracy; as records, CSV and words."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateurs.fit.metrics import grouped_interval
from secateurs.prune.layer_grid import Cell, GridRule
from secateurs.prune.surgery.removal import find_consumer
from secateurs.wording import counted

ANSWERED = ("num_correct", "accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy")
COLUMNS = (
    *("low_deg", "norm_std", "num_candidates", "num_removed", "num_kept", "num_parameters"),
    *ANSWERED,
    *("ridge", "note"),
)

Record = dict[str, Any]


@dataclass(frozen=True)
class LayerSizes:
    """Parameters of the network, of one unit, and of the bias that compensation may add."""

    whole: int
    units: int
    unit: int
    added: int

    @classmethod
    def of(cls, model: nn.Module, path: str, rule: GridRule) -> LayerSizes:
        """Those of the linear layer at `path`; raises InputError as `find_consumer` does."""
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


def accuracy(
    logits: torch.Tensor, labels: torch.Tensor, groups: Sequence[str] | None = None
) -> Record:
    """Right answers and accuracy, in 0..1 with its 95% interval, and the balanced accuracy.

    `groups` are those of the images, whose errors the interval then takes to come in groups.

    >>> found = accuracy(torch.eye(2), torch.tensor([0, 0]))
    >>> found["num_correct"], found["accuracy"]
    (1, 0.5)
    """
    num_correct = int((logits.argmax(1) == labels).sum())
    low, high = grouped_interval((logits.argmax(1) == labels).numpy(), groups)
    right = (logits.argmax(1) == labels).double()
    recalls = [float(right[labels == label].mean()) for label in labels.unique()]
    return {
        "num_correct": num_correct,
        "accuracy": num_correct / len(labels),
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": sum(recalls) / len(recalls),
    }


def cell_row(
    cell: Cell, labels: torch.Tensor, sizes: LayerSizes, groups: Sequence[str] | None = None
) -> Record:
    """A cell as `grid.json` holds it."""
    empty = cell.logits is None
    answered: Record = dict.fromkeys(ANSWERED)
    if cell.logits is not None:
        answered = accuracy(cell.logits, labels, groups)
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


def mean_row(rows: list[Record], angle: float) -> Record:
    """The paper's Table 3: means over the norm thresholds, where there is an accuracy."""
    mine = [row for row in rows if row["low_deg"] == angle]
    known = [row["accuracy"] for row in mine if row["accuracy"] is not None]
    return {
        "low_deg": angle,
        "accuracy_mean": sum(known) / len(known) if known else None,
        "num_removed_mean": sum(row["num_removed"] for row in mine) / len(mine),
    }


def csv_text(rows: list[Record]) -> str:
    """The cells as CSV, one row each under a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def grid_words(answer: Record) -> str:
    """The grid for people: what was there before, and accuracy and removed units of each cell."""
    settings, layer, unpruned = answer["settings"], answer["layer"], answer["unpruned"]
    lines = [
        f"{layer['layer']} of {answer['model']['name']}: {layer['num_units']} units, "
        f"{layer['num_dead']} never fire; {answer['evaluated']['side']} accuracy before pruning "
        f"{unpruned['accuracy']:.1%} ({unpruned['accuracy_low']:.1%} to "
        f"{unpruned['accuracy_high']:.1%}) on "
        f"{counted(answer['evaluated']['num_images'], 'image')}; balanced "
        f"{unpruned['balanced_accuracy']:.1%}; always answering the largest class gives "
        f"{answer['evaluated']['majority_accuracy']:.1%}",
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
