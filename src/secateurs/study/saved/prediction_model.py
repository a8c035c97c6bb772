"""A model to classify images with: one of Secateurs, or an exported file of any format."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateurs.data.images.decode import MAX_PIXELS, decode, decode_data
from secateurs.data.views import normalise
from secateurs.errors import InputError
from secateurs.files import read_regular
from secateurs.fit.metrics import predict_logits
from secateurs.fit.precision import resolve_device
from secateurs.paths import saved_model
from secateurs.ship.about import CARD, CONFIDENCE, about
from secateurs.ship.checkpoint import Loaded, load
from secateurs.ship.spec import ModelSpec
from secateurs.ship.targets.checking import on_threads
from secateurs.ship.targets.formats import open_file, target_of
from secateurs.study.saved.confidence import Confidence, confidence_of

Record = dict[str, Any]
Pixels = NDArray[np.uint8]  # (size, size, 3), an image as the network sees it
SECATEURS = "Secateurs"
MAX_CARD_BYTES = 10**6


@dataclass(frozen=True)
class Classifier:
    """A model that answers: its recipe, its format in words, and how its outputs become answers.

    `run` gives the logits (n, classes) of preprocessed images (n, 3, size, size), float32 both.
    `run_on` gives them on so many threads of the processor, and several threads may call it at
    once; it is None where the runtime cannot do that.
    """

    path: Path
    form: str
    spec: ModelSpec
    confidence: Confidence
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    run_on: Callable[[NDArray[np.float32], int], NDArray[np.float32]] | None = None

    def probabilities(
        self, pixels: Sequence[Pixels], *, threads: int | None = None
    ) -> NDArray[np.float64]:
        """The class probabilities (n, classes) of what `read_pixels` gives.

        NaN where an output is not finite. `threads` is for `run_on`, where there is one.
        """
        inputs = network_inputs(self.spec, pixels).contiguous().numpy()
        if threads is None or self.run_on is None:
            logits = self.run(inputs).astype(np.float64)
        else:
            logits = self.run_on(inputs, threads).astype(np.float64)
        with np.errstate(all="ignore"):
            scaled = logits / self.confidence.temperature
            raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
            return raised / raised.sum(axis=1, keepdims=True)

    def answer(self, probabilities: NDArray[np.float64], *, top: int) -> Record:
        """The `top` most probable classes of one image, of its row of `probabilities`.

        `answers` in falling order, `error` None unless an output was not finite, and, where a
        threshold is known, `unsure`: whether the best answer is below it.
        """
        if not np.isfinite(probabilities).all():
            return self.refused("the network's output is not finite")
        order = np.argsort(-probabilities, kind="stable")[:top]
        answers = [
            {"label": self.spec.classes[k], "probability": float(probabilities[k])} for k in order
        ]
        threshold = self.confidence.threshold
        unsure = {} if threshold is None else {"unsure": answers[0]["probability"] < threshold}
        return {"answers": answers, "error": None, **unsure}

    def refused(self, reason: str) -> Record:
        """The record of an image without an answer."""
        unsure = {} if self.confidence.threshold is None else {"unsure": False}
        return {"answers": [], "error": reason, **unsure}


def open_classifier(path: Path, *, threshold: float | None = None) -> Classifier:
    """Open a saved model, the model of a study (the pruned one, if any), or an exported file.

    `threshold` replaces that of the model. Raises InputError for what is missing or damaged, for a
    file of another kind and when the package that runs it is not installed.
    """
    if path.is_file() and path.suffix != ".json":
        found = _of_file(path)
    else:
        found = classifier_of(load_saved(path), path)
    if threshold is not None:
        found = replace(found, confidence=replace(found.confidence, threshold=threshold))
    return found


def card_of(classifier: Classifier) -> Record:
    """What a model says of itself, as plain data; `markdown` is its README.md, where it has one."""
    spec = classifier.spec
    said = about(spec, spec.extra.get(CARD))
    known = {"temperature", "threshold"}
    said[CONFIDENCE] = {k: v for k, v in asdict(classifier.confidence).items() if k in known}
    found: Record = {"format": classifier.form, **said}
    path = classifier.path
    if classifier.form == SECATEURS:
        model = saved_model(path)
        readme = (model if model.is_dir() else model.parent) / "README.md"
        with contextlib.suppress(OSError, UnicodeError):
            text = read_regular(readme, max_bytes=MAX_CARD_BYTES).decode("utf-8")
            found["markdown"] = text
    return found


def _of_file(path: Path) -> Classifier:
    form, opened = target_of(path).NAME, open_file(path)
    size, num_classes = opened.spec.preprocessing.size, len(opened.spec.classes)
    try:
        outputs = opened.run(np.zeros((1, 3, size, size), np.float32))
    except Exception as error:  # each runtime has its own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = f"it does not run on an image of {size} x {size} pixels ({lines[0]:.200})"
        raise InputError(f"{path}: {reason}") from None
    if np.shape(outputs) != (1, num_classes):
        shape = np.shape(outputs)
        raise InputError(f"{path}: expected {num_classes} outputs, one per class, got {shape}")
    if not np.isfinite(outputs).all():
        raise InputError(f"{path}: damaged: its outputs on a grey image are not finite numbers")
    return Classifier(
        path, form, opened.spec, confidence_of(opened.spec), opened.run, opened.run_on
    )


def load_saved(model: Path) -> Loaded:
    """A saved network, or that of a study: the pruned one where there is one."""
    return load(saved_model(model))


def classifier_of(loaded: Loaded, path: Path) -> Classifier:
    """The classifier of a network read from `path`, on the best device of this machine."""
    device = resolve_device("auto")
    network = loaded.model.to(device).eval()

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        return predict_logits(network, torch.from_numpy(images).to(device)).numpy()

    run_on = on_threads(run) if device.type == "cpu" else None
    return Classifier(path, SECATEURS, loaded.spec, confidence_of(loaded.spec), run, run_on)


def read_pixels(spec: ModelSpec, path: Path, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """An image file as a network of this recipe sees it (size, size, 3), before normalisation.

    Raises DecodeError for one that cannot be used.
    """
    return spec.preprocessing.pixels(decode(path, max_pixels=max_pixels))


def read_pixels_of(spec: ModelSpec, data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """What `read_pixels` gives, of an image file whose bytes are at hand."""
    return spec.preprocessing.pixels(decode_data(data, max_pixels=max_pixels))


def network_inputs(spec: ModelSpec, pixels: Sequence[Pixels]) -> torch.Tensor:
    """What a network of this recipe receives (n, 3, size, size), of its images' pixels."""
    wanted = spec.preprocessing
    return normalise(torch.from_numpy(np.stack(pixels)), mean=wanted.mean, std=wanted.std)
