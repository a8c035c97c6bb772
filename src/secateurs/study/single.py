"""One network at a time: train it, evaluate it, prune it, export it, ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from secateurs.data.decode import DecodeError, decode
from secateurs.data.folders import image_files
from secateurs.data.store import eval_pixels
from secateurs.data.views import normalise
from secateurs.errors import InputError
from secateurs.files import write_json
from secateurs.fit.cache import PrefixCache
from secateurs.fit.images import Images
from secateurs.fit.metrics import predict_logits
from secateurs.fit.precision import resolve_device
from secateurs.progress import SILENT, Progress
from secateurs.prune.ledger import write_csv, write_parquet
from secateurs.ship.checkpoint import Loaded, load, save
from secateurs.ship.export import export_onnx
from secateurs.ship.program import export_program
from secateurs.ship.spec import ModelSpec, describe
from secateurs.stopping import StopFlag
from secateurs.study.bench import Dataset, open_bench, open_dataset
from secateurs.study.config import StudyConfig, from_json
from secateurs.study.cut import Cut, prune_network
from secateurs.study.logs import Log, tell, trial_entry
from secateurs.study.models import evaluate_model, model_spec
from secateurs.study.trials import (
    SharedInputs,
    Store,
    load_weights,
    plan_trials,
    run_trial,
    save_weights,
    trial_key,
)

SIDES = ("train", "val", "test", "all")
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
    bench = open_bench(data, config, cache=cache, strict=strict, progress=progress)
    (trial,) = plan_trials(bench)
    store, key = Store(out), trial_key(bench, trial)
    record = store.read(key)
    if record is not None and store.weights(key).exists():
        model = bench.new_model(seed=0, pretrained=False)
        load_weights(model, store.weights(key))
        model.eval()
    else:
        shared = SharedInputs(prefix_cache, progress=progress)
        record, model = run_trial(bench, trial, shared, store, stop=stop, progress=progress)
        shared.cache.close()
        save_weights(model, store.weights(key))
    save(model, model_spec(model, bench, depth=trial.depth, kept={}), out)
    answer = record | {"val": evaluate_model(model, bench.dataset, "val", bench.device).to_json()}
    write_json(out / "training.json", answer)
    tell(log, lambda: trial_entry(record, bench.config), progress)
    return answer


def own_config(spec: ModelSpec, changes: Record) -> StudyConfig:
    """The configuration that a saved network was trained under, with what is given changed.

    A split that is given replaces the network's grouping too. Raises InputError for a network
    that was not saved by a study or by `train`.
    """
    if "config" not in spec.extra:
        raise InputError("the model does not say how it was trained; give --split")
    given: Record = {key: value for key, value in changes.items() if value is not None}
    if "rule" in changes:
        # A pruning says anew how many are kept: the network's own number would rule out a fraction.
        given |= {key: changes.get(key) for key in ("keep", "keep_fraction")}
    if "split" in given or "group_by" in given:
        own: Record = {"split": "random", "group_by": None}
        given = own | given
    if given.get("max_loss", 0) < 0:
        given["max_loss"] = None
    return replace(from_json(spec.extra["config"]), **given)


def open_saved(
    model: Path, data: str, changes: Record, cache: Path, progress: Progress
) -> tuple[Loaded, StudyConfig, Dataset]:
    """A saved network, the configuration that it was trained under with `changes`, and its images.

    Raises InputError when the folder's classes are not the network's.
    """
    loaded = load(model)
    config = own_config(loaded.spec, changes)
    dataset = open_dataset(data, config, cache=cache, progress=progress)
    if dataset.classes != loaded.spec.classes:
        raise InputError(
            f"{data}: the model knows the classes {', '.join(loaded.spec.classes)}; "
            f"the folder has {', '.join(dataset.classes)}"
        )
    return loaded, config, dataset


def evaluate_saved(
    model: Path,
    data: str,
    *,
    side: str = "test",
    split: str | None = None,
    group_by: str | None = None,
    seed: int | None = None,
    cache: Path,
    progress: Progress = SILENT,
) -> Record:
    """Evaluate a saved network on a side of a folder's split, or on `all` of its images."""
    if side not in SIDES:
        raise InputError(f"side must be one of {', '.join(SIDES)}, got {side!r}")
    changes = {"split": split, "group_by": group_by, "seed": seed}
    loaded, _, dataset = open_saved(model, data, changes, cache, progress)
    if side == "all":
        dataset = replace(dataset, sides={"all": _all_images(dataset)})
    device = resolve_device("auto")
    return evaluate_model(loaded.model.to(device), dataset, side, device).to_json()


