from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from secateurs.ship.int8.calibration import CALIBRATORS, activation_ranges
from secateurs.ship.int8.compensation import Rules, compensated
from secateurs.ship.int8.int8_candidates import run_onnx
from secateurs.ship.int8.operators import quantized_graph
from secateurs.stopping import StopFlag, StopRequested


@pytest.fixture(scope="module")
def quantized(graphs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    model = graphs.small_graph(tmp_path_factory.mktemp("int8") / "m.onnx")
    ranges = activation_ranges(model, graphs.some_images(40), CALIBRATORS[0])
    return model, quantized_graph(model, ranges)


def logits(model: Any, images: Any) -> Any:
    return run_onnx(model.SerializeToString(), images)


def test_the_mean_logits_become_those_of_float32(
    graphs: ModuleType, quantized: tuple[Any, Any]
) -> None:
    model, plain = quantized
    images = graphs.some_images(40)
    before = plain.SerializeToString()
    refined, layers = compensated(model, plain, images)
    assert plain.SerializeToString() == before  # as it was given
    assert [layer.node for layer in layers] == ["n_stem", "n_deep", "n_point", "n_head"]
    wanted = logits(model, images)
    away = np.abs(logits(refined, images).mean(0) - wanted.mean(0)).max()
    # The last quantizer of the logits themselves remains.
    assert away < 0.02 * np.abs(wanted).max()
    assert all(layer.error <= layer.error_before + 1e-9 for layer in layers)


def test_unseen_images_are_answered_better(graphs: ModuleType, quantized: tuple[Any, Any]) -> None:
    model, plain = quantized
    coarse = make_coarse(plain)
    unseen = graphs.some_images(60, seed=9)
    wanted = logits(model, unseen)

    def error(graph: Any) -> float:
        return float(np.square(logits(graph, unseen) - wanted).mean())

    refined, _ = compensated(model, coarse, graphs.some_images(40))
    biases, _ = compensated(model, coarse, graphs.some_images(40), rules=Rules(rounding=False))
    assert error(refined) < 0.2 * error(coarse)
    assert error(refined) < error(biases) < error(coarse)


def make_coarse(plain: Any) -> Any:
    """The graph with weights of 4 bits, so that the errors stand out."""
    import copy

    coarse = copy.deepcopy(plain)
    values = {one.name: one for one in coarse.graph.initializer}
    for name in ("stem", "deep", "point", "head"):
        integers = numpy_helper.to_array(values[f"{name}.weight_quantized"])
        rough = (np.round(integers / 16) * 16).clip(-127, 127).astype(np.int8)
        values[f"{name}.weight_quantized"].CopyFrom(
            numpy_helper.from_array(rough, f"{name}.weight_quantized")
        )
    return coarse


def test_a_stop_between_two_layers_leaves_nothing(
    graphs: ModuleType, quantized: tuple[Any, Any]
) -> None:
    flag = StopFlag()
    flag.request()
    with pytest.raises(StopRequested):
        compensated(*quantized, graphs.some_images(4), stop=flag)
