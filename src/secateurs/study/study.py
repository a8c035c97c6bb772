"""A study from end to end: audit, sweep, choice, pruning, export, cost; done parts are kept."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

import secateurs
from secateurs.errors import InputError
from secateurs.files import fingerprint, read_json, write_json
from secateurs.progress import SILENT, Progress
from secateurs.prune.ledger import write_csv, write_parquet
from secateurs.ship.checkpoint import Loaded, load, save
from secateurs.ship.export import export_onnx
from secateurs.stopping import StopFlag
from secateurs.study.bench import Bench, open_bench
from secateurs.study.config import StudyConfig, difference
from secateurs.study.cut import layers_to_cut, prune_network
from secateurs.study.models import evaluate_model, model_spec
from secateurs.study.price import price
from secateurs.study.samples import sample_predictions
from secateurs.study.sweep import (
    Choice,
    choose,
    chosen_model,
    discard_weights,
    run_sweep,
    summarise_sweep,
)
from secateurs.study.trials import Store

SCHEMA = 1
NUM_EXPORT_IMAGES = 16
FILES = {
    "model": "model/model.json",
    "tensors": "model/model.safetensors",
    "onnx": "model/model.onnx",
    "unpruned": "unpruned/model.json",
    "unpruned_onnx": "unpruned/model.onnx",
    "ledger": "ledger.csv",
    "report": "report.html",
}

Record = dict[str, Any]


@dataclass(frozen=True)
class Stages:
    """Results of finished stages, one file each, kept as long as what they rest on is the same."""

    root: Path

    def run(
        self, name: str, key: Any, compute: Callable[[], Record], *, makes: tuple[Path, ...] = ()
    ) -> Record:
        """The stage's stored result, or a new one when the key differs or a file is gone."""
        path = self.root / "stages" / f"{name}.json"
        identity = fingerprint(key)
        if path.exists() and all(file.exists() for file in makes):
            stored = read_json(path)
            if stored["key"] == identity:
                return stored["value"]
        started = time.perf_counter()
        value = compute()
        value.setdefault("timing", {"seconds": time.perf_counter() - started})
        write_json(path, {"key": identity, "value": value})
        return value


