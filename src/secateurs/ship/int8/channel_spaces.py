"""Which tensors of an ONNX graph have channels that can be scaled together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_ACTIVATIONS = ("Relu", "LeakyRelu", "Clip")
_SAME = (*_ACTIVATIONS, "MaxPool", "AveragePool", "GlobalAveragePool", "Identity")


@dataclass(frozen=True)
class Space:
    """Tensors whose channels are scaled together, with the nodes that write and read them.

    Tensors that only an activation function reads are left out, since they are not rounded.
    `clips` maps outputs of a Clip from 0 to their upper bounds.
    """

    tensors: tuple[str, ...]
    writers: tuple[Any, ...]
    readers: tuple[Any, ...]
    clips: dict[str, float]


def channel_spaces(model: Any) -> list[Space]:
    """The sets of tensors of a graph whose channels (axis 1) can be scaled together."""
    from scipy.cluster.hierarchy import DisjointSet

    graph = model.graph
    constant = {one.name: one for one in graph.initializer}
    uses: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    shapes = _shapes(model)
    sets = DisjointSet(shapes)
    blocked = {one.name for one in [*graph.input, *graph.output]}
    writers: dict[str, Any] = {}
    readers: dict[str, list[Any]] = {}
    clips: dict[str, float] = {}
    for node in graph.node:
        inputs = [name for name in node.input if name and name not in constant]
        if _is_layer(node, constant, uses):
            writers[node.output[0]] = node
            readers.setdefault(inputs[0], []).append(node)
        elif _keeps_channels(node, inputs, shapes, constant):
            for name in inputs:
                sets.merge(name, node.output[0])
            if node.op_type == "Clip":
                clips[node.output[0]] = _bounds(node, constant)[1]
        else:
            blocked |= {*inputs, *node.output}
    inner = _inner(graph)
    found: list[Space] = []
    for names in map(sorted, sets.subsets()):
        own = [writers[name] for name in names if name in writers]
        after = [node for name in names for node in readers.get(name, [])]
        if own and after and not blocked.intersection(names) and _one_width(names, shapes):
            bounds = {name: clips[name] for name in names if name in clips}
            rounded = tuple(name for name in names if name not in inner or name in bounds)
            found.append(Space(rounded, tuple(own), tuple(after), bounds))
    return found


def _inner(graph: Any) -> set[str]:
    """Tensors that activation functions read, and nothing else."""
    kinds: dict[str, set[bool]] = {}
    for node in graph.node:
        for name in node.input:
            kinds.setdefault(name, set()).add(node.op_type in _ACTIVATIONS)
    return {name for name, found in kinds.items() if found == {True}}


def _is_layer(node: Any, constant: dict[str, Any], uses: dict[str, int]) -> bool:
    """Whether a node is a convolution or Gemm with weights of its own."""
    if node.op_type not in ("Conv", "Gemm") or node.input[0] in constant:
        return False
    names = [name for name in node.input[1:] if name]
    if not all(name in constant and uses[name] == 1 for name in names):
        return False
    if node.op_type == "Gemm":
        bias = constant[names[1]].dims if len(names) > 1 else [1]
        return not attribute(node, "transA", 0) and len(bias) == 1
    return True


def _keeps_channels(
    node: Any, inputs: list[str], shapes: dict[str, list[int]], constant: dict[str, Any]
) -> bool:
    """Whether a channel of the output scales with that channel of the inputs, by positive s."""
    known = [shapes.get(name, []) for name in [*inputs, *node.output]]
    if not all(len(shape) > 1 for shape in known):
        return False
    if node.op_type == "Clip":
        low, high = _bounds(node, constant)
        return low == 0 and high > 0
    if node.op_type == "Add":
        return len(inputs) == 2 and len({len(shape) for shape in known}) == 1
    if node.op_type == "ReduceMean":
        from onnx import numpy_helper

        if len(node.input) < 2 or node.input[1] not in constant:
            return False
        rank = len(known[0])
        axes = {int(one) % rank for one in numpy_helper.to_array(constant[node.input[1]]).ravel()}
        return bool(axes) and not axes & {0, 1}
    if node.op_type in ("Flatten", "Reshape"):
        return all(size == 1 for size in known[0][2:]) and known[1][1:2] == known[0][1:2]
    return node.op_type in _SAME and len(node.output) == 1


def _bounds(node: Any, constant: dict[str, Any]) -> tuple[float, float]:
    """The bounds of a Clip; not a number where they are not constants."""
    from onnx import numpy_helper

    found = [-np.inf, np.inf]
    for place, name in enumerate(node.input[1:3]):
        if name:
            known = name in constant
            found[place] = float(numpy_helper.to_array(constant[name])) if known else np.nan
    return found[0], found[1]


def _one_width(names: list[str], shapes: dict[str, list[int]]) -> bool:
    """Whether all tensors have the same known number of channels."""
    widths = {tuple(shapes.get(name, [])[1:2]) for name in names}
    return len(widths) == 1 and widths.pop() > (1,)


def _shapes(model: Any) -> dict[str, list[int]]:
    """Shapes of the float32 tensors of a graph, unknown sizes as 0."""
    import onnx

    values = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    return {
        one.name: [size.dim_value for size in one.type.tensor_type.shape.dim]
        for one in values
        if one.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }


def attribute(node: Any, name: str, default: int) -> int:
    """An attribute of a node that is a whole number."""
    return next((one.i for one in node.attribute if one.name == name), default)
