"""The ways to quantize an ONNX file that are tried, each compared with float32 on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.errors import InputError
from secateurs.progress import Progress
from secateurs.ship.int8.agreement import Agreement, agreement
from secateurs.ship.int8.calibration import CALIBRATORS, Calibrator, activation_ranges
from secateurs.ship.int8.compensation import CompensatedLayer, compensated
from secateurs.ship.int8.equalization import equalized
from secateurs.ship.int8.operators import (
    float_end,
    layer_names,
    linear_nodes,
    quantized_graph,
    with_constants_of,
)
from secateurs.ship.int8.processor import int8_support
from secateurs.ship.int8.quiet import quiet
from secateurs.ship.int8.sensitivity import Block, blocks_of, blocks_to_leave, sensitive_blocks
from secateurs.ship.latency import onnx_session
from secateurs.stopping import StopFlag

Images = NDArray[np.float32]
NUM_EQUALIZED = 2  # calibrators that are tried with equalized channels
PAYS = 0.75  # of the divergence: what leaving layers in float32 must reach
BATCH = 32
_UNKNOWN = Agreement(0.0, float("inf"), float("inf"))  # not compared yet


@dataclass(frozen=True)
class Candidate:
    """One way to quantize, with its answers on validation images compared with float32's."""

    calibrator: str | None
    compensated: bool
    float_layers: tuple[str, ...]
    agreement: Agreement = _UNKNOWN
    equalized: bool = False


@dataclass(frozen=True)
class Settings:
    """A way to quantize that was chosen before; `calibrator` is a name."""

    calibrator: str
    compensated: bool
    float_layers: tuple[str, ...]
    equalized: bool = False

    @classmethod
    def of(cls, chosen: Mapping[str, Any]) -> Settings:
        """The settings of a candidate that was written as plain data."""
        return cls(
            chosen["calibrator"],
            chosen["compensated"],
            tuple(chosen["float_layers"]),
            chosen.get("equalized", False),
        )


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


def calibrators_of(names: Sequence[str] | None) -> tuple[Calibrator, ...]:
    """Calibrators by their names, all of them for None; InputError for one that is not known."""
    known = {one.name: one for one in CALIBRATORS}
    if names is None:
        return CALIBRATORS
    for name in names:
        if name not in known:
            raise InputError(f"calibrator: expected one of {', '.join(known)}, got {name!r}")
    return tuple(known[name] for name in names)


def run_onnx(model: Path | bytes, images: Images) -> Images:
    """The logits of a file or a serialized graph for images, in batches."""
    session = onnx_session(model)
    name = session.get_inputs()[0].name
    parts = [
        session.run(None, {name: images[first : first + BATCH]})[0]
        for first in range(0, len(images), BATCH)
    ]
    return np.concatenate(parts)


@dataclass(frozen=True)
class Base:
    """A float32 graph with inferred shapes that is quantized."""

    model: Any
    equalized: bool


@dataclass(frozen=True)
class Made:
    """A quantized graph with what is known of it, and the layers that compensation changed."""

    graph: Any
    candidate: Candidate
    layers: tuple[CompensatedLayer, ...] = ()

    @property
    def divergence(self) -> float:
        """From PyTorch's answers on validation, in nats."""
        return self.candidate.agreement.divergence


