"""The operators that ONNX Runtime's quantizer knows, and an ONNX graph with all of them quantized.

The graph is in QDQ form: float operators between pairs of QuantizeLinear and DequantizeLinear,
which ONNX Runtime replaces by integer kernels when it opens the file.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from secateurs.ship.int8.quiet import quiet

LINEAR = ("Conv", "Gemm", "MatMul")
SMALL_END = 0.02  # of all bytes: a last layer that stays in float32


def operator_types() -> list[str]:
    """Operator types that can be quantized."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QLinearOpsRegistry, *QDQRegistry})


def quantized_graph(
    model: Any, ranges: Any, *, exclude: Iterable[str] = (), reduce_range: bool = False
) -> Any:
    """A copy of an ONNX model in QDQ form: weights per channel and symmetric, activations uint8.

    `ranges` are those of `activation_ranges`, `exclude` names nodes that stay in float32, as do
    `float_sums` and `float_end`. With `reduce_range` weights have 7 bits, for processors whose
    8-bit products saturate. uint8 for activations, since with int8 ones ONNX Runtime's kernels take
    twice the time on x86.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantType

    sums = float_sums(model)
    with quiet():
        quantizer: Any = QDQQuantizer(
            copy.deepcopy(model),
            True,
            reduce_range,
            QuantType.QInt8,
            QuantType.QUInt8,
            ranges,
            [],
            sorted({*exclude, *sums, *float_end(model)}),
            operator_types(),
            extra_options={},
        )
        quantizer.quantize_model()
        _read_sums(quantizer.model.model, sums)
        quantizer.model.topological_sort()
    return quantizer.model.model


def with_constants_of(graph: Any, other: Any) -> Any:
    """A quantized graph with the constants of another one, where both have one of a name."""
    known = {one.name: one for one in other.graph.initializer}
    for one in graph.graph.initializer:
        if one.name in known:
            one.CopyFrom(known[one.name])
    return graph


def float_sums(model: Any) -> tuple[str, ...]:
    """Names of the residual sums that are terms of each other, as in MobileNetV2.

    Rounded after every sum, such a chain loses a part of each term again and again.
    """
    sums = {node.output[0]: node.name for node in model.graph.node if node.op_type == "Add"}
    chained: set[str] = set()
    for node in model.graph.node:
        before = [sums[name] for name in node.input if name in sums]
        if node.op_type == "Add" and before:
            chained |= {node.name, *before}
    return tuple(node.name for node in model.graph.node if node.name in chained)


def _read_sums(graph: Any, sums: Sequence[str]) -> None:
    """Let each of the `sums` read the float values of another one, not the rounded ones."""
    source = {name: node for node in graph.graph.node for name in node.output}
    for node in graph.graph.node:
        if node.name not in sums:
            continue
        for place, name in enumerate(node.input):
            rounded = source.get(name)
            if rounded is None or rounded.op_type != "DequantizeLinear":
                continue
            rounding = source.get(rounded.input[0])
            if rounding is None or rounding.op_type != "QuantizeLinear":
                continue
            term = source.get(rounding.input[0])
            if term is not None and term.name in sums:
                node.input[place] = rounding.input[0]


def float_end(model: Any) -> tuple[str, ...]:
    """The nodes from the pooling to the answers, where the last layer is small; else none.

    Small is at most `SMALL_END` of all bytes. Answers are then not rounded to 8 bits, and as much
    as that is lost nowhere else for so few bytes.
    """
    source = {name: node for node in model.graph.node for name in node.output}
    size = {one.name: one.ByteSize() for one in model.graph.initializer}
    node = source.get(model.graph.output[0].name)
    found: list[str] = []
    held = 0
    while node is not None and node.op_type != "Conv":
        inputs = [name for name in node.input if name not in size]
        held += sum(size.get(name, 0) for name in node.input)
        is_linear = node.op_type in LINEAR
        if len(inputs) != 1 or held > SMALL_END * sum(size.values()):
            break
        if is_linear and any(name in found for name in _linear_names(model)):
            break  # the layer before the last one
        found.append(node.name)
        node = source.get(inputs[0])
    last = [name for name in _linear_names(model) if name in found]
    return tuple(reversed(found)) if last else ()


def _linear_names(model: Any) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type in LINEAR]


def linear_nodes(model: Any) -> list[str]:
    """Names of the convolutions and matrix products with constant weights, in running order."""
    constant = {value.name for value in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in LINEAR and node.input[1] in constant
    ]


def layer_names(model: Any, nodes: Sequence[str]) -> dict[str, str]:
    """For each node the layer that its weight is named after, or else its own name."""
    found: dict[str, str] = {}
    for node in model.graph.node:
        if node.name in nodes:
            weight = str(node.input[1])
            ends = weight.endswith(".weight")
            found[node.name] = weight.removesuffix(".weight") if ends else node.name
    return found
