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


def operator_types() -> list[str]:
    """Operator types that can be quantized."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QLinearOpsRegistry, *QDQRegistry})


def quantized_graph(
    model: Any, ranges: Any, *, exclude: Iterable[str] = (), reduce_range: bool = False
) -> Any:
    """A copy of an ONNX model in QDQ form: weights per channel and symmetric, activations uint8.

    `ranges` are those of `activation_ranges`, `exclude` names nodes that stay in float32. With
    `reduce_range` weights have 7 bits, for processors whose 8-bit products saturate. uint8 for
    activations, since with int8 ones ONNX Runtime's kernels take twice the time on x86.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantType

    with quiet():
        quantizer: Any = QDQQuantizer(
            copy.deepcopy(model),
            True,
            reduce_range,
            QuantType.QInt8,
            QuantType.QUInt8,
            ranges,
            [],
            list(exclude),
            operator_types(),
            extra_options={},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    return quantizer.model.model


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