class Trial:
    """What all candidates share: the float32 graph, images, and a folder for files on the way."""

    def __init__(
        self,
        source: Path,
        images: Int8Images,
        *,
        scratch: Path,
        stop: StopFlag,
        progress: Progress,
    ) -> None:
        import onnx

        self.source, self.images, self.scratch = source, images, scratch
        self.stop, self.progress = stop, progress
        self.model = onnx.shape_inference.infer_shapes(onnx.load(source))
        self.base = Base(self.model, equalized=False)
        self.nodes = linear_nodes(self.model)
        if not self.nodes:
            raise InputError(f"{source}: no convolution and no linear layer to quantize")
        self.names = layer_names(self.model, self.nodes)
        self.candidates: list[Candidate] = []
        self._known: dict[tuple[bool, str], Any] = {}
        # 8-bit products saturate on x86 without VNNI; weights of 7 bits do not.
        self.reduced = int8_support().saturates

    def num_linear(self, *, convolutions: bool) -> int:
        """How many layers there are, with or without convolutions."""
        kinds = {node.name: node.op_type for node in self.model.graph.node}
        return sum(convolutions or kinds[name] != "Conv" for name in self.nodes)

    def end(self) -> tuple[str, ...]:
        """The small last layers that stay in float32."""
        return tuple(self.names[name] for name in float_end(self.model) if name in self.names)

    def dynamic(self) -> Made:
        """Linear layers with int8 weights; the ranges of their inputs are found at run time."""
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        if not self.num_linear(convolutions=False):
            raise InputError(f"{self.source}: no linear layer for dynamic quantization")
        written = self.scratch / "dynamic.onnx"
        with quiet():
            quantize_dynamic(
                self.source,
                written,
                op_types_to_quantize=["Gemm", "MatMul"],
                per_channel=True,
                reduce_range=self.reduced,
                weight_type=QuantType.QInt8,
            )
        graph = onnx.load(written)
        return self._compared(Made(graph, Candidate(None, False, ())))

    def static(self, calibrators: Sequence[Calibrator]) -> Made:
        """The best of ONNX Runtime's calibrators."""
        found: list[Made] = []
        with self.progress.task("calibration", len(calibrators)) as advance:
            for one in calibrators:
                graph = self._graph(self.base, one.name)
                found.append(self._compared(Made(graph, Candidate(one.name, False, ()))))
                advance(1)
        return min(found, key=lambda one: one.divergence)

    def compensated(self, calibrators: Sequence[Calibrator], wanted: float) -> Made:
        """The best with compensation, of equalized channels too; perhaps with float32 blocks."""
        plain = self.static(calibrators)
        found = [plain]
        even = self._equalized()
        if even is not None:
            for one in calibrators[:NUM_EQUALIZED]:
                found.append(self._compared(self._refined(even, one.name)))
        if even is None or len(calibrators) > 1:
            assert plain.candidate.calibrator is not None, "static quantization has one"
            found.append(self._compared(self._refined(self.base, plain.candidate.calibrator)))
        best = min(found, key=lambda one: one.divergence)
        if best.candidate.agreement.share >= wanted:
            return best
        base = even if even is not None and best.candidate.equalized else self.base
        return self._with_float_blocks(best, base, wanted)

    def as_before(self, settings: Settings) -> Made:
        """The graph by settings that were chosen before."""
        (calibrator,) = calibrators_of([settings.calibrator])
        base = (self._equalized() if settings.equalized else None) or self.base
        if settings.compensated:
            made = self._refined(base, calibrator.name)
        else:
            graph = self._graph(base, calibrator.name)
            made = Made(graph, Candidate(calibrator.name, False, (), equalized=base.equalized))
        if settings.float_layers:
            left = set(settings.float_layers)
            blocks = [one for one in self._blocks(base) if left.intersection(one.layers)]
            return self._without(made, base, blocks)
        return self._compared(made)

    def _compared(self, made: Made) -> Made:
        """What was made with its answers compared with PyTorch's on validation; remembered."""
        self.stop.check()
        logits = run_onnx(made.graph.SerializeToString(), self.images.validation)
        found = replace(made.candidate, agreement=agreement(logits, self.images.logits))
        self.candidates.append(found)
        return replace(made, candidate=found)

    def _equalized(self) -> Base | None:
        """The graph with like ranges of channels, or None where no channels can be scaled."""
        with self.progress.task("equalization", 1) as advance:
            model, num_scaled = equalized(self.model, self.images.calibration, stop=self.stop)
            advance(1)
        return Base(model, equalized=True) if num_scaled else None

    def _graph(self, base: Base, calibrator: str, without: Sequence[str] = ()) -> Any:
        """A base in QDQ form, some nodes left out."""
        self.stop.check()
        key = base.equalized, calibrator
        if key not in self._known:
            (rule,) = calibrators_of([calibrator])
            self._known[key] = activation_ranges(
                base.model, self.images.calibration, rule, scratch=self.scratch
            )
        return quantized_graph(
            base.model, self._known[key], exclude=without, reduce_range=self.reduced
        )

    def _refined(self, base: Base, calibrator: str) -> Made:
        graph, layers = compensated(
            base.model,
            self._graph(base, calibrator),
            self.images.calibration,
            stop=self.stop,
            progress=self.progress,
        )
        return Made(graph, Candidate(calibrator, True, (), equalized=base.equalized), layers)

    def _blocks(self, base: Base) -> list[Block]:
        return blocks_of(base.model, without=float_end(base.model))

    def _without(self, made: Made, base: Base, blocks: Sequence[Block]) -> Made:
        """What was made with some blocks in float32; the other layers keep their numbers."""
        names = {layer for block in blocks for layer in block.layers}
        nodes = {node for block in blocks for node in block.nodes}
        floats = tuple(self.names[name] for name in self.nodes if self.names[name] in names)
        return self._compared(
            Made(
                self._bypassed(made, base, tuple(nodes)),
                replace(made.candidate, float_layers=floats),
                tuple(layer for layer in made.layers if layer.node not in nodes),
            )
        )

    def _bypassed(self, made: Made, base: Base, nodes: Sequence[str]) -> Any:
        assert made.candidate.calibrator is not None, "dynamic quantization leaves no blocks"
        return with_constants_of(
            self._graph(base, made.candidate.calibrator, sorted(nodes)), made.graph
        )

    def _with_float_blocks(self, best: Made, base: Base, wanted: float) -> Made:
        """The fewest blocks in float32 with which enough answers agree, by measured sensitivity.

        Where none do, the best of all if that pays.
        """
        blocks = sensitive_blocks(
            lambda nodes: self._bypassed(best, base, nodes),
            self._blocks(base),
            self.images.calibration,
            run=lambda graph, images: run_onnx(graph.SerializeToString(), images),
            reference=run_onnx(self.source, self.images.calibration),
            stop=self.stop,
            progress=self.progress,
        )
        found: list[Made] = []
        for left in blocks_to_leave(blocks):
            found.append(self._without(best, base, left))
            if found[-1].candidate.agreement.share >= wanted:
                return found[-1]
        least = min((one.divergence for one in found), default=np.inf)
        if least > PAYS * best.divergence:
            return best
        return next(one for one in found if one.divergence <= 1.05 * least)
