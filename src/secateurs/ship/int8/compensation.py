"""Compensated int8: each layer is rounded for the inputs that it receives from the ones before.

The graph is that of ONNX Runtime's quantizer and is as large and as fast; only the integers and
scales of weights and biases differ.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateurs.progress import SILENT, Progress
from secateurs.ship.int8.graph_parts import Walk
from secateurs.ship.int8.layer_moments import LayerShape, Moments
from secateurs.ship.int8.operators import LINEAR
from secateurs.ship.int8.rounding import channel_scales, nearest, round_weights
from secateurs.stopping import StopFlag

DAMPING = 0.01  # of the mean second moment, as in GPTQ
MOST_INPUTS = 4608  # of a layer whose rounding is chosen: a matrix of that size is decomposed
BATCH = 16


@dataclass(frozen=True)
class CompensatedLayer:
    """A node whose integers were chosen anew; errors are squared, over the outputs' variance."""

    node: str
    error_before: float
    error: float


@dataclass(frozen=True)
class Rules:
    """Which parts of a layer are chosen with respect to its output.

    `rounding` chooses the integers of the weights, otherwise only biases are corrected. `refit`
    first fits the weights by least squares to what the float32 layer gives, with that ridge
    parameter (of the mean second moment, towards the weights as they were).
    """

    rounding: bool = True
    refit: float | None = None


def compensated(
    model: Any,
    quantized: Any,
    images: NDArray[np.float32],
    *,
    rules: Rules | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> tuple[Any, tuple[CompensatedLayer, ...]]:
    """A copy of `quantized`, a QDQ form of the float32 `model`, with other weights and biases.

    In running order, for every convolution and matrix product: x is what it receives, on `images`
    (n, 3, h, w), from the layers before it as they are now, y what the float32 network gives there.
    Weights are rounded with respect to the second moments of x, and the bias becomes what makes the
    mean of the outputs that of y.
    """
    rules, stop = rules or Rules(), stop or StopFlag()
    changed = copy.deepcopy(quantized)
    batches = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
    reference, walk = Walk(model, batches), Walk(changed, batches)
    places = {node.name: place for place, node in enumerate(reference.nodes)}
    parameters = _Parameters(changed, walk)
    generator = torch.Generator().manual_seed(0)
    todo = [
        (place, node)
        for place, node in enumerate(walk.nodes)
        if parameters.are_free(node, places) or parameters.is_float(node, places)
    ]
    layers: list[CompensatedLayer] = []
    with progress.task("rounding", len(todo)) as advance:
        for place, node in todo:
            stop.check()
            walk.run_until(place)
            own = reference.nodes[places[node.name]]
            reference.run_until(places[node.name] + 1)
            if parameters.is_float(node, places):
                walk.run_until(place + 1)
                _shift_bias(node, own, walk, reference, parameters)
                advance(1)
                continue
            layer = _Layer(node, own, reference.initializers, parameters)
            if layer.shape is not None:
                moments = Moments.of(
                    layer.shape,
                    walk.values[node.input[0]],
                    reference.values[own.output[0]],
                    centred=layer.bias is not None,
                    generator=generator,
                )
                layers.append(layer.choose(moments, rules))
            advance(1)
    return changed, tuple(layers)


def _shift_bias(node: Any, own: Any, walk: Walk, reference: Walk, parameters: _Parameters) -> None:
    """Let the mean outputs of a layer in float32 be those of the float32 network.

    The layer has run; what it gave is shifted as well.
    """
    now, wanted = walk.values[node.output[0]], reference.values[own.output[0]]
    others = (0, *range(2, now[0].ndim))  # the channels are axis 1, of Conv and of Gemm
    total = sum(
        (b.astype(np.float64) - a).sum(others, keepdims=True)
        for a, b in zip(now, wanted, strict=True)
    )
    shift = np.asarray(total) * now[0].shape[1] / sum(part.size for part in now)
    bias = parameters.array(node.input[2]) + shift.reshape(-1)
    parameters.put(node.input[2], torch.from_numpy(bias))
    walk.values[node.output[0]] = [part + shift.astype(np.float32) for part in now]


class _Parameters:
    """The quantized constants of a QDQ graph, by the tensors that its nodes read."""

    def __init__(self, model: Any, walk: Walk) -> None:
        self.initializers = walk.initializers
        self.source = {
            node.output[0]: node for node in walk.nodes if node.op_type == "DequantizeLinear"
        }
        readers: dict[str, int] = {}
        for node in walk.nodes:
            for name in node.input:
                readers[name] = readers.get(name, 0) + 1
        self._readers = readers

    def are_free(self, node: Any, places: dict[str, int]) -> bool:
        """Whether a node has a quantized weight, per channel and of its own, and quantized inputs.

        A weight that several nodes share is left as it is.
        """
        if node.op_type not in LINEAR or node.name not in places:
            return False
        weight, inputs = (self.source.get(node.input[place]) for place in (1, 0))
        if weight is None or inputs is None or weight.input[0] not in self.initializers:
            return False
        names = [node.input[1], *weight.input[:2]]
        if len(node.input) > 2:
            bias = self.source.get(node.input[2])
            if bias is None:
                return False
            names += [node.input[2], *bias.input[:2]]
        zero = weight.input[2] if len(weight.input) > 2 else None
        return (
            all(self._readers[name] == 1 for name in names)
            and (zero is None or not self.array(zero).any())
            and self.array(weight.input[1]).size > 1
        )

    def is_float(self, node: Any, places: dict[str, int]) -> bool:
        """Whether a node is a layer in float32 with a bias of its own."""
        if node.op_type not in ("Conv", "Gemm") or node.name not in places or len(node.input) < 3:
            return False
        return node.input[1] in self.initializers and (
            node.input[2] in self.initializers and self._readers[node.input[2]] == 1
        )

    def array(self, name: str) -> NDArray[Any]:
        """A constant's values."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self.initializers[name])

    def put(self, name: str, values: Tensor) -> None:
        """Replace a constant's values; shape and type stay."""
        from onnx import numpy_helper

        known = self.array(name)
        new = values.numpy().reshape(known.shape).astype(known.dtype)
        self.initializers[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(new), name))


