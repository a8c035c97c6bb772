"""An ONNX file quantized to int8: the candidates that are tried, and the one that is written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import atomic_path
from secateurs.progress import SILENT, Progress
from secateurs.ship.about import CARD
from secateurs.ship.int8.agreement import Agreement, agreement
from secateurs.ship.int8.calibration import CALIBRATORS, Calibrator, activation_ranges
from secateurs.ship.int8.compensation import CompensatedLayer, compensated
from secateurs.ship.int8.operators import float_end, layer_names, linear_nodes, quantized_graph
from secateurs.ship.int8.processor import int8_support
from secateurs.ship.int8.quiet import quiet
from secateurs.ship.int8.sensitivity import blocks_of, blocks_to_leave, sensitive_blocks
from secateurs.ship.latency import onnx_session
from secateurs.stopping import StopFlag

Images = NDArray[np.float32]
Method = Literal["compensated", "static", "dynamic"]
METHODS: tuple[Method, ...] = ("compensated", "static", "dynamic")
NUM_COMPENSATED = 2  # calibrators that are tried with compensation
ENOUGH = 0.99  # agreement with float32 from which on every layer is quantized
PAYS = 0.75  # of the divergence: what leaving layers in float32 must reach
BATCH = 32


@dataclass(frozen=True)
class Candidate:
    """One way to quantize, with its answers on validation images compared with float32's."""

    calibrator: str | None
    compensated: bool
    float_layers: tuple[str, ...]
    agreement: Agreement


@dataclass(frozen=True)
class Settings:
    """A way to quantize that was chosen before; `calibrator` is a name."""

    calibrator: str
    compensated: bool
    float_layers: tuple[str, ...]


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


