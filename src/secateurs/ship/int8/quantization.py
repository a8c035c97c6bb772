"""An ONNX file quantized to int8: the candidates that are tried, and the one that is written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import atomic_path, scratch_folder
from secateurs.progress import SILENT, Progress
from secateurs.ship.about import CARD
from secateurs.ship.int8.compensation import CompensatedLayer
from secateurs.ship.int8.int8_candidates import (
    Candidate,
    Int8Images,
    Settings,
    Trial,
    calibrators_of,
    run_onnx,
)
from secateurs.stopping import StopFlag

Method = Literal["compensated", "static", "dynamic"]
METHODS: tuple[Method, ...] = ("compensated", "static", "dynamic")
NUM_TRIED = 3  # calibrators before compensation; the others were never better and take longer
ENOUGH = 0.99  # agreement with float32 from which on every layer is quantized


@dataclass(frozen=True)
class Int8File:
    """An int8 file, how it was chosen, and its logits (images, classes) on validation.

    `candidates` are in the order in which they were tried; `chosen` is the one written. `layers`
    have the errors before and after compensation, none without it. `end` names the last layers,
    small ones, which stay in float32 whatever is chosen; `wanted` is the agreement asked for.
    """

    path: Path
    num_bytes: int
    method: Method
    num_calibration: int
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    layers: tuple[CompensatedLayer, ...]
    num_quantized: int
    end: tuple[str, ...]
    wanted: float
    logits: NDArray[np.float32] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """The record as plain data, without logits."""
        return {
            "path": str(self.path),
            "num_bytes": self.num_bytes,
            "method": self.method,
            "num_calibration": self.num_calibration,
            "num_quantized": self.num_quantized,
            "end": list(self.end),
            "wanted": self.wanted,
            "chosen": asdict(self.chosen),
            "candidates": [asdict(one) for one in self.candidates],
            "layers": [asdict(one) for one in self.layers],
        }


def quantize_onnx(
    source: Path,
    path: Path,
    images: Int8Images,
    *,
    method: Method = "compensated",
    wanted: float = ENOUGH,
    calibrators: Sequence[str] | None = None,
    settings: Settings | None = None,
    card: Mapping[str, Any] | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Int8File:
    """Quantize a float32 ONNX file and write the result to `path`, whole or not at all.

    "static" tries ONNX Runtime's calibrators; "compensated" also scales channels to like ranges,
    rounds weights and corrects biases for the inputs that each layer receives, and leaves sensitive
    blocks in float32 until the share `wanted` of the answers agrees with float32, or where that
    pays; "dynamic" quantizes linear layers only, whose inputs are measured at run time. What has
    the least divergence from PyTorch's answers on the validation images is written. `calibrators`
    are the names of those that are tried; else all, or the first three with compensation. With
    `settings` nothing is tried or chosen, whatever the method. The file says what `source` says,
    with `card` added to its card.
    Raises InputError for a network without layers to quantize, RuntimeError when the file's outputs
    are not finite.
    """
    require("onnx", "an int8 file")
    method = method_of(method)
    rules = calibrators_of(calibrators)
    with scratch_folder(path) as scratch:
        stop = stop or StopFlag()
        trial = Trial(source, images, scratch=scratch, stop=stop, progress=progress)
        if settings is not None:
            method = "compensated" if settings.compensated else "static"
            made = trial.as_before(settings)
        elif method == "dynamic":
            made = trial.dynamic()
        elif method == "static":
            made = trial.static(rules)
        else:
            made = trial.compensated(rules if calibrators else rules[:NUM_TRIED], wanted)
    graph, chosen = made.graph, made.candidate
    end = () if method == "dynamic" else trial.end()
    _say(graph, trial.model, {"precision": "int8", **(card or {})})
    with atomic_path(path) as temporary:
        temporary.write_bytes(graph.SerializeToString())
        logits = run_onnx(temporary, images.validation)
        if not np.isfinite(logits).all():
            raise RuntimeError(f"{path}: the int8 file's outputs are not finite; not written")
    return Int8File(
        path,
        path.stat().st_size,
        method,
        0 if method == "dynamic" else len(images.calibration),
        tuple(trial.candidates),
        chosen,
        made.layers,
        trial.num_linear(convolutions=method != "dynamic") - len(chosen.float_layers) - len(end),
        end,
        wanted,
        logits,
    )


def method_of(name: str) -> Method:
    """A method by its name; InputError for one that is not known."""
    for method in METHODS:
        if method == name:
            return method
    raise InputError(f"int8 method: expected one of {', '.join(METHODS)}, got {name!r}")


def _say(graph: Any, source: Any, card: dict[str, Any]) -> None:
    """Put the metadata of the float32 graph into another one, with `card` added to its card."""
    said = {entry.key: entry.value for entry in source.metadata_props}
    known = json.loads(said.get(CARD, "{}"))
    said[CARD] = json.dumps(known | card)
    del graph.metadata_props[:]
    for key, value in said.items():
        graph.metadata_props.add(key=key, value=value)
    graph.producer_name = "secateurs"
    graph.producer_version = ""
