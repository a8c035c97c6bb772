"""Channels scaled to like ranges before an ONNX graph is quantized; its answers stay the same.

An activation has one scale for all its channels, so that a channel of small values is rounded
coarsely. Where everything between some layers only scales along with its inputs (ReLU, pooling,
sums), a channel may be multiplied by s in the layers that write it and divided by s in those that
read it: cross-layer equalization, Nagel et al. (2019), Data-Free Quantization. Here the ranges are
measured, and how far they are made equal is chosen by the error that rounding will cause.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.ship.int8.channel_spaces import Space, attribute, channel_spaces
from secateurs.ship.latency import onnx_session
from secateurs.stopping import StopFlag

POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the ranges, by which channels are divided
MARGIN = 2.0  # of a channel's range: room for the larger values of other images
LEAST = 1 / 32  # of the largest channel: what a channel's range is taken for at least
BATCH = 8

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """Of each channel of a tensor on the images: least and largest value, and mean square."""

    low: Array
    high: Array
    square: Array


def equalized(
    model: Any, images: NDArray[np.float32], *, stop: StopFlag | None = None
) -> tuple[Any, int]:
    """A copy of a float32 ONNX model with inferred shapes, its channels scaled; and of how many.

    Ranges are those on `images` (n, 3, h, w). For each set of tensors that must be scaled together
    the power is chosen with which rounding to 8 bits causes the least error in the layers that
    read them. The number counts the sets that were scaled; with 0 nothing has changed.
    """
    spaces = channel_spaces(model)
    changed = copy.deepcopy(model)
    if not spaces:
        return changed, 0
    stop = stop or StopFlag()
    ranges = channel_ranges(
        model, {name for space in spaces for name in space.tensors}, images, stop
    )
    weights = Weights(changed)
    num_scaled = 0
    for space in spaces:
        stop.check()
        factors = factors_of(space, ranges, weights)
        if factors is not None:
            _scale(space, factors, weights)
            num_scaled += 1
    weights.put_back()
    return changed, num_scaled


def channel_ranges(
    model: Any, wanted: set[str], images: NDArray[np.float32], stop: StopFlag
) -> dict[str, Range]:
    """What the channels of some tensors are on the images."""
    import onnx

    names = sorted(wanted)
    watched = copy.deepcopy(model)
    del watched.graph.output[:]
    watched.graph.output.extend([onnx.ValueInfoProto(name=name) for name in names])
    session = onnx_session(watched.SerializeToString())
    found: dict[str, Range] = {}
    for first in range(0, len(images), BATCH):
        stop.check()
        batch = images[first : first + BATCH]
        for name, values in zip(
            names, session.run(names, {model.graph.input[0].name: batch}), strict=True
        ):
            others = (0, *range(2, values.ndim))
            share = len(batch) / len(images)
            square = np.square(values, dtype=np.float64).mean(others) * share
            low, high = (np.asarray(f(others), np.float64) for f in (values.min, values.max))
            before = found.get(name)
            found[name] = (
                Range(low, high, square)
                if before is None
                else Range(
                    np.minimum(before.low, low),
                    np.maximum(before.high, high),
                    before.square + square,
                )
            )
    return found


class Weights:
    """Weights of a graph as float64, (channels, inputs, positions) with what each input is."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self._constants = {one.name: one for one in model.graph.initializer}
        self._values: dict[str, Array] = {}
        self._to_array = numpy_helper.to_array
        self._from_array = numpy_helper.from_array

    def of(self, name: str) -> Array:
        """A constant, as it is now."""
        if name not in self._values:
            self._values[name] = self._to_array(self._constants[name]).astype(np.float64)
        return self._values[name]

    def put(self, name: str, values: Array) -> None:
        """Replace a constant."""
        self._values[name] = values

    def put_back(self) -> None:
        """Write what was read into the graph, as float32."""
        for name, values in self._values.items():
            new = self._from_array(values.astype(np.float32), name)
            self._constants[name].CopyFrom(new)

    def read(self, node: Any) -> tuple[Array, NDArray[np.intp]]:
        """A reader's weight (channels, inputs, positions), and which channel each input is."""
        weight = self.of(node.input[1])
        if node.op_type == "Gemm":
            rows = weight if attribute(node, "transB", 0) else weight.T
            return rows[:, :, None], np.arange(rows.shape[1])[None]
        groups, own = attribute(node, "group", 1), weight.shape[1]
        group = np.arange(len(weight)) // (len(weight) // groups)
        return weight.reshape(len(weight), own, -1), group[:, None] * own + np.arange(own)


def factors_of(space: Space, ranges: dict[str, Range], weights: Weights) -> Array | None:
    """What to multiply each channel by, or None where nothing is better than as it is."""
    tops = [np.maximum(ranges[name].high, -ranges[name].low) for name in space.tensors]
    size = np.max([top / max(1e-12, top.max()) for top in tops], axis=0)
    alive = size > 1e-6
    most = np.maximum(1, 1 / np.maximum(size, LEAST) / MARGIN)
    for name, bound in space.clips.items():
        top = np.maximum(ranges[name].high, 1e-12)
        # A channel that reaches the bound is clipped there: it stays as it is.
        most = np.minimum(most, np.where(top < bound, np.maximum(1, bound / top / MARGIN), 1))
    best: tuple[float, Array | None] = (_noise(space, ranges, weights, np.ones(len(size))), None)
    for power in POWERS[1:]:
        factors = np.where(alive, np.maximum(size, LEAST) ** -power, 1.0)
        factors = np.minimum(factors, most)
        noise = _noise(space, ranges, weights, factors)
        if noise < best[0]:
            best = noise, factors
    return best[1]


def _noise(space: Space, ranges: dict[str, Range], weights: Weights, factors: Array) -> float:
    """Squared error that rounding causes in the outputs of the readers, over their mean squares.

    Errors of rounding are taken as uniform and independent.
    """
    total = 0.0
    for node in space.readers:
        weight, channel = weights.read(node)
        seen = ranges[node.input[0]]
        scaled = weight / factors[channel][:, :, None]
        step = (np.max(factors * seen.high) - min(0.0, np.min(factors * seen.low))) / 255
        of_inputs = np.square(scaled).sum() * step**2 / 12
        steps = np.abs(scaled).max((1, 2)) / 127
        square = (factors**2 * seen.square)[channel]
        of_weights = (steps[:, None] ** 2 / 12 * square).sum() * weight.shape[2]
        signal = (np.square(weight).sum(2) * seen.square[channel]).sum()
        total += (of_inputs + of_weights) / max(signal, 1e-30)
    return total


def _scale(space: Space, factors: Array, weights: Weights) -> None:
    """Multiply the channels by `factors` where they are written, divide where they are read."""
    for node in space.writers:
        weight = weights.of(node.input[1])
        first = node.op_type == "Conv" or bool(attribute(node, "transB", 0))
        shape = (-1,) + (1,) * (weight.ndim - 1) if first else (1, -1)
        weights.put(node.input[1], weight * factors.reshape(shape))
        if len(node.input) > 2 and node.input[2]:
            weights.put(node.input[2], weights.of(node.input[2]) * factors)
    for node in space.readers:
        weight = weights.of(node.input[1])
        if node.op_type == "Gemm":
            along = factors if attribute(node, "transB", 0) else factors[:, None]
        else:
            along = factors[weights.read(node)[1]]
            along = np.broadcast_to(along, weight.shape[:2]).reshape(
                *weight.shape[:2], *(1,) * (weight.ndim - 2)
            )
        weights.put(node.input[1], weight / along)