@dataclass(frozen=True)
class Int8Images:
    """Preprocessed images: for `calibration`, and of `validation` with PyTorch's logits for them.

    Images are (n, 3, size, size), logits (n, classes), all float32. No labels are needed.
    """

    calibration: Images
    validation: Images
    logits: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name in ("calibration", "validation"):
            if not len(getattr(self, name)):
                raise InputError(f"int8 needs {name} images, got none")
        if len(self.validation) != len(self.logits):
            raise InputError(
                f"int8: {len(self.validation)} validation images and {len(self.logits)} logits"
            )


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

    "static" tries ONNX Runtime's calibrators, "compensated" also rounds weights and corrects biases
    for the inputs that each layer receives, and leaves sensitive blocks in float32 until the share
    `wanted` of the answers agrees with float32, or where that pays;
    "dynamic" quantizes linear layers only, whose inputs are measured at run time. What has the
    least divergence from PyTorch's answers on the validation images is written. `calibrators` are
    the names of those that are tried, all of them unless given. With `settings` nothing is tried or
    chosen, whatever the method. The file says what `source` says, with `card` added to its card.
    Raises InputError for a network without layers to quantize, RuntimeError when the file's outputs
    are not finite.
    """
    require("onnx", "an int8 file")
    method = method_of(method)
    trial = _Trial(source, images, wanted, _named(calibrators), stop or StopFlag(), progress)
    if settings is not None:
        method = "compensated" if settings.compensated else "static"
        graph, chosen, layers = trial.as_before(settings)
    elif method == "dynamic":
        graph, chosen, layers = trial.dynamic()
    elif method == "static":
        graph, chosen, layers = trial.static()
    else:
        graph, chosen, layers = trial.compensated()
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
        layers,
        trial.num_linear(method) - len(chosen.float_layers) - len(trial.end(method)),
        trial.end(method),
        wanted,
        logits,
    )


def method_of(name: str) -> Method:
    """A method by its name; InputError for one that is not known."""
    for method in METHODS:
        if method == name:
            return method
    raise InputError(f"int8 method: expected one of {', '.join(METHODS)}, got {name!r}")


def _named(names: Sequence[str] | None) -> tuple[Calibrator, ...]:
    known = {one.name: one for one in CALIBRATORS}
    if names is None:
        return CALIBRATORS
    for name in names:
        if name not in known:
            raise InputError(f"calibrator: expected one of {', '.join(known)}, got {name!r}")
    return tuple(known[name] for name in names)


def run_onnx(model: Path | bytes, images: Images) -> NDArray[np.float32]:
    """The logits of a file or a serialized graph for images, in batches."""
    session = onnx_session(model)
    name = session.get_inputs()[0].name
    parts = [
        session.run(None, {name: images[first : first + BATCH]})[0]
        for first in range(0, len(images), BATCH)
    ]
    return np.concatenate(parts)


_Chosen = tuple[Any, Candidate, tuple[CompensatedLayer, ...]]


class _Trial:
    """What all candidates share: the float32 graph and the images."""

    def __init__(
        self,
        source: Path,
        images: Int8Images,
        wanted: float,
        calibrators: tuple[Calibrator, ...],
        stop: StopFlag,
        progress: Progress,
    ) -> None:
        import onnx

        self.source, self.images, self.stop, self.progress = source, images, stop, progress
        self.wanted, self.calibrators = wanted, calibrators
        self.model = onnx.shape_inference.infer_shapes(onnx.load(source))
        self.nodes = linear_nodes(self.model)
        if not self.nodes:
            raise InputError(f"{source}: no convolution and no linear layer to quantize")
        self.names = layer_names(self.model, self.nodes)
        self.candidates: list[Candidate] = []
        # 8-bit products saturate on x86 without VNNI; weights of 7 bits do not.
        self.reduced = int8_support().saturates

    def num_linear(self, method: Method) -> int:
        """How many layers a method quantizes."""
        kinds = {node.name: node.op_type for node in self.model.graph.node}
        return sum(method != "dynamic" or kinds[name] != "Conv" for name in self.nodes)

    def end(self, method: Method) -> tuple[str, ...]:
        """The small last layers that a method leaves in float32."""
        if method == "dynamic":
            return ()
        return tuple(self.names[name] for name in float_end(self.model) if name in self.names)

    def candidate(
        self, graph: Any, calibrator: str | None, *, refined: bool, left: tuple[str, ...] = ()
    ) -> Candidate:
        """Compare a graph's answers with PyTorch's on validation, and remember the result."""
        self.stop.check()
        logits = run_onnx(graph.SerializeToString(), self.images.validation)
        found = Candidate(
            calibrator,
            refined,
            left,
            agreement(logits, self.images.logits),
        )
        self.candidates.append(found)
        return found

    def dynamic(self) -> _Chosen:
        """Linear layers with int8 weights; the ranges of their inputs are found at run time."""
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        if not self.num_linear("dynamic"):
            raise InputError(f"{self.source}: no linear layer for dynamic quantization")
        with tempfile.TemporaryDirectory() as folder, quiet():
            written = Path(folder) / "dynamic.onnx"
            quantize_dynamic(
                self.source,
                written,
                op_types_to_quantize=["Gemm", "MatMul"],
                per_channel=True,
                reduce_range=self.reduced,
                weight_type=QuantType.QInt8,
            )
            graph = onnx.load(written)
        return graph, self.candidate(graph, None, refined=False), ()

    def static(self) -> _Chosen:
        """The best of ONNX Runtime's calibrators."""
        graphs = self._calibrated()
        best = min(graphs, key=lambda one: one[0].agreement.divergence)
        return best[2], best[0], ()

    def as_before(self, settings: Settings) -> _Chosen:
        """The graph by settings that were chosen before."""
        (calibrator,) = _named([settings.calibrator])
        left = set(settings.float_layers)
        blocks = blocks_of(self.model, without=float_end(self.model))
        nodes = tuple(
            node for block in blocks if left.intersection(block.layers) for node in block.nodes
        )
        name = self.model.graph.input[0].name
        ranges = activation_ranges(self.source, name, self.images.calibration, calibrator)
        graph = quantized_graph(self.model, ranges, exclude=nodes, reduce_range=self.reduced)
        if settings.compensated:
            return self._refined(graph, calibrator.name, settings.float_layers)
        plain = self.candidate(graph, calibrator.name, refined=False, left=settings.float_layers)
        return graph, plain, ()

    def compensated(self) -> _Chosen:
        """The best calibrators with compensation; perhaps with some blocks in float32."""
        graphs = self._calibrated()
        graphs = sorted(graphs, key=lambda one: one[0].agreement.divergence)
        found: list[_Chosen] = [(graphs[0][2], graphs[0][0], ())]
        ranges: dict[str | None, Any] = {}
        for plain, known, graph in graphs[:NUM_COMPENSATED]:
            found.append(self._refined(graph, plain.calibrator))
            ranges[plain.calibrator] = known
        best = min(found, key=_divergence)
        if best[1].agreement.share >= self.wanted:
            return best
        return self._with_float_blocks(best, ranges[best[1].calibrator])

    def _calibrated(self) -> list[tuple[Candidate, Any, Any]]:
        """A candidate with its ranges and its graph for each calibrator."""
        found: list[tuple[Candidate, Any, Any]] = []
        name = self.model.graph.input[0].name
        with self.progress.task("calibration", len(self.calibrators)) as advance:
            for calibrator in self.calibrators:
                self.stop.check()
                ranges = activation_ranges(self.source, name, self.images.calibration, calibrator)
                graph = quantized_graph(self.model, ranges, reduce_range=self.reduced)
                found.append((self.candidate(graph, calibrator.name, refined=False), ranges, graph))
                advance(1)
        return found

    def _refined(self, graph: Any, calibrator: str | None, left: tuple[str, ...] = ()) -> _Chosen:
        refined, layers = compensated(
            self.model, graph, self.images.calibration, stop=self.stop, progress=self.progress
        )
        return refined, self.candidate(refined, calibrator, refined=True, left=left), layers

    def _with_float_blocks(self, best: _Chosen, ranges: Any) -> _Chosen:
        """The fewest blocks in float32 with which enough answers agree, by measured sensitivity.

        Where none do, the best of all if that pays.
        """

        def graph_of(left: tuple[str, ...]) -> Any:
            return quantized_graph(self.model, ranges, exclude=left, reduce_range=self.reduced)

        refined = best[1].compensated
        blocks = sensitive_blocks(
            graph_of,
            blocks_of(self.model, without=float_end(self.model)),
            self.images.calibration,
            run=lambda graph, images: run_onnx(graph.SerializeToString(), images),
            reference=run_onnx(self.source, self.images.calibration),
            stop=self.stop,
            progress=self.progress,
        )
        found: list[_Chosen] = []
        for left in blocks_to_leave(blocks):
            nodes = tuple(node for block in left for node in block.nodes)
            layers = tuple(layer for block in left for layer in block.layers)
            graph, calibrator = graph_of(nodes), best[1].calibrator
            if refined:
                found.append(self._refined(graph, calibrator, layers))
            else:
                one = self.candidate(graph, calibrator, refined=False, left=layers)
                found.append((graph, one, ()))
            if found[-1][1].agreement.share >= self.wanted:
                return found[-1]
        if not found or min(map(_divergence, found)) > PAYS * _divergence(best):
            return best
        least = min(map(_divergence, found))
        return next(one for one in found if _divergence(one) <= 1.05 * least)


def _divergence(one: _Chosen) -> float:
    return one[1].agreement.divergence


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
