"""Named layers of a saved network pruned, and what is written of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from secateurs.directories import clear_output, sweep_output
from secateurs.extras import installed
from secateurs.files import write_json
from secateurs.fit.precision import resolve_device
from secateurs.paths import saved_model
from secateurs.progress import SILENT, Progress
from secateurs.prune.ledger import write_csv, write_parquet
from secateurs.ship.checkpoint import save
from secateurs.ship.spec import ModelSpec, describe
from secateurs.study.pruning.saved_output import PrunedOutput, write_output
from secateurs.study.pruning.tail import Cut, layers_to_cut, prune_network
from secateurs.study.saved.confidence import without_confidence
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.saved.opened import own_config, saved_dataset, unpruned_model
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.defaults import chosen_layers
from secateurs.study.setup.trial_context import Dataset, settle_split

Record = dict[str, Any]


def prune_saved(
    model: Path,
    data: str,
    out: Path,
    *,
    changes: Record,
    cache: Path,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Record:
    """Prune layers of a saved network on a folder's training images; save the result in `out`.

    `changes` are fields of StudyConfig: the layers, angles, compensation and, if it is not to be
    that of the network, the split. Training images are those that the network was trained on, and
    validation images those that it was selected on, as far as they are in the folder; its test
    images are not used. Returns what pruning.json holds: units by layer, validation accuracy and
    cost before and after. With `overwrite` an earlier output in `out` is deleted first. Raises
    InputError for bad input, with nothing written.
    """
    sweep_output(out)
    loaded = unpruned_model(model)
    layers = chosen_layers(changes.get("layers"), loaded.model, loaded.spec.backbone)
    config = settle_split(data, own_config(loaded.spec, changes | {"layers": layers}))
    layers_to_cut(loaded.model, config)
    dataset = saved_dataset(
        loaded.spec, data, config, cache=cache, progress=progress, sides=("train", "val")
    )
    device = resolve_device(config.device)
    original = loaded.model.to(device)
    before = evaluate_model(original, dataset, "val", device).to_json()
    sides = dataset.sides
    cut = prune_network(
        original, sides["train"], sides["val"], config, device=device, progress=progress
    )
    if overwrite:
        clear_output(out, "prune")
    folder = saved_model(model, pruned=False)
    tensors = (folder.parent if folder.is_file() else folder) / "model.safetensors"
    return write_output(
        PrunedOutput(
            original=original,
            original_spec=loaded.spec,
            tensors=tensors,
            cut=cut.model,
            model=cut.model,
            spec=_spec(cut, loaded.spec, config, dataset),
            dataset=dataset,
            write_ledger=lambda folder: _write_ledgers(folder, cut),
        ),
        _record(cut, config, dataset) | {"before": before},
        out,
        progress=progress,
    )


def save_cut(
    cut: Cut,
    original: torch.nn.Module,
    spec: ModelSpec,
    config: StudyConfig,
    dataset: Dataset,
    out: Path,
    *,
    before: Record,
) -> Record:
    """Write a pruned network, its ledger and pruning.json into `out`; return what the last holds.

    `original` and `spec` are the unpruned network, and `before` its evaluation on validation. Cost
    is not measured, and nothing is exported.
    """
    (out / "pruning.json").unlink(missing_ok=True)  # of an earlier network, should this be stopped
    save(cut.model, _spec(cut, spec, config, dataset), out)
    _write_ledgers(out, cut)
    device = next(cut.model.parameters()).device
    answer: Record = _record(cut, config, dataset) | {
        "before": before,
        "after": evaluate_model(cut.model, dataset, "val", device).to_json(),
        "num_parameters": {
            "before": sum(p.numel() for p in original.parameters()),
            "after": sum(p.numel() for p in cut.model.parameters()),
        },
    }
    write_json(out / "pruning.json", answer)
    return answer


def _spec(cut: Cut, spec: ModelSpec, config: StudyConfig, dataset: Dataset) -> ModelSpec:
    return describe(
        cut.model,
        spec.backbone,
        spec.classes,
        spec.preprocessing,
        kept=cut.kept,
        extra=without_confidence(spec.extra) | {"config": config.to_json()},
        split=None if spec.split is None else dataset.record(spec.split),
    )


def _write_ledgers(out: Path, cut: Cut) -> None:
    write_csv(out / "ledger.csv", *cut.ledgers)
    (out / "ledger.parquet").unlink(missing_ok=True)
    if installed("parquet"):
        write_parquet(out / "ledger.parquet", *cut.ledgers)


def _record(cut: Cut, config: StudyConfig, dataset: Dataset) -> Record:
    """What pruning.json holds of a cut, in the form of a whole network's where they agree."""
    given = config.keep is not None or config.keep_fraction is not None
    return {
        "groups": [
            {
                "name": layer["layer"],
                "num_units": layer["num_units"],
                "num_kept": layer["num_kept"],
                "num_dead": layer["num_dead"],
                "how": config.compensation,
                "loss": None,
                "layers": [{"path": layer["path"], "side": "out"}],
            }
            for layer in cut.layers
        ],
        "not_pruned": [],
        "note": "",
        "budget": {
            **dict.fromkeys(("params", "macs", "latency")),
            "max_loss": None if given else config.max_loss,
        },
        "rule": {
            name: getattr(config, name)
            for name in ("rule", "compensation", "high_deg", "norm_std", "keep_fraction")
        }
        | {"low_deg": cut.low_deg, "keep": None if config.keep is None else list(config.keep)},
        "layers": list(cut.layers),
        "low_deg": cut.low_deg,
        "tried": list(cut.tried),
        "trajectory": [],
        "chosen": None,
        "starts": [],
        "outcome": None,
        "recovery": None,
        "parity": cut.parity,
        "split": None if dataset.image_status is None else dataset.image_status.to_json(),
        "timing": {"seconds": cut.seconds},
    }
