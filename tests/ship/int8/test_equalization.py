from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from secateurs.ship.int8 import equalization
from secateurs.ship.int8.calibration import CALIBRATORS, activation_ranges
from secateurs.ship.int8.channel_spaces import channel_spaces
from secateurs.ship.int8.equalization import equalized
from secateurs.ship.int8.int8_candidates import run_onnx
from secateurs.ship.int8.operators import quantized_graph

make = helper.make_node
CLIP = ("zero", "six")


def graph_of(nodes: list[Any], weights: dict[str, Any], *, size: int = 8) -> Any:
    """A graph with 3 input channels and the output `logits`, with inferred shapes."""
    floats = onnx.TensorProto.FLOAT
    known = {"zero": np.float32(0), "six": np.float32(6), **weights}
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", floats, ["n", 3, size, size])],
        [helper.make_tensor_value_info("logits", floats, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in known.items() if k in read],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


@pytest.fixture
def uneven() -> Any:
    """An inverted residual block whose channels have ranges from 0.05 to 3, in random order."""
    rng = np.random.default_rng(0)
    spread = np.geomspace(0.02, 1, 8)[rng.permutation(8), None, None, None]
    weights = {
        "stem.w": rng.normal(0, 0.3, (8, 3, 3, 3)) * spread,
        "stem.b": np.zeros(8),
        "wide.w": rng.normal(0, 0.4, (16, 8, 1, 1)) / spread[:, 0],
        "wide.b": np.zeros(16),
        "deep.w": rng.normal(0, 0.4, (16, 1, 3, 3)),
        "deep.b": np.zeros(16),
        "thin.w": rng.normal(0, 0.3, (8, 16, 1, 1)) * spread,
        "thin.b": np.zeros(8),
        "head.w": rng.normal(0, 0.5, (4, 8)) / spread[:, 0, 0, 0],
        "head.b": np.zeros(4),
    }
    nodes = [
        make("Conv", ["images", "stem.w", "stem.b"], ["a"], "stem"),
        make("Conv", ["a", "wide.w", "wide.b"], ["b"], "wide"),
        make("Clip", ["b", *CLIP], ["c"], "clip1"),
        make("Conv", ["c", "deep.w", "deep.b"], ["d"], "deep", group=16, pads=[1, 1, 1, 1]),
        make("Clip", ["d", *CLIP], ["e"], "clip2"),
        make("Conv", ["e", "thin.w", "thin.b"], ["f"], "thin"),
        make("Add", ["f", "a"], ["g"], "add"),
        make("GlobalAveragePool", ["g"], ["h"], "pool"),
        make("Flatten", ["h"], ["i"], "flat"),
        make("Gemm", ["i", "head.w", "head.b"], ["logits"], "head", transB=1),
    ]
    return graph_of(nodes, {k: v.astype(np.float32) for k, v in weights.items()})


def images_of(num: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=(num, 3, 8, 8)).astype(np.float32)


def logits(model: Any, images: Any) -> Any:
    return run_onnx(model.SerializeToString(), images)


def test_answers_stay_and_int8_is_nearer_to_them(uneven: Any) -> None:
    images, unseen = images_of(32), images_of(32, seed=2)
    before = uneven.SerializeToString()
    even, num = equalized(uneven, images)
    assert uneven.SerializeToString() == before and num == 3
    wanted = logits(uneven, unseen)
    np.testing.assert_allclose(logits(even, unseen), wanted, atol=1e-4 * np.abs(wanted).max())

    def error(model: Any) -> float:
        graph = quantized_graph(model, activation_ranges(model, images, CALIBRATORS[0]))
        return float(np.square(logits(graph, unseen) - wanted).mean())

    assert error(even) < 0.2 * error(uneven)


def test_the_spaces_of_a_block(uneven: Any) -> None:
    found = channel_spaces(uneven)
    assert [
        (one.tensors, [n.name for n in one.writers], [n.name for n in one.readers], one.clips)
        for one in found
    ] == [
        (("a", "f", "g", "h", "i"), ["stem", "thin"], ["wide", "head"], {}),
        (("c",), ["wide"], ["deep"], {"c": 6.0}),
        (("e",), ["deep"], ["thin"], {"e": 6.0}),
    ]


def test_ranges_are_those_of_the_tensors(uneven: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equalization, "BATCH", 3)
    images = images_of(8)
    shown = onnx.ModelProto.FromString(uneven.SerializeToString())
    shown.graph.output[0].name = "g"
    values = run_onnx(shown.SerializeToString(), images)
    found = equalization.channel_ranges(uneven, {"g"}, images, equalization.StopFlag())["g"]
    np.testing.assert_allclose(found.low, values.min((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found.high, values.max((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found.square, np.square(values).mean((0, 2, 3)), rtol=1e-5)


def test_a_channel_that_is_clipped_stays_as_it_is(uneven: Any) -> None:
    weights = {one.name: one for one in uneven.graph.initializer}
    wide = numpy_helper.to_array(weights["wide.w"]).copy()
    wide[3] *= 100
    weights["wide.w"].CopyFrom(numpy_helper.from_array(wide, "wide.w"))
    images = images_of(16)
    space = next(one for one in channel_spaces(uneven) if "c" in one.tensors)
    ranges = equalization.channel_ranges(
        uneven, set(space.tensors), images, equalization.StopFlag()
    )
    assert ranges["c"].high[3] == 6.0
    factors = equalization.factors_of(space, ranges, equalization.Weights(uneven))
    assert factors is not None and factors[3] == 1 and (factors >= 1).all() and factors.max() > 1
    # All others have room below the bound.
    scaled = np.delete(factors * ranges["c"].high, 3)
    assert (scaled <= np.maximum(6 / equalization.MARGIN, np.delete(ranges["c"].high, 3))).all()


@pytest.mark.parametrize(
    "between",
    [
        [make("Sigmoid", ["a"], ["b"])],
        [make("Clip", ["a", "one", "six"], ["b"])],
        [make("Mul", ["a", "one"], ["b"])],
        [make("Reshape", ["a", "shape"], ["c"]), make("Relu", ["c"], ["b"])],
    ],
    ids=lambda nodes: nodes[0].op_type,
)
def test_what_does_not_scale_along_stays(between: list[Any]) -> None:
    rng = np.random.default_rng(0)
    weights = {
        "one": np.float32(1),
        "shape": np.array([0, 4, 16, 16], np.int64),
        "v": rng.normal(size=(16, 3, 1, 1)).astype(np.float32),
        "w": rng.normal(size=(4, 16, 1, 1)).astype(np.float32),
    }
    if between[0].op_type == "Reshape":
        weights["w"] = rng.normal(size=(4, 4, 1, 1)).astype(np.float32)
    nodes = [make("Conv", ["images", "v"], ["a"]), *between, make("Conv", ["b", "w"], ["logits"])]
    model = graph_of(nodes, weights)
    assert channel_spaces(model) == []
    even, num = equalized(model, images_of(4))
    assert num == 0 and even.SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("pool", ["mean", "reduce"])
def test_linear_layers_in_either_form(trans: int, pool: str) -> None:
    rng = np.random.default_rng(0)
    shape = (6, 5) if trans else (5, 6)
    spread = np.geomspace(0.01, 1, 5).astype(np.float32)
    weights = {
        "v": (rng.normal(size=(5, 3, 3, 3)) * spread[:, None, None, None]).astype(np.float32),
        "axes": np.array([2, -1], np.int64),
        "w": rng.normal(size=shape).astype(np.float32),
        "c": rng.normal(size=6).astype(np.float32),
        "u": rng.normal(size=(6, 4)).astype(np.float32),
    }
    mean = make("ReduceMean", ["b", "axes"], ["d"], keepdims=0)
    flat = [make("GlobalAveragePool", ["b"], ["p"]), make("Flatten", ["p"], ["d"])]
    nodes = [
        make("Conv", ["images", "v"], ["a"]),
        make("Relu", ["a"], ["b"]),
        *([mean] if pool == "reduce" else flat),
        make("Gemm", ["d", "w", "c"], ["e"], transB=trans),
        make("Relu", ["e"], ["f"]),
        make("Gemm", ["f", "u"], ["logits"]),
    ]
    model = graph_of(nodes, weights)
    assert len(channel_spaces(model)) == 2
    images = images_of(16)
    even, num = equalized(model, images)
    assert num
    np.testing.assert_allclose(logits(even, images), logits(model, images), atol=1e-4, rtol=1e-4)


def test_weights_of_several_layers_stay(graphs: ModuleType, tmp_path: Path) -> None:
    model = graphs.small_graph(tmp_path / "m.onnx")
    assert [one.tensors for one in channel_spaces(model)] == [
        ("b", "d", "e", "f", "g"),
        ("c",),
    ]
    model.graph.node[3].input[1] = "deep.weight"  # read twice
    assert all("c" not in one.tensors for one in channel_spaces(model))
