"""One network at a time: train it and save it, prune a saved one, export it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateurs.data.decode import DecodeError
from secateurs.directories import sweep_output
from secateurs.errors import InputError
from secateurs.files import write_json
from secateurs.fit.cache import PrefixCache
from secateurs.fit.precision import resolve_device
from secateurs.paths import saved_model
from secateurs.progress import SILENT, Progress
from secateurs.prune.ledger import write_csv, write_parquet
from secateurs.ship.checkpoint import load, save
from secateurs.ship.export import export_onnx
from secateurs.ship.program import export_program
from secateurs.ship.spec import ModelSpec, describe
from secateurs.stopping import StopFlag
from secateurs.study.bench import Dataset, open_bench, settle_split
from secateurs.study.config import StudyConfig
from secateurs.study.cut import Cut, layers_to_cut, prune_network
from secateurs.study.evaluate import cautions, evaluation_words
from secateurs.study.fitting import chosen_layers
from secateurs.study.logs import Log, tell, trial_entry
from secateurs.study.models import evaluate_model, model_spec
from secateurs.study.predict import list_images, network_inputs, read_pixels
from secateurs.study.saved import own_config, saved_dataset, unpruned_model
from secateurs.study.trials import (
    SharedInputs,
    Store,
    load_weights,
    plan_trials,
    run_trial,
    save_weights,
    trial_key,
)

NUM_EXPORT_IMAGES = 16

Record = dict[str, Any]


def train_model(
    data: str,
    config: StudyConfig,
    out: Path,
    *,
    cache: Path,
    strict: bool = False,
    prefix_cache: PrefixCache | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
    log: Log | None = None,
) -> Record:
    """Fine-tune at the one depth of `config` and save the network in `out`.

    Returns the trial's record with the `val` evaluation; also in `out`/training.json. Run again
    after a stop it goes on where it was; when all is done it only answers. The test images are
    left alone. Raises InputError for bad input.
    """
    sweep_output(out)
    bench = open_bench(data, config, cache=cache, strict=strict, progress=progress)
    (trial,) = plan_trials(bench)
    store, key = Store(out), trial_key(bench, trial)
    store.tidy()
    record = store.read(key)
    if record is not None and store.has_weights(key):
        model = bench.new_model(seed=0, pretrained=False)
        load_weights(model, store.weights(key))
        model.eval()
    else:
        shared = SharedInputs(prefix_cache, progress=progress)
        record, model = run_trial(bench, trial, shared, store, stop=stop, progress=progress)
        shared.cache.close()
        save_weights(model, store.weights(key))
    (out / "training.json").unlink(missing_ok=True)  # of an earlier network
    save(model, model_spec(model, bench, depth=trial.depth, kept={}), out)
    answer = record | {"val": evaluate_model(model, bench.dataset, "val", bench.device).to_json()}
    write_json(out / "training.json", answer)
    tell(log, lambda: trial_entry(record, bench.config), progress)
    return answer


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
    write_parquet(out / "ledger.parquet", *cut.ledgers)
    device = next(cut.model.parameters()).device
    answer: Record = {
        "layers": list(cut.layers),
        "low_deg": cut.low_deg,
        "tried": list(cut.tried),
        "parity": cut.parity,
        "split": None if dataset.standing is None else dataset.standing.to_json(),
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


def export_saved(model: Path, images: Path, out: Path) -> Record:
    """Export a saved network to ONNX or, as `.pt2`, to a PyTorch program.

    Checked against the network on an image, or on the first 16 of a folder that can be read.
    Raises InputError when none can, RuntimeError when the answers differ by more than 1e-4.
    """
    if out.suffix not in (".onnx", ".pt2"):
        raise InputError(f"{out}: the file to write must end in .onnx or .pt2")
    loaded = load(saved_model(model))
    example, skipped = _example(loaded.spec, images)
    write = export_onnx if out.suffix == ".onnx" else export_program
    check = write(loaded.model, loaded.spec, out, example)
    return {
        "path": str(out),
        "max_abs_difference": check.max_abs_difference,
        "num_images": len(example),
        "num_bytes": check.num_bytes,
        "skipped": skipped,
    }


def _example(spec: ModelSpec, images: Path) -> tuple[torch.Tensor, list[str]]:
    # Inputs from the first files that can be read, and what is wrong with those passed over.
    pixels: list[NDArray[np.uint8]] = []
    skipped: list[str] = []
    for path, wrong in list_images([images]).files:
        if wrong is not None:
            skipped.append(f"{path}: {wrong}")
            continue
        try:
            pixels.append(read_pixels(spec, path))
        except DecodeError as error:
            skipped.append(str(error))
        if len(pixels) == NUM_EXPORT_IMAGES:
            break
    if not pixels:
        raise InputError(f"no image that can be read to check the export on: {skipped[0]}")
    return network_inputs(spec, pixels), skipped


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
