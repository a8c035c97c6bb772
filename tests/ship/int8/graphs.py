"""A small convolutional network as an ONNX graph, made without an exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

SIZE = 12
CLASSES = 4


def small_graph(path: Path, *, seed: int = 0) -> Any:
    """Convolution, depthwise convolution, residual sum, pooling and a linear layer; 4 classes."""
    rng = np.random.default_rng(seed)
    weights = {
        "stem.weight": rng.normal(0, 0.3, (8, 3, 3, 3)),
        "stem.bias": rng.normal(0, 0.1, 8),
        "deep.weight": rng.normal(0, 0.4, (8, 1, 3, 3)),
        "deep.bias": rng.normal(0, 0.1, 8),
        "point.weight": rng.normal(0, 0.4, (8, 8, 1, 1)),
        "point.bias": rng.normal(0, 0.1, 8),
        "head.weight": rng.normal(0, 0.5, (CLASSES, 8)),
        "head.bias": rng.normal(0, 0.1, CLASSES),
    }
    make = helper.make_node
    nodes = [
        make("Conv", ["images", "stem.weight", "stem.bias"], ["a"], "n_stem", strides=[2, 2]),
        make("Relu", ["a"], ["b"], "n_relu"),
        make(
            "Conv",
            ["b", "deep.weight", "deep.bias"],
            ["c"],
            "n_deep",
            group=8,
            pads=[1, 1, 1, 1],
        ),
        make("Conv", ["c", "point.weight", "point.bias"], ["d"], "n_point"),
        make("Add", ["d", "b"], ["e"], "n_add"),
        make("GlobalAveragePool", ["e"], ["f"], "n_pool"),
        make("Flatten", ["f"], ["g"], "n_flat"),
        make("Gemm", ["g", "head.weight", "head.bias"], ["logits"], "n_head", transB=1),
    ]
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", floats, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", floats, ["batch", CLASSES])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"classes": '["a", "b", "c", "d"]', "card": '{"data": "x"}'})
    onnx.save(model, path)
    return onnx.shape_inference.infer_shapes(model)


def some_images(num: int, *, seed: int = 1) -> Any:
    """Images (num, 3, 12, 12) whose channels depend on each other."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(num, 1, SIZE, SIZE))
    return (base + 0.5 * rng.normal(size=(num, 3, SIZE, SIZE))).astype(np.float32)
