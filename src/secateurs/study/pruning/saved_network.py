"""A saved network pruned as a whole, to a budget: the cut, its cost, and what is written."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateurs.directories import sweep_output
from secateurs.files import write_json, write_text
from secateurs.fit.precision import resolve_device
from secateurs.progress import SILENT, Progress
from secateurs.prune.to_budget import Budget
from secateurs.ship.checkpoint import save
from secateurs.ship.cost import cost, cost_sentence
from secateurs.ship.latency import LARGE_BATCH, LatencyRow, latency_rows, torch_latency
from secateurs.ship.spec import describe
from secateurs.stopping import StopFlag
from secateurs.study.pruning.network import PrunedNetwork, prune_whole
from secateurs.study.pruning.recovery import RecoveryOptions
from secateurs.study.pruning.saved_layers import remarks
from secateurs.study.saved.evaluate_saved import evaluation_words
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.saved.opened import Record, open_saved
from secateurs.study.setup.trial_context import Dataset

LATENCY_S = 5.0
STATE = "recovery.state.safetensors"


def shrink_saved(
    model: Path,
    data: str,
    out: Path,
    budget: Budget,
    *,
    recovery: RecoveryOptions | None = None,
    changes: Mapping[str, Any] | None = None,
    cache: Path,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Record:
    """Prune a saved network as a whole on a folder's training images; save the result in `out`.

    `changes` are fields of StudyConfig, such as another split. Returns what was cut, validation
    before, after the cut and after recovery, and cost before and after, measured in turns; also in
    `out`/pruning.json, with one row a unit in `out`/units.csv. The test images are left alone. A
    recovery that is stopped goes on when the same is run again. Raises InputError for bad input,
    with nothing written.
    """
    sweep_output(out)
    loaded, config, dataset = open_saved(
        model, data, dict(changes or {}), cache, progress, unpruned=True
    )
    device = resolve_device(config.device)
    original = loaded.model.to(device)
    state = out / STATE
    recovery = recovery or RecoveryOptions()
    asked = asdict(budget) | {"recovery": asdict(recovery)}
    whole = prune_whole(
        original,
        dataset,
        config,
        budget,
        recovery=recovery,
        device=device,
        state_file=state,
        stop=stop,
        progress=progress,
    )
    spec = describe(
        whole.model,
        loaded.spec.backbone,
        loaded.spec.classes,
        loaded.spec.preprocessing,
        kept=whole.pruned.channels,
        extra=loaded.spec.extra | {"config": config.to_json(), "budget": asked},
        split=None if loaded.spec.split is None else dataset.record(loaded.spec.split),
    )
    (out / "pruning.json").unlink(missing_ok=True)  # of an earlier network, should this be stopped
    save(whole.model, spec, out)
    write_text(out / "units.csv", _units(whole))
    answer = whole.record | {
        "budget": asked,
        "backbone": config.backbone,
        "split": None if dataset.image_status is None else dataset.image_status.to_json(),
        "before": evaluate_model(original, dataset, "val", device).to_json(),
        "cut": evaluate_model(whole.before_recovery, dataset, "val", device).to_json(),
        "after": evaluate_model(whole.model, dataset, "val", device).to_json(),
        "cost": _price(original, whole.model, dataset, device, progress),
    }
    write_json(out / "pruning.json", answer)
    state.unlink(missing_ok=True)
    return answer


def _price(
    before: nn.Module,
    after: nn.Module,
    dataset: Dataset,
    device: torch.device,
    progress: Progress,
) -> Record:
    images = dataset.sides["train"].eval_views(slice(0, LARGE_BATCH), device)
    size = images.shape[-1]
    costs = cost(before, size=size), cost(after, size=size)

    def measure(batch: int) -> LatencyRow:
        return torch_latency(before, after, images, batch=batch, budget_s=LATENCY_S)

    with progress.task("latency", 1) as advance:
        most = max(one.activation_bytes or 0 for one in costs)
        rows = latency_rows(measure, most, largest=LARGE_BATCH)
        advance(1)
    return {
        "before": costs[0].to_json(),
        "after": costs[1].to_json(),
        "latency": [row.to_json() for row in rows],
        "sentence": cost_sentence(costs[0], costs[1], rows),
    }


def _units(whole: PrunedNetwork) -> str:
    """One row a unit: its group, whether it stays, when it went and the loss by then."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["group", "unit", "kept", "order", "loss"])
    for group in whole.pruned.groups.found:
        curve = whole.pruned.survey.eliminations[group.name]
        stays = whole.pruned.result.survivors.get(
            group.name, torch.arange(group.num_units)
        ).tolist()
        kept = set(stays)
        place = {unit: k for k, unit in enumerate(curve.order.tolist())}
        for unit in range(group.num_units):
            k = place[unit]
            loss = f"{float(curve.loss[k]):.6g}" if k < len(curve.loss) else ""
            writer.writerow([group.name, unit, int(unit in kept), k, loss])
    return text.getvalue()


def shrink_words(answer: Record) -> str:
    """What was cut and what it cost, for people."""
    rows = [row for row in answer["groups"] if row["num_kept"] < row["num_units"]]
    lines = [f"{row['name']}: {row['num_kept']} of {row['num_units']} units kept" for row in rows]
    lines += [f"left whole: {left['name']} ({left['reason']})" for left in answer["not_pruned"]]
    if answer["note"]:
        lines.append(f"only chains of layers were looked at: {answer['note']}")
    lines.append(f"before: {evaluation_words(answer['before'], 'validation')}")
    lines.append(f"cut: {evaluation_words(answer['cut'], 'validation')}")
    if answer["recovery"] is not None:
        lines.append(f"after recovery: {evaluation_words(answer['after'], 'validation')}")
    lines.append(answer["cost"]["sentence"])
    return "\n".join(lines + remarks(answer))