def _all_images(dataset: Dataset) -> Images:
    parts = [dataset.sides[side] for side in ("train", "val", "test")]
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("pixels", "eval_pixels", "ids", "sizes", "labels")
    }
    return replace(parts[0], **arrays)


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
    the network's own, the split. Returns what was cut with validation before and after; test is
    left alone. Raises InputError for bad input, with nothing written.
    """
    loaded, config, dataset = open_saved(model, data, changes, cache, progress)
    if loaded.spec.kept:
        raise InputError(f"{model}: already pruned; prune the network that it was made from")
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
    )
    save(cut.model, new, out)
    write_csv(out / "ledger.csv", *cut.ledgers)
    write_parquet(out / "ledger.parquet", *cut.ledgers)
    device = next(cut.model.parameters()).device
    answer: Record = {
        "layers": list(cut.layers),
        "low_deg": cut.low_deg,
        "tried": list(cut.tried),
        "parity": cut.parity,
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


def image_inputs(spec: ModelSpec, paths: Sequence[Path]) -> torch.Tensor:
    """What a network of this recipe receives (n, 3, size, size) for image files.

    Raises DecodeError for one that cannot be used.
    """
    wanted = spec.preprocessing
    pixels = [eval_pixels(decode(path), crop=wanted.size, resize=wanted.resize) for path in paths]
    return normalise(torch.from_numpy(np.stack(pixels)), mean=wanted.mean, std=wanted.std)


def _usable(images: Path) -> list[Path]:
    # The first images that can be decoded, of a folder or the one that is named.
    found: list[Path] = []
    first: DecodeError | None = None
    for path in image_files(images).paths:
        try:
            decode(path)
        except DecodeError as error:
            first = first or error
            continue
        found.append(path)
        if len(found) == NUM_EXPORT_IMAGES:
            break
    if first is not None and not found:
        raise first
    return found


def export_saved(model: Path, images: Path, out: Path) -> Record:
    """Export a saved network to ONNX or, as `.pt2`, to a PyTorch program.

    Checked against the network on an image or a folder's first 16. Raises InputError when an image
    cannot be read, RuntimeError when the answers differ by more than 1e-4.
    """
    if out.suffix not in (".onnx", ".pt2"):
        raise InputError(f"{out}: the file to write must end in .onnx or .pt2")
    loaded = load(model)
    example = image_inputs(loaded.spec, _usable(images))
    write = export_onnx if out.suffix == ".onnx" else export_program
    check = write(loaded.model, loaded.spec, out, example)
    return {
        "path": str(out),
        "max_abs_difference": check.max_abs_difference,
        "num_images": len(example),
        "num_bytes": check.num_bytes,
    }


def predict_saved(model: Path, images: Sequence[Path], *, top: int = 3) -> Record:
    """The `top` most probable classes of each image under a saved network."""
    loaded: Loaded = load(model)
    logits = predict_logits(loaded.model, image_inputs(loaded.spec, images))
    probabilities, order = logits.softmax(1).sort(dim=1, descending=True)
    predictions = [
        {
            "name": str(path),
            "answers": [
                {"label": loaded.spec.classes[int(k)], "probability": float(p)}
                for p, k in zip(probabilities[row, :top], order[row, :top], strict=True)
            ],
        }
        for row, path in enumerate(images)
    ]
    return {"predictions": predictions}


def evaluation_words(evaluation: Record, side: str) -> str:
    """One line: accuracy with its interval."""
    return (
        f"{side} accuracy {evaluation['accuracy']:.1%} "
        f"({evaluation['accuracy_low']:.1%} to {evaluation['accuracy_high']:.1%}, 95%) "
        f"on {evaluation['num_images']} images"
    )


def evaluation_table(evaluation: Record, side: str) -> str:
    """Accuracy, the SPI measures of each class, and remarks, for people."""
    width = max(len(score["class"]) for score in evaluation["per_class"])
    lines = [evaluation_words(evaluation, side)]
    lines.append(f"{'class':{width}}  precision  recall  specificity  images")
    for score in evaluation["per_class"]:
        cells = [
            "-" if score[name] is None else f"{score[name]:.2f}"
            for name in ("precision", "recall", "specificity")
        ]
        lines.append(
            f"{score['class']:{width}}  {cells[0]:>9}  {cells[1]:>6}  {cells[2]:>11}  "
            f"{score['num_true']:>6}"
        )
    return "\n".join(lines + list(evaluation["notes"]))


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
    return "\n".join(lines)