class _Layer:
    """A node with its float32 weights, and the places of its quantized ones."""

    def __init__(
        self, node: Any, own: Any, initializers: dict[str, Any], parameters: _Parameters
    ) -> None:
        from onnx import numpy_helper

        def floats(name: str) -> Tensor:
            return torch.from_numpy(numpy_helper.to_array(initializers[name]).copy()).double()

        self.name = node.name
        self.parameters = parameters
        self.weight = floats(own.input[1])
        self.bias = floats(own.input[2]) if len(own.input) > 2 else None
        self.shape = LayerShape.of(node, tuple(self.weight.shape))
        self.weight_source = parameters.source[node.input[1]]
        self.bias_source = parameters.source[node.input[2]] if self.bias is not None else None
        self.input_scale = float(parameters.array(parameters.source[node.input[0]].input[1]))

    def choose(self, moments: Moments, rules: Rules) -> CompensatedLayer:
        """Choose integers, scales and bias by the moments, and put them into the graph."""
        shape = self.shape
        assert shape is not None, "the caller has looked"
        rows = shape.rows_of(self.weight)
        integers, scales = self._current(rows)
        bias = None if self.bias is None else self.bias.reshape(rows.shape[:2])
        before = moments.relative_error(integers * scales, bias)
        if rules.rounding and rows.shape[2] <= MOST_INPUTS:
            integers, scales = _rounded(rows, moments, rules)
            self.parameters.put(self.weight_source.input[0], shape.weight_of(integers, self.weight))
            self.parameters.put(self.weight_source.input[1], scales)
        if self.bias_source is not None:
            bias = moments.y - ((integers * scales) @ moments.x[:, :, None])[:, :, 0]
            scale = (scales[:, :, 0] * self.input_scale).float().double()
            most = 2.0**31 - 1
            whole = (bias / scale).round().clamp(-most, most)
            bias = whole * scale
            self.parameters.put(self.bias_source.input[1], scale)
            self.parameters.put(self.bias_source.input[0], whole)
        return CompensatedLayer(self.name, before, moments.relative_error(integers * scales, bias))

    def _current(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Integers and scales as they are in the graph, by group."""
        assert self.shape is not None, "the caller has looked"
        whole, scales = (self.parameters.array(n) for n in self.weight_source.input[:2])
        integers = self.shape.rows_of(torch.from_numpy(whole.copy()).double())
        return integers, torch.from_numpy(scales.copy()).double().reshape(*rows.shape[:2], 1)


def _rounded(rows: Tensor, moments: Moments, rules: Rules) -> tuple[Tensor, Tensor]:
    """Integers and scales (groups, channels, 1) for the moments of a layer."""
    strengths = torch.diagonal(moments.xx, dim1=1, dim2=2)
    mean = strengths.mean(1).clamp_min(1e-12)[:, None, None]
    unit = torch.eye(rows.shape[2], dtype=torch.float64)
    if rules.refit is not None:
        ridge = rules.refit * mean
        wanted = moments.xy + ridge * rows.transpose(1, 2)
        rows = torch.linalg.solve(moments.xx + ridge * unit, wanted).transpose(1, 2)
    damped = moments.xx + DAMPING * mean * unit
    # As float32, in which the file has it.
    scales = channel_scales(rows, torch.diagonal(damped, dim1=1, dim2=2)).float().double()
    chosen, plain = round_weights(rows, damped, scales), nearest(rows, scales)
    # One after the other is not always better than each by itself.
    better = _error(chosen * scales - rows, damped) <= _error(plain * scales - rows, damped)
    return torch.where(better[:, :, None], chosen, plain), scales


def _error(difference: Tensor, moments: Tensor) -> Tensor:
    """Expected squared error of the outputs (groups, channels) for a difference of the weights."""
    return ((difference @ moments) * difference).sum(2)