def run_study(
    data: str,
    config: StudyConfig,
    out: Path,
    *,
    cache: Path,
    strict: bool = False,
    budget_bytes: int = 2 * 2**30,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Record:
    """Run a study of `data` in the directory `out` and return what it writes to `results.json`.

    What is already done is not done again. Raises InputError for bad input and when `out` holds
    a study of another configuration or other images, StopRequested when asked to stop.
    """
    stop = stop or StopFlag()
    _check_directory(out)
    _check_configuration(out, config)
    bench = open_bench(data, config, cache=cache, strict=strict, progress=progress)
    layers_to_cut(bench.new_model(seed=config.seed, pretrained=False), bench.config)
    _claim(out, config, bench)
    stages, store = Stages(out), Store(out)
    trials = run_sweep(bench, store, budget_bytes=budget_bytes, stop=stop, progress=progress)
    num_val = len(bench.dataset.sides["val"])
    choice = choose(trials, num_images=num_val)
    for sentence in (*choice.advice.sentences, choice.advice.cost):
        progress.note(sentence)

    # One process at a time: what another one has done meanwhile is found done.
    with store.wait_for("stages", stop):
        chosen = stages.run(
            "chosen",
            {"trial": choice.record["key"], "reason": choice.reason},
            lambda: _keep_chosen(
                bench,
                choice,
                chosen_model(
                    bench, store, choice, budget_bytes=budget_bytes, stop=stop, progress=progress
                ),
                out,
            ),
            makes=(out / FILES["unpruned"],),
        )
        discard_weights(store)
        stop.check()
        rule = {
            name: config.to_json()[name]
            for name in (
                *("layers", "rule", "keep", "keep_fraction", "low_deg", "high_deg", "norm_std"),
                *("max_loss", "compensation"),
            )
        }
        pruned_key = {
            "chosen": choice.record["key"],
            "rule": rule,
            "version": secateurs.__version__,
        }
        pruned = stages.run(
            "pruned",
            pruned_key,
            lambda: _prune_and_export(bench, out, progress),
            makes=tuple(
                out / FILES[name]
                for name in ("model", "tensors", "onnx", "unpruned_onnx", "ledger")
            ),
        )
        stop.check()
        cost = stages.run(
            "cost",
            {"pruned": pruned_key, "machine": _machine(bench), "torch": torch.__version__},
            lambda: price(
                out / "unpruned",
                out / "model",
                _example(bench),
                device=bench.device,
                progress=progress,
            ),
        )
    samples, onnx_difference = pruned.pop("samples"), pruned.pop("onnx_max_abs_difference")
    seconds = {
        "sweep": sum(record["timing"]["seconds"] for record in trials),
        "choice": chosen.pop("timing")["seconds"],
        "pruning": pruned["timing"]["seconds"],
        "cost": cost.pop("timing")["seconds"],
    }
    results: Record = {
        "schema": SCHEMA,
        "config": {"data": bench.dataset.name, **config.to_json(), "depths": list(bench.depths)},
        "data": bench.dataset.audit.to_json() | {"name": bench.dataset.name},
        "split": bench.dataset.split_json(),
        "weights": bench.weights.to_json(),
        "trials": trials,
        "sweep": summarise_sweep(trials, num_images=num_val),
        "recommendation": {
            "depth": choice.advice.depth,
            "best": choice.advice.best,
            "sentences": list(choice.advice.sentences),
            "timing": {"sentence": choice.advice.cost},
        },
        "chosen": chosen,
        "pruned": pruned,
        "cost": cost | {"onnx_max_abs_difference": onnx_difference},
        "samples": samples,
        "files": FILES,
        "versions": _versions(bench),
        "timing": seconds | {"total": sum(seconds.values())},
    }
    write_json(out / "results.json", results)
    return results


def _check_directory(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a directory, got a file")
    if out.is_dir() and any(out.iterdir()) and not (out / "study.json").exists():
        raise InputError(f"{out}: not empty and not a study; choose a new directory")


def _check_configuration(out: Path, config: StudyConfig) -> None:
    """Refuse another configuration before anything long begins."""
    if not (out / "study.json").exists():
        return
    found = read_json(out / "study.json")
    if found.get("schema") != SCHEMA:
        raise InputError(f"{out}: a study of another version of Secateurs; choose a new directory")
    if found["config"] != config.to_json():
        differs = difference(found["config"], config.to_json())
        raise InputError(
            f"{out}: holds a study with another configuration: {differs}; choose a new directory"
        )


def _claim(out: Path, config: StudyConfig, bench: Bench) -> None:
    """Mark a new directory as this study's, or check that it holds the same images and weights."""
    identity = bench.dataset.identity() | {"weights": list(bench.weights.loaded)}
    mine = {"schema": SCHEMA, "config": config.to_json(), "identity": identity}
    path = out / "study.json"
    if not path.exists():
        write_json(path, mine)
        return
    found = read_json(path)
    if found["identity"] != identity:
        odd = [key for key, value in identity.items() if found["identity"][key] != value]
        raise InputError(
            f"{out}: holds a study of other {' and '.join(odd)}; choose a new directory"
        )


def _keep_chosen(bench: Bench, choice: Choice, model: torch.nn.Module, out: Path) -> Record:
    """Save the unpruned network; evaluate it on validation and, this once, on test."""
    spec = model_spec(model, bench, depth=choice.record["depth"], kept={})
    save(model, spec, out / "unpruned")
    return {
        "key": choice.record["key"],
        "depth": choice.record["depth"],
        "run": choice.record["run"],
        "reason": choice.reason,
        "val": evaluate_model(model, bench.dataset, "val", bench.device).to_json(),
        "test": evaluate_model(model, bench.dataset, "test", bench.device).to_json(),
    }


def _prune_and_export(bench: Bench, out: Path, progress: Progress) -> Record:
    config, sides = bench.config, bench.dataset.sides
    before: Loaded = load(out / "unpruned")
    original = before.model.to(bench.device)
    cut = prune_network(
        original, sides["train"], sides["val"], config, device=bench.device, progress=progress
    )
    spec = model_spec(cut.model, bench, depth=before.spec.extra["depth"], kept=cut.kept)
    save(cut.model, spec, out / "model")
    write_csv(out / FILES["ledger"], *cut.ledgers)
    write_parquet((out / FILES["ledger"]).with_suffix(".parquet"), *cut.ledgers)
    example = _example(bench)
    with progress.task("export", 2) as advance:
        check = export_onnx(cut.model.cpu(), spec, out / FILES["onnx"], example)
        advance(1)
        export_onnx(original.cpu(), before.spec, out / FILES["unpruned_onnx"], example)
        advance(1)
    original = original.to(bench.device)
    pruned = cut.model.to(bench.device)
    samples = sample_predictions(original, pruned, bench.dataset, out, device=bench.device)
    return {
        "rule": config.rule,
        "compensation": config.compensation,
        "low_deg": cut.low_deg,
        "max_loss": config.max_loss,
        "tried": list(cut.tried),
        "high_deg": None if cut.low_deg is None else config.high_deg,
        "norm_std": config.norm_std,
        "layers": list(cut.layers),
        "parity": cut.parity,
        "val": evaluate_model(pruned, bench.dataset, "val", bench.device).to_json(),
        "test": evaluate_model(pruned, bench.dataset, "test", bench.device).to_json(),
        "onnx_max_abs_difference": check.max_abs_difference,
        "samples": samples,
        "timing": {"seconds": cut.seconds},
    }


def _example(bench: Bench) -> torch.Tensor:
    """Some test images for checking exports and timing; no label of theirs is looked at."""
    test = bench.dataset.sides["test"]
    return test.eval_views(slice(0, NUM_EXPORT_IMAGES), torch.device("cpu"))


def _machine(bench: Bench) -> str:
    kind = platform.machine()
    if bench.device.type == "cuda":
        return f"{torch.cuda.get_device_name(bench.device)}, {kind}"
    return f"{torch.get_num_threads()} threads, {kind}"


def _versions(bench: Bench) -> dict[str, str]:
    return {
        "secateurs": secateurs.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "numpy": np.__version__,
        "machine": _machine(bench),
    }


def headline(results: Record) -> str:
    """A study's answer in a few lines."""
    chosen, pruned, cost = results["chosen"], results["pruned"], results["cost"]
    lines = [chosen["reason"]]
    for words, evaluation in (("unpruned", chosen["test"]), ("pruned", pruned["test"])):
        lines.append(
            f"test accuracy {words}: {evaluation['accuracy']:.1%} "
            f"({evaluation['accuracy_low']:.1%} to {evaluation['accuracy_high']:.1%}) "
            f"on {evaluation['num_images']} images"
        )
    for layer in pruned["layers"]:
        lines.append(f"{layer['layer']}: {layer['num_kept']} of {layer['num_units']} units kept")
    before, after = cost["before"], cost["after"]
    lines.append(
        f"parameters {before['num_parameters'] / 1e6:.1f} M to "
        f"{after['num_parameters'] / 1e6:.1f} M, file {before['file_bytes'] / 1e6:.0f} MB to "
        f"{after['file_bytes'] / 1e6:.0f} MB"
    )
    lines.append(cost["sentence"])
    return "\n".join(lines)
