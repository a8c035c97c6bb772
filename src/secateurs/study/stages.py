"""The stages after the sweep: the chosen network kept, pruned, exported and priced."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torchvision

import secateurs
from secateurs.extras import installed
from secateurs.files import fingerprint, sha256_file
from secateurs.nets.backbones import source_of
from secateurs.progress import Progress
from secateurs.prune.ledger import write_csv, write_parquet
from secateurs.shape import fits
from secateurs.ship.checkpoint import Loaded, load, save
from secateurs.ship.cost import cost
from secateurs.ship.export import OnnxCheck, export_onnx, onnx_obstacle
from secateurs.ship.program import export_program
from secateurs.ship.spec import bare
from secateurs.stopping import StopFlag
from secateurs.study.pruning.merged_units import merged_record
from secateurs.study.pruning.savings import price
from secateurs.study.pruning.tail import prune_network
from secateurs.study.records.checksummed import read_sealed, write_sealed
from secateurs.study.saved.evaluation import evaluate_model, model_spec
from secateurs.study.saved.samples import sample_predictions
from secateurs.study.setup.trial_context import TrialContext
from secateurs.study.sweep.sweep import Choice, Record

SCHEMA = 2  # of results.json
NUM_EXPORT_IMAGES = 16
THUMBNAILS = "thumbnails/"  # how the paths of thumbnails in results start
_STAGE = {"key": str, "value": {"timing": {"seconds": float}}}
FILES = {
    "model": "model/model.json",
    "tensors": "model/model.safetensors",
    "onnx": "model/model.onnx",
    "program": "model/model.pt2",
    "unpruned": "unpruned/model.json",
    "unpruned_onnx": "unpruned/model.onnx",
    "ledger": "ledger.csv",
    "report": "report.html",
}
LEDGER_PARQUET = "ledger.parquet"
SWEEP_FILES = {name: FILES[name] for name in ("unpruned", "report")}
# Of a study that pruned nothing: what ships is the chosen network.
UNPRUNED_FILES = {
    "unpruned": FILES["unpruned"],
    "unpruned_onnx": FILES["unpruned_onnx"],
    "unpruned_program": "unpruned/model.pt2",
    "report": FILES["report"],
}


def files_of(files: dict[str, str], *, onnx: bool) -> dict[str, str]:
    """Those of `files` that a study writes: without ONNX files where it cannot write them."""
    return {name: file for name, file in files.items() if onnx or not file.endswith(".onnx")}


def onnx_note(context: TrialContext) -> str | None:
    """A sentence when the study's networks cannot be written as ONNX, else None."""
    obstacle = onnx_obstacle(bare(context.config.backbone, len(context.dataset.classes)))
    if obstacle is None:
        return None
    return f"No ONNX file was written and ONNX Runtime was not timed: {obstacle}"


@dataclass(frozen=True)
class Stages:
    """Results of finished stages, one file each, kept as long as what they rest on is the same."""

    root: Path

    def run(
        self, name: str, key: Any, compute: Callable[[], Record], *, makes: tuple[Path, ...] = ()
    ) -> Record:
        """The stage's stored result, or a new one when the key differs.

        Also when one of the files that it `makes`, or of the thumbnails that its result names, is
        gone or is not as it was written.
        """
        stored = self.stored(name, key, makes=makes)
        if stored is not None:
            return stored
        started = time.perf_counter()
        value = compute()
        value.setdefault("timing", {"seconds": time.perf_counter() - started})
        files = self._digests([*makes, *(self.root / name for name in _thumbnails(value))])
        path = self.root / "stages" / f"{name}.json"
        write_sealed(path, {"key": fingerprint(key), "value": value, "files": files})
        return value

    def stored(self, name: str, key: Any, *, makes: tuple[Path, ...] = ()) -> Record | None:
        """The stage's result as `run` would find it; None when it would compute it."""
        made = all(file.exists() for file in makes)
        path = self.root / "stages" / f"{name}.json"
        stored = read_sealed(path, unsealed=False) if made else None
        if stored is None or stored.get("key") != fingerprint(key) or not fits(stored, _STAGE):
            return None
        value: Record = stored["value"]
        pictures = [self.root / name for name in _thumbnails(value)]
        if not all(picture.is_file() for picture in pictures):
            return None
        if "files" not in stored:  # of an older version
            return value
        files, mine = stored["files"], self._digests(makes)
        found = self._digests(pictures) | mine
        # Thumbnails are not among the files of older versions.
        same = {name: found.get(name) for name in files} == files
        return value if same and mine.keys() <= files.keys() else None

    def forget(self, name: str) -> None:
        """Delete a stage's stored result, so that it is computed again."""
        (self.root / "stages" / f"{name}.json").unlink(missing_ok=True)

    def _digests(self, files: Iterable[Path]) -> dict[str, str]:
        """The SHA-256 of each file, by its path within the directory."""
        return {
            file.relative_to(self.root).as_posix(): sha256_file(file)
            for file in files
            if file.is_file()
        }


