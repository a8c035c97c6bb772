"""What scripts that cut whole networks share: fine-tuned networks by split, accuracy, spread."""

from __future__ import annotations

import argparse
import platform
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import nn

from secateurs.errors import InputError
from secateurs.files import cache_dir, read_json, write_json
from secateurs.progress import Console
from secateurs.ship.checkpoint import load, save
from secateurs.study.saved.evaluation import evaluate_model, model_spec
from secateurs.study.setup.config import StudyConfig, from_preset
from secateurs.study.setup.trial_context import TrialContext, open_context
from secateurs.study.trials.store import Store
from secateurs.study.trials.trial import SharedInputs, Trial, run_trial

Row = dict[str, Any]


def options(doc: str) -> argparse.ArgumentParser:
    """The words that all these scripts know."""
    found = argparse.ArgumentParser(description=doc.splitlines()[0])
    found.add_argument("data")
    found.add_argument("--group-by")
    found.add_argument("--backbone", default="alexnet")
    found.add_argument("--depth", type=int, default=5)
    found.add_argument("--weights", default="auto")
    found.add_argument("--store", default="networks", help="folder of the fine-tuned networks")
    found.add_argument("--json", type=Path, help="file for all figures, gone on from")
    found.add_argument("--splits", type=_counts, default=[0, 1, 2, 3, 4])
    return found


def _counts(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def heading() -> str:
    """When and where a measurement ran."""
    return (
        f"{datetime.now(UTC).date()}, {torch.get_num_threads()} threads, {platform.machine()}, "
        f"torch {torch.__version__}"
    )


def kept_rows(given: argparse.Namespace) -> list[Row]:
    """The rows that the file of figures holds already; InputError where it is of other networks."""
    if given.json is None or not given.json.exists():
        return []
    kept = read_json(given.json)
    if kept.get("subject") != _subject(given):
        raise InputError(
            f"{given.json}: subject: expected {_subject(given)}, got {kept.get('subject')}; "
            "give another --json file"
        )
    return kept["rows"]


def keep_rows(given: argparse.Namespace, rows: list[Row]) -> None:
    """Write the file of figures, if one was asked for."""
    if given.json is not None:
        write_json(given.json, {"subject": _subject(given), "rows": rows})


def _subject(given: argparse.Namespace) -> dict[str, Any]:
    """What all rows of a file are of."""
    return {
        "data": Path(given.data).name,
        "group_by": given.group_by,
        "backbone": given.backbone,
        "depth": given.depth,
        "weights": Path(given.weights).name,
    }


def trained(given: argparse.Namespace, split: int) -> tuple[nn.Module, TrialContext]:
    """The network of a split, from the store or fine-tuned now."""
    config: StudyConfig = replace(
        from_preset("quick"),
        backbone=given.backbone,
        group_by=given.group_by,
        weights=given.weights,
        depths=(given.depth,),
        runs=1,
        seed=split,
    )
    context = open_context(given.data, config, cache=cache_dir(), progress=Console())
    folder = Path(given.store) / f"{given.backbone}-{given.depth}-{split}"
    if not (folder / "model.json").exists():
        shared = SharedInputs(progress=Console())
        _, model = run_trial(context, Trial(given.depth, 0), shared, Store(folder))
        save(model, model_spec(model, context, depth=given.depth, kept={}), folder)
    return load(folder).model.to(context.device), context


def accuracy(model: nn.Module, context: TrialContext, side: str) -> float:
    return 100 * evaluate_model(model, context.dataset, side, context.device).accuracy


def spread(values: list[float]) -> str:
    """Mean and 95% interval over splits."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:+.1f}"
    half = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"
