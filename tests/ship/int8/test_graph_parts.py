from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from onnx import numpy_helper

from secateurs.ship.int8.graph_parts import Walk
from secateurs.ship.int8.int8_candidates import run_onnx


@pytest.mark.parametrize("steps", [(8,), (1, 2, 3, 4, 5, 6, 7, 8), (3, 3, 8)])
def test_a_graph_run_in_parts_gives_what_it_gives_at_once(
    graphs: ModuleType, tmp_path: Path, steps: tuple[int, ...]
) -> None:
    model = graphs.small_graph(tmp_path / "m.onnx")
    images = graphs.some_images(5)
    walk = Walk(model, [images[:3], images[3:]])
    for step in steps:
        walk.run_until(step)
    assert set(walk.values) == {"logits"}  # all others have been dropped
    expected = run_onnx(tmp_path / "m.onnx", images)
    np.testing.assert_allclose(np.concatenate(walk.values["logits"]), expected, atol=1e-5)


def test_a_constant_that_changes_on_the_way_is_used(graphs: ModuleType, tmp_path: Path) -> None:
    model = graphs.small_graph(tmp_path / "m.onnx")
    images = graphs.some_images(2)
    walk = Walk(model, [images])
    walk.run_until(7)
    zero = np.zeros((graphs.CLASSES, 8), np.float32)
    walk.initializers["head.weight"].CopyFrom(numpy_helper.from_array(zero, "head.weight"))
    walk.run_until(8)
    bias = numpy_helper.to_array(walk.initializers["head.bias"])
    np.testing.assert_allclose(walk.values["logits"][0], np.tile(bias, (2, 1)), atol=1e-6)


def test_values_that_later_nodes_read_are_kept(graphs: ModuleType, tmp_path: Path) -> None:
    walk = Walk(graphs.small_graph(tmp_path / "m.onnx"), [graphs.some_images(1)])
    walk.run_until(3)
    assert set(walk.values) == {"b", "c"}  # b goes to the sum as well
