"""What a search says: the command that trains the best, one row a trial as CSV, and words."""

from __future__ import annotations

import csv
import io
import shlex
from typing import Any

from secateurs.study.search.space import WORDS, value_words
from secateurs.study.setup.config import StudyConfig
from secateurs.wording import counted

Record = dict[str, Any]

OPTIONS = {
    "batch_size": "batch-size",
    "weight_decay": "weight-decay",
    "label_smoothing": "label-smoothing",
    "schedule": "schedule",
    "dropout": "dropout",
    "views": "views",
    "rotation_deg": "rotation-deg",
    "min_scale": "min-scale",
    "backbone": "backbone",
    "weights": "weights",
    "split": "split",
    "group_by": "group-by",
    "resize": "resize",
    "image_size": "image-size",
    "precision": "precision",
    "device": "device",
    "seed": "seed",
}
MEASURES = (
    *("epochs", "num_runs", "num_diverged", "val_accuracy_mean", "val_accuracy_std"),
    *("val_accuracy_low", "val_accuracy_high", "val_accuracy_interval", "val_loss_mean"),
)
SHOWN = 5


def train_command(settings: Record, best: Record, data: str = "DATA", out: str = "MODEL") -> str:
    """The words that train the best configuration of a search, in its first run's seed.

    Options are left out where they are what `train` does without them.
    """
    chosen = settings | best["parameters"]
    depth = chosen.get("depth", (settings.get("depths") or [None])[0])
    words = ["secateurs", "train", data, "--out", out]
    words += ["--depth", str(depth), "--lr", str(chosen["lr"]), "--epochs", str(best["epochs"])]
    usual = StudyConfig().to_json()
    for name, option in OPTIONS.items():
        value = chosen.get(name, usual[name])
        if value == usual[name]:
            continue
        if value is None:
            value = {"batch_size": "full", "views": 0}[name]
        words += [f"--{option}", str(value)]
    if not chosen.get("augment", True):
        words.append("--no-augment")
    return shlex.join(words)


def csv_text(answer: Record) -> str:
    """One row per cell of a grid, or per trial."""
    text = io.StringIO()
    rows: list[Record] = answer["cells"] or [
        row | row["parameters"] | {"seconds": row["timing"]["seconds"]} for row in answer["trials"]
    ]
    names = [name for name in ("number", "rung", *WORDS) if name in rows[0]]
    extra = [n for n in ("last_epoch_accuracy_mean", "note", "seconds") if n in rows[0]]
    columns = [*names, *MEASURES, *extra]
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        # From 1, as people count; search.json has them from 0.
        counted = {name: row[name] + 1 for name in ("number", "rung") if name in row}
        writer.writerow(row | counted)
    return text.getvalue()


def search_words(answer: Record, data: str = "DATA") -> str:
    """The search for people: its cells or its best trials, the choice, and how to train it."""
    settings, best, cost = answer["settings"], answer["best"], answer["cost"]
    lines = _cell_lines(answer) if settings["method"] == "grid" else _trial_lines(answer)
    low, high = best["val_accuracy_low"], best["val_accuracy_high"]
    lines.append(
        f"best on validation: {value_words(best['parameters'])}, "
        f"{counted(best['epochs'], 'epoch')}: "
        f"{best['val_accuracy_mean']:.1%} ({low:.1%} to {high:.1%}, 95%) "
        f"on {counted(answer['evaluated']['num_images'], 'image')}; always answering "
        f"the largest class gives {answer['evaluated']['majority_accuracy']:.1%}"
    )
    alike = len(answer["alike"]["numbers"])
    if alike > 1:
        lines.append(
            f"{alike} of {answer['alike']['num_compared']} trainings of "
            f"{counted(answer['alike']['epochs'], 'epoch')} are not significantly different from it"
        )
    if settings["method"] == "grid":
        lines.append(
            f"{counted(cost['num_cells'], 'cell')} from "
            f"{counted(cost['num_trainings'], 'training')}: "
            f"{counted(cost['num_epochs'], 'epoch')} instead of {cost['epochs_apart']}"
        )
    lines.append(train_command(settings, best, data))
    return "\n".join(lines)


def _cell_lines(answer: Record) -> list[str]:
    epochs: list[int] = answer["settings"]["epochs"]
    lines = [
        "best validation accuracy within so many epochs (columns), by learning rate (rows):",
        f"{'lr':>8}" + "".join(f"{count:>8}" for count in epochs),
    ]
    cells: list[Record] = answer["cells"]
    for at in range(0, len(cells), len(epochs)):
        row = cells[at : at + len(epochs)]
        texts = [
            "diverged" if cell["val_accuracy_mean"] is None else f"{cell['val_accuracy_mean']:.1%}"
            for cell in row
        ]
        lines.append(f"{row[0]['lr']:>8g}" + "".join(f"{text:>8}" for text in texts))
    return lines


def _trial_lines(answer: Record) -> list[str]:
    known = [row for row in answer["trials"] if row["val_accuracy_mean"] is not None]
    order = sorted(known, key=lambda row: (-row["val_accuracy_mean"], row["val_loss_mean"]))
    return [
        f"{row['val_accuracy_mean']:.1%} at {counted(row['epochs'], 'epoch')}: "
        f"{value_words(row['parameters'])}"
        for row in order[:SHOWN]
    ]
