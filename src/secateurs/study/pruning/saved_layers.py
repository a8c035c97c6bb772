"""Layers of a saved network pruned, and what is written of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from secateurs.directories import sweep_output
from secateurs.extras import installed
from secateurs.files import write_json
from secateurs.fit.precision import resolve_device
from secateurs.progress import SILENT, Progress
from secateurs.prune.ledger import write_csv, write_parquet
from secateurs.ship.checkpoint import save
from secateurs.ship.spec import ModelSpec, describe
from secateurs.study.pruning.tail import Cut, layers_to_cut, prune_network
from secateurs.study.saved.evaluate_saved import cautions, evaluation_words
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
    progress: Progress = SILENT,
) -> Record:
    """Prune a saved network on a folder's training images and save the result in `out`.

    `changes` are fields of StudyConfig: the layers, angles, compensation and, if it is not to be
    the network's own, the split. Measured on the images that the network was trained on and chosen
    on those that it was chosen on, as far as they are in the folder; its test images are not used.
    Returns what was cut with validation before and after. Raises InputError for bad input, with
    nothing written.
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
    return save_cut(cut, original, loaded.spec, config, dataset, out, before=before)


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

    `original` and `spec` are the network that was cut, and `before` its evaluation on validation.
    """
    new = describe(
        cut.model,
        spec.backbone,
        spec.classes,
        spec.preprocessing,
        kept=cut.kept,
        extra=spec.extra | {"config": config.to_json()},
        split=None if spec.split is None else dataset.record(spec.split),
    )
    (out / "pruning.json").unlink(missing_ok=True)  # of an earlier network, should this be stopped
    save(cut.model, new, out)
    write_csv(out / "ledger.csv", *cut.ledgers)
    (out / "ledger.parquet").unlink(missing_ok=True)
    if installed("parquet"):
        write_parquet(out / "ledger.parquet", *cut.ledgers)
    device = next(cut.model.parameters()).device
    answer: Record = {
        "layers": list(cut.layers),
        "low_deg": cut.low_deg,
        "tried": list(cut.tried),
        "parity": cut.parity,
        "split": None if dataset.image_status is None else dataset.image_status.to_json(),
        "before": before,
        "after": evaluate_model(cut.model, dataset, "val", device).to_json(),
        "num_parameters": {
            "before": sum(p.numel() for p in original.parameters()),
            "after": sum(p.numel() for p in cut.model.parameters()),
        },
        "timing": {"seconds": cut.seconds},
    }
    write_json(out / "pruning.json", answer)
    return answer


def prune_words(answer: Record) -> str:
    """What was cut, and validation accuracy before and after, for people."""
    lines = [
        f"{layer['layer']}: {layer['num_kept']} of {layer['num_units']} units kept "
        f"({layer['num_dead']} never fired)"
        for layer in answer["layers"]
    ]
    sizes = answer["num_parameters"]
    lines.append(f"parameters {sizes['before'] / 1e6:.1f} M to {sizes['after'] / 1e6:.1f} M")
    lines.append(f"before: {evaluation_words(answer['before'], 'validation')}")
    lines.append(f"after: {evaluation_words(answer['after'], 'validation')}")
    return "\n".join(lines + remarks(answer))


def remarks(answer: Record) -> list[str]:
    """How the images stand to the network that was pruned, and cautions, a line each."""
    split = answer.get("split")
    lines = [f"note: {text}" for text in (split["notes"] if split else ())]
    return lines + [f"caution: {text}" for text in cautions(answer["after"], grouped=True)]