def _thumbnails(value: Any) -> Iterator[str]:
    """The thumbnails that a result names, as paths within the directory.

    >>> list(_thumbnails({"rows": [{"thumbnail": "thumbnails/1.jpg"}, {"name": "thumbnails"}]}))
    ['thumbnails/1.jpg']
    """
    if isinstance(value, dict):
        value = list(cast("dict[str, Any]", value).values())
    if isinstance(value, list):
        for part in cast("list[Any]", value):
            yield from _thumbnails(part)
    elif isinstance(value, str) and value.startswith(THUMBNAILS) and ".." not in value:
        yield value


def prune_stages(
    context: TrialContext, stages: Stages, chosen_key: str, *, stop: StopFlag, progress: Progress
) -> tuple[Record, Record]:
    """The stages `pruned` and `cost` of a study whose chosen network is kept already."""
    config, out = context.config, stages.root
    rule = {
        name: config.to_json()[name]
        for name in (
            *("layers", "rule", "keep", "keep_fraction", "low_deg", "high_deg", "norm_std"),
            *("max_loss", "compensation"),
        )
    }
    key = {
        "chosen": chosen_key,
        "rule": rule,
        "version": secateurs.__version__,
        "schema": SCHEMA,  # what an older one lacks is made when the study is run again
    }
    note = onnx_note(context)
    files = files_of(FILES, onnx=note is None).items()
    makes = [out / file for name, file in files if name not in ("report", "unpruned")]
    if installed("parquet"):
        makes.append(out / LEDGER_PARQUET)
    pruned = stages.run(
        "pruned", key, lambda: _prune_and_export(context, out, note, progress), makes=tuple(makes)
    )
    stop.check()
    without = {} if note is None else {"onnx": None}
    priced = stages.run(
        "cost",
        {"pruned": key, "machine": machine_words(context), "torch": torch.__version__} | without,
        lambda: price(
            out / "unpruned",
            out / "model",
            example_images(context),
            device=context.device,
            onnx_note=note,
            progress=progress,
        ),
    )
    return pruned, priced


def unpruned_stage(
    context: TrialContext, stages: Stages, chosen_key: str, *, progress: Progress
) -> Record:
    """The stage that ships the chosen network of a study that prunes nothing: its `cost` part."""
    note = onnx_note(context)
    return stages.run(
        "unpruned",
        {"chosen": chosen_key, "version": secateurs.__version__, "schema": SCHEMA},
        lambda: _export_chosen(context, stages.root, note, progress),
        makes=tuple(
            stages.root / file
            for name, file in files_of(UNPRUNED_FILES, onnx=note is None).items()
            if name in ("unpruned_onnx", "unpruned_program")
        ),
    )


def _export_chosen(
    context: TrialContext, out: Path, note: str | None, progress: Progress
) -> Record:
    chosen, example = load(out / "unpruned"), example_images(context)
    with progress.task("export", 2) as advance:
        check = write_onnx(chosen, out / FILES["unpruned_onnx"], example, note)
        advance(1)
        program = out / UNPRUNED_FILES["unpruned_program"]
        export_program(chosen.model, chosen.spec, program, example)
        advance(1)
    before = cost(
        chosen.model,
        size=example.shape[-1],
        file_bytes=(out / "unpruned" / "model.safetensors").stat().st_size,
        onnx_bytes=None if check is None else check.num_bytes,
    )
    return {
        "before": before.to_json(),
        "after": None,
        "latency": None,
        "sentence": None,
        "onnx_max_abs_difference": None if check is None else check.max_abs_difference,
        "onnx_note": note,
    }


