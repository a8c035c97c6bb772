"""Saved models, studies and ONNX files put on a page for a browser."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs.demo.page import DemoModel, check_models, is_page, server_line, write_demo
from secateurs.demo.runtime import find_runtime
from secateurs.errors import InputError
from secateurs.files import read_regular
from secateurs.progress import SILENT, Progress
from secateurs.report.common.formatting import integer
from secateurs.ship.about import CARD
from secateurs.study.saved.exporting import export_saved
from secateurs.study.saved.prediction_model import Classifier, load_saved, open_classifier

MAX_MODEL_BYTES = 2**30
_INT8 = b"QuantizeLinear"

Record = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A model of the page, and the largest difference of a logit of its ONNX file from PyTorch.

    None for a file that was exported before; `skipped` are images that could not be read.
    """

    model: DemoModel
    max_abs_difference: float | None
    skipped: tuple[str, ...] = ()


def export_demo(
    model: Path,
    images: Path | None,
    out: Path,
    *,
    beside: Path | None = None,
    runtime: Path | None = None,
    cache: Path,
    progress: Progress = SILENT,
) -> Record:
    """Write a page that classifies in a browser with a model, or with it and another `beside`.

    Both are saved models, studies or ONNX files. Saved models are exported and compared with
    PyTorch on `images`, which only they need. `runtime` is ONNX Runtime Web (see `find_runtime`),
    by default that of the cache. Raises InputError for what cannot stand on a page, before anything
    is fetched.
    """
    paths = [model] if beside is None else [beside, model]  # the original first
    entries = [
        entry_of(path, images, title) for path, title in zip(paths, titles(paths), strict=True)
    ]
    models = [entry.model for entry in entries]
    check_models(models, out)
    num_bytes = write_demo(models, out, find_runtime(runtime, cache=cache, progress=progress))
    line, address = server_line(out)
    return {
        "path": str(out),
        "num_bytes": num_bytes,
        "models": [
            {"title": entry.model.title, "max_abs_difference": entry.max_abs_difference}
            for entry in entries
        ],
        "skipped": list(dict.fromkeys(text for entry in entries for text in entry.skipped)),
        "one_file": is_page(out),
        "server": line,
        "address": address,
    }


def titles(paths: list[Path]) -> list[str]:
    """A short name of each model, different ones for different models.

    >>> titles([Path("studies/a/unpruned"), Path("models/small.onnx")])
    ['unpruned', 'small']
    >>> titles([Path("a/model"), Path("b/model")])
    ['a/model', 'b/model']
    """
    whole = [path.resolve() for path in paths]
    whole = [path.parent if path.name == "model.json" else path for path in whole]
    short = [path.stem if path.suffix == ".onnx" else path.name for path in whole]
    if len(set(short)) < len(short):
        return [f"{path.parent.name}/{path.name}" for path in whole]
    return short


def is_exported(path: Path) -> bool:
    """Whether a path means an exported file, and not a saved model or a study."""
    return path.is_file() and path.suffix != ".json"


def entry_of(path: Path, images: Path | None, title: str) -> Entry:
    """A model for the page; a saved one is exported to ONNX and compared with PyTorch."""
    if is_exported(path):
        if path.suffix != ".onnx":
            raise InputError(f"{path}: a page takes saved models and ONNX files (.onnx)")
        classifier = open_classifier(path)
        try:
            data = read_regular(path, max_bytes=MAX_MODEL_BYTES)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from None
        return Entry(_demo_model(classifier, data, title, {}), None)
    if images is None:
        raise InputError(f"{path}: give images; the page's model is compared with it on them")
    loaded = load_saved(path)
    num_parameters = sum(value.numel() for value in loaded.model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        done = export_saved(path, images, file)
        classifier = open_classifier(file)
        model = _demo_model(
            classifier, file.read_bytes(), title, {"Parameters": integer(num_parameters)}
        )
    return Entry(model, done["max_abs_difference"], tuple(done["skipped"]))


def _demo_model(
    classifier: Classifier, data: bytes, title: str, facts: dict[str, str]
) -> DemoModel:
    spec, confidence = classifier.spec, classifier.confidence
    card = spec.extra.get(CARD)
    known = {"Network": spec.backbone, "Numbers": "int8" if _INT8 in data else "float32", **facts}
    accuracy = card.get("accuracy") if isinstance(card, dict) else None
    if isinstance(accuracy, float):
        known["Accuracy"] = f"{accuracy:.1%}"
    return DemoModel(
        title,
        data,
        spec.classes,
        spec.preprocessing.to_json(),
        confidence.temperature,
        confidence.threshold,
        known,
    )
