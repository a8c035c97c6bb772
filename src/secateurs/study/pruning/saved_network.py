"""A whole saved network pruned to a budget, and what is written of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from secateurs.directories import clear_output, sweep_output
from secateurs.extras import installed
from secateurs.fit.precision import resolve_device
from secateurs.paths import saved_model
from secateurs.progress import SILENT, Progress
from secateurs.prune.reconstruction.options import options_of
from secateurs.prune.to_budget import Budget
from secateurs.ship.spec import describe
from secateurs.stopping import StopFlag
from secateurs.study.pruning.network import CALIBRATION, PrunedNetwork, prune_whole
from secateurs.study.pruning.network_ledger import LedgerRow, write_ledger
from secateurs.study.pruning.recovery import RecoveryOptions
from secateurs.study.pruning.saved_output import PrunedOutput, layer_names, write_output
from secateurs.study.saved.confidence import without_confidence
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.saved.opened import Record, open_saved

STATE = "recovery.state.safetensors"


def asked_for(
    budget: Budget,
    recovery: RecoveryOptions,
    calibration: int | None = CALIBRATION,
    reconstruction: Literal["blocks"] | None = "blocks",
) -> Record:
    """What pruning.json has under "budget": what decides the network beside model and images."""
    return asdict(budget) | {
        "recovery": asdict(recovery),
        "calibration": calibration,
        "reconstruction": reconstruction,
    }


def shrink_saved(
    model: Path,
    data: str,
    out: Path,
    budget: Budget,
    *,
    recovery: RecoveryOptions | None = None,
    calibration: int | None = CALIBRATION,
    reconstruction: Literal["blocks"] | None = "blocks",
    changes: Mapping[str, Any] | None = None,
    cache: Path,
    overwrite: bool = False,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Record:
    """Prune a whole saved network on a folder's training images; save the result in `out`.

    At most `calibration` training images, spread over the classes, are used before recovery (None
    for all). `reconstruction` tunes the blocks of the pruned network to give what they gave before,
    without labels. `changes` are fields of StudyConfig, such as another split. Returns what
    pruning.json holds: units by group, validation accuracy before, after pruning and after
    recovery, and cost before and after, measured in alternating rounds. The test images are not
    used. A recovery that is
    stopped resumes when the same is run again. With `overwrite` an earlier output in `out`, and the
    state of a recovery, is deleted first. Raises InputError for bad input, with nothing written.
    """
    sweep_output(out)
    loaded, config, dataset = open_saved(
        model, data, dict(changes or {}), cache, progress, unpruned=True
    )
    device = resolve_device(config.device)
    original = loaded.model.to(device)
    state = out / STATE
    recovery = (recovery or RecoveryOptions()).settled(config)
    tuning = options_of(reconstruction)
    asked = asked_for(budget, recovery, calibration, reconstruction)
    if overwrite:
        state.unlink(missing_ok=True)
    whole = prune_whole(
        original,
        dataset,
        config,
        budget,
        recovery=recovery,
        num_images=calibration,
        reconstruction=tuning,
        device=device,
        state_file=state,
        stop=stop,
        progress=progress,
    )
    if overwrite:
        clear_output(out, "prune")
    spec = describe(
        whole.model,
        loaded.spec.backbone,
        loaded.spec.classes,
        loaded.spec.preprocessing,
        kept=whole.pruned.channels,
        extra=without_confidence(loaded.spec.extra) | {"config": config.to_json(), "budget": asked},
        split=None if loaded.spec.split is None else dataset.record(loaded.spec.split),
    )
    names = layer_names(original, config.backbone)
    record = whole.record | {
        "groups": [_named(row, names) for row in whole.record["groups"]],
        "not_pruned": [_named(row, names) for row in whole.record["not_pruned"]],
        "budget": asked,
        "rule": None,
        "split": None if dataset.image_status is None else dataset.image_status.to_json(),
        "before": evaluate_model(original, dataset, "val", device).to_json(),
    }
    folder = saved_model(model, pruned=False)
    tensors = (folder.parent if folder.is_file() else folder) / "model.safetensors"
    answer = write_output(
        PrunedOutput(
            original=original,
            original_spec=loaded.spec,
            tensors=tensors,
            cut=whole.before_recovery,
            model=whole.model,
            spec=spec,
            dataset=dataset,
            write_ledger=lambda folder: write_ledger(
                folder, _units(whole, names), parquet=installed("parquet")
            ),
        ),
        record,
        out,
        progress=progress,
    )
    state.unlink(missing_ok=True)
    return answer


def _named(row: Record, names: Mapping[str, str]) -> Record:
    """A row with the name of its layer as options take it."""
    return row | {"name": names.get(row["name"], row["name"])}


def _units(whole: PrunedNetwork, names: Mapping[str, str]) -> list[LedgerRow]:
    """One row per unit: whether it is kept, when it was removed, and the predicted loss by then."""
    rows: list[LedgerRow] = []
    pruned = whole.pruned
    for group in pruned.groups.found:
        curve = pruned.survey.eliminations[group.name]
        stays = pruned.result.survivors.get(group.name, torch.arange(group.num_units)).tolist()
        kept = set(stays)
        place = {unit: k for k, unit in enumerate(curve.order.tolist())}
        for unit in range(group.num_units):
            k = place[unit]
            loss = float(curve.loss[k]) if k < len(curve.loss) else None
            action = "kept" if unit in kept else "removed"
            rows.append(LedgerRow(names.get(group.name, group.name), unit, action, k, loss))
    return rows