def write_onnx(
    network: Loaded, path: Path, example: torch.Tensor, note: str | None
) -> OnnxCheck | None:
    """Export to ONNX; None, with no file of an earlier run left, where a `note` says it cannot."""
    if note is None:
        return export_onnx(network.model, network.spec, path, example)
    path.unlink(missing_ok=True)
    return None


def keep_chosen(context: TrialContext, choice: Choice, model: torch.nn.Module, out: Path) -> Record:
    """Save the unpruned network; evaluate it on validation and, this once, on test."""
    spec = model_spec(model, context, depth=choice.record["depth"], kept={})
    save(model, spec, out / "unpruned")
    return {
        "key": choice.record["key"],
        "depth": choice.record["depth"],
        "run": choice.record["run"],
        "reason": choice.reason,
        "val": evaluate_model(model, context.dataset, "val", context.device).to_json(),
        "test": evaluate_model(model, context.dataset, "test", context.device).to_json(),
    }


def _prune_and_export(
    context: TrialContext, out: Path, note: str | None, progress: Progress
) -> Record:
    config, sides = context.config, context.dataset.sides
    before: Loaded = load(out / "unpruned")
    original = before.model.to(context.device)
    cut = prune_network(
        original, sides["train"], sides["val"], config, device=context.device, progress=progress
    )
    spec = model_spec(cut.model, context, depth=before.spec.extra["depth"], kept=cut.kept)
    save(cut.model, spec, out / "model")
    write_csv(out / FILES["ledger"], *cut.ledgers)
    if installed("parquet"):
        write_parquet(out / LEDGER_PARQUET, *cut.ledgers)
    else:
        (out / LEDGER_PARQUET).unlink(missing_ok=True)
    example = example_images(context)
    with progress.task("export", 3) as advance:
        check = write_onnx(Loaded(cut.model.cpu(), spec), out / FILES["onnx"], example, note)
        advance(1)
        whole = Loaded(original.cpu(), before.spec)
        write_onnx(whole, out / FILES["unpruned_onnx"], example, note)
        advance(1)
        export_program(cut.model, spec, out / FILES["program"], example)
        advance(1)
    original = original.to(context.device)
    pruned = cut.model.to(context.device)
    aliases = [layer["layer"] for layer in cut.layers]
    shown = list(zip(aliases, cut.merged, strict=True))
    samples = sample_predictions(original, pruned, context.dataset, out, device=context.device)
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
        "val": evaluate_model(pruned, context.dataset, "val", context.device).to_json(),
        "test": evaluate_model(pruned, context.dataset, "test", context.device).to_json(),
        "onnx_max_abs_difference": None if check is None else check.max_abs_difference,
        "samples": samples,
        "merged": merged_record(
            shown, context.dataset, out, normalise=config.prune_options(1)[0].compared
        ),
        "timing": {"seconds": cut.seconds},
    }


def example_images(context: TrialContext) -> torch.Tensor:
    """Some test images for checking exports and timing; no label of theirs is looked at."""
    test = context.dataset.sides["test"]
    return test.eval_views(slice(0, NUM_EXPORT_IMAGES), torch.device("cpu"))


def machine_words(context: TrialContext) -> str:
    """The machine in a few words."""
    kind = platform.machine()
    if context.device.type == "cuda":
        return f"{torch.cuda.get_device_name(context.device)}, {kind}"
    return f"{torch.get_num_threads()} threads, {kind}"


def versions(context: TrialContext) -> dict[str, str]:
    """Versions of what made the numbers, and the machine."""
    return {
        "secateurs": secateurs.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        **({"timm": version("timm")} if source_of(context.config.backbone) == "timm" else {}),
        "numpy": np.__version__,
        "machine": machine_words(context),
    }
