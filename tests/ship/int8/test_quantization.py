from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from secateurs.errors import InputError
from secateurs.ship.int8 import int8_candidates, operators, sensitivity
from secateurs.ship.int8.agreement import Agreement, agreement
from secateurs.ship.int8.calibration import CALIBRATORS, activation_ranges
from secateurs.ship.int8.int8_candidates import Int8Images, Settings, run_onnx
from secateurs.ship.int8.processor import Int8Support, int8_support, parse_cpuinfo
from secateurs.ship.int8.quantization import quantize_onnx
from secateurs.ship.int8.sensitivity import Block


@pytest.fixture(scope="module")
def source(graphs: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "m.onnx"
    graphs.small_graph(path)
    return path


@pytest.fixture(scope="module")
def images(graphs: ModuleType, source: Path) -> Int8Images:
    validation = graphs.some_images(30, seed=2)
    return Int8Images(graphs.some_images(24), validation, run_onnx(source, validation))


@pytest.mark.parametrize("method", ["static", "compensated"])
def test_the_candidate_nearest_to_float32_is_written(
    source: Path, images: Int8Images, tmp_path: Path, method: Any
) -> None:
    done = quantize_onnx(source, tmp_path / "q.onnx", images, method=method)
    assert [path.name for path in tmp_path.iterdir()] == ["q.onnx"]
    tried = [one.calibrator for one in done.candidates if not one.compensated]
    number = 3 if method == "compensated" else len(CALIBRATORS)
    assert tried == [calibrator.name for calibrator in CALIBRATORS[:number]]
    assert bool(done.layers) == done.chosen.compensated == (method == "compensated")
    ways = [(one.calibrator, one.equalized) for one in done.candidates if one.compensated]
    assert [equal for _, equal in ways] == ([True, True, False] if method == "compensated" else [])
    assert ways[:2] in ([], [("min-max", True), ("mean min-max", True)])
    least = min(one.agreement.divergence for one in done.candidates)
    assert done.chosen.agreement.divergence == least < 0.01
    logits = run_onnx(done.path, images.validation)
    assert agreement(logits, images.logits) == done.chosen.agreement
    np.testing.assert_array_equal(logits, done.logits)
    written = onnx.load(done.path)
    said = {entry.key: entry.value for entry in written.metadata_props}
    assert json.loads(said["classes"]) == ["a", "b", "c", "d"]
    assert json.loads(said["card"]) == {"data": "x", "precision": "int8"}
    kinds = {one.name: one.data_type for one in written.graph.initializer}
    int8 = onnx.TensorProto.INT8
    for layer in ("stem", "deep", "point", "head"):
        assert kinds[f"{layer}.weight_quantized"] == int8
    assert done.num_quantized == 4 and done.num_calibration == 24
    assert json.dumps(done.to_json())


@pytest.mark.parametrize("compensated", [False, True])
def test_settings_of_before_are_followed_and_nothing_else_is_tried(
    graphs: ModuleType, source: Path, images: Int8Images, tmp_path: Path, compensated: bool
) -> None:
    name = "min-max" if compensated else "entropy"
    settings = Settings(name, compensated, ("deep",))
    done = quantize_onnx(source, tmp_path / "q.onnx", images, settings=settings)
    (only,) = done.candidates
    assert (only.calibrator, only.compensated, only.float_layers) == (name, compensated, ("deep",))
    written = {one.name: one.data_type for one in onnx.load(done.path).graph.initializer}
    assert "deep.weight_quantized" not in written and "stem.weight_quantized" in written
    assert done.chosen == only and done.num_quantized == 3


def test_only_the_named_calibrators_are_tried(
    source: Path, images: Int8Images, tmp_path: Path
) -> None:
    names = ["mean min-max", "entropy"]
    done = quantize_onnx(
        source, tmp_path / "q.onnx", images, method="static", calibrators=names, wanted=0.0
    )
    assert [one.calibrator for one in done.candidates] == names
    with pytest.raises(InputError, match=r"expected one of min-max, .*, got 'x'"):
        quantize_onnx(source, tmp_path / "x.onnx", images, calibrators=["x"])


def test_dynamic_quantization_is_of_linear_layers(
    source: Path, images: Int8Images, tmp_path: Path
) -> None:
    done = quantize_onnx(source, tmp_path / "q.onnx", images, method="dynamic")
    kinds = [node.op_type for node in onnx.load(done.path).graph.node]
    assert kinds.count("Conv") == 3 and "MatMulInteger" in kinds
    assert done.num_quantized == 1 and done.num_calibration == 0
    assert done.chosen.agreement.share > 0.9


def test_calibration_images_that_are_missing_are_an_error(
    source: Path, images: Int8Images, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"int8 needs calibration images, got none"):
        Int8Images(images.calibration[:0], images.validation, images.logits)
    with pytest.raises(InputError, match=r"expected one of compensated, static, dynamic, got 'x'"):
        quantize_onnx(source, tmp_path / "q.onnx", images, method="x")  # pyright: ignore


def test_a_network_without_layers_is_refused(
    source: Path, images: Int8Images, tmp_path: Path
) -> None:
    model = onnx.load(source)
    del model.graph.initializer[:]
    model.graph.node.clear()
    model.graph.node.append(onnx.helper.make_node("Flatten", ["images"], ["logits"]))
    onnx.save(model, tmp_path / "flat.onnx")
    with pytest.raises(InputError, match=r"no convolution and no linear layer to quantize"):
        quantize_onnx(tmp_path / "flat.onnx", tmp_path / "q.onnx", images)
    assert not (tmp_path / "q.onnx").exists()


def test_sensitive_blocks_stay_in_float32_until_enough_answers_agree(
    source: Path, images: Int8Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensitivity, "MOST_BYTES", 1.0)
    monkeypatch.setattr(operators, "SMALL_END", 0.0)
    monkeypatch.setattr(int8_candidates, "PAYS", 1.0)
    done = quantize_onnx(source, tmp_path / "q.onnx", images, wanted=1.1)  # never enough
    tried = [one.float_layers for one in done.candidates if one.float_layers]
    assert tried and all(name in ("stem", "deep", "point", "head") for name in tried[-1])
    assert all(set(a) < set(b) for a, b in itertools.pairwise(tried))  # they grow
    assert done.num_quantized == 4 - len(done.chosen.float_layers)
    known = {one.name for one in onnx.load(done.path).graph.initializer}
    floats = [name for name in ("stem", "deep", "point", "head") if f"{name}.weight" in known]
    assert sorted(floats) == sorted(done.chosen.float_layers)
    monkeypatch.setattr(int8_candidates, "PAYS", 0.0)
    none = quantize_onnx(source, tmp_path / "q.onnx", images, wanted=1.1)
    assert none.chosen.float_layers == () and none.wanted == 1.1
    # From the first set on that is good enough nothing more is tried.
    shares = [one.agreement.share for one in none.candidates if one.float_layers]
    last = quantize_onnx(source, tmp_path / "q.onnx", images, wanted=max(shares))
    assert last.chosen.agreement.share >= max(shares)
    assert last.chosen == last.candidates[-1] or not last.chosen.float_layers


def test_the_block_whose_errors_matter_most_for_its_cost_is_first(graphs: ModuleType) -> None:
    reference = np.zeros((8, 3), np.float32)
    harm = {"a": 0.1, "b": 3.0, "c": 0.0, "d": 3.0}
    size = {"a": 0.01, "b": 0.5, "c": 0.0, "d": 0.05}

    def run(left: tuple[str, ...], images: Any) -> Any:
        logits = reference[: len(images)].copy()
        logits[:, 0] += sum(value for name, value in harm.items() if name not in left)
        return logits

    blocks = [Block(name, (name,), (name,), size[name], 0.1) for name in harm]
    found = sensitivity.sensitive_blocks(
        lambda left: left, blocks, graphs.some_images(8), run=run, reference=reference
    )
    assert [block.name for block in found] == ["d", "b", "a"]  # c does no harm, b costs more
    sets = sensitivity.blocks_to_leave(found)
    assert [[block.name for block in one] for one in sets] == [["d"], ["d", "a"]]  # b is too large


def test_the_blocks_of_a_graph_hold_all_its_nodes(graphs: ModuleType, tmp_path: Path) -> None:
    model = graphs.small_graph(tmp_path / "m.onnx")
    found = sensitivity.blocks_of(model)
    assert [(one.name, one.layers) for one in found] == [
        (name, (name,)) for name in ("stem", "deep", "point", "head")
    ]
    assert found[0].nodes == ("n_stem", "n_relu") and "n_add" in found[2].nodes
    assert sum(one.time_share for one in found) == pytest.approx(1)
    # 8 x 3 x 3 x 3 weights at 5 x 5 positions, of all.
    work = {"stem": 216 * 25, "deep": 72 * 25, "point": 64 * 25, "head": 32}
    assert found[0].time_share == pytest.approx(work["stem"] / sum(work.values()))
    assert [one.name for one in sensitivity.blocks_of(model, without=["n_head"])][-1] == "point"


def test_a_small_last_layer_and_chained_sums_stay_in_float32(
    graphs: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = graphs.small_graph(tmp_path / "m.onnx")
    assert operators.float_end(model) == ()  # a tenth of all bytes
    assert operators.float_sums(model) == ()  # one sum
    monkeypatch.setattr(operators, "SMALL_END", 0.5)
    assert operators.float_end(model) == ("n_pool", "n_flat", "n_head")
    node = onnx.helper.make_node("Add", ["e", "d"], ["e2"], "n_add2")
    model.graph.node.insert(5, node)
    model.graph.node[6].input[0] = "e2"
    onnx.save(model, tmp_path / "m.onnx")
    model = onnx.shape_inference.infer_shapes(model)
    assert operators.float_sums(model) == ("n_add", "n_add2")
    images = graphs.some_images(20)
    ranges = activation_ranges(model, images, CALIBRATORS[0])
    plain = operators.quantized_graph(model, ranges)
    inputs = next(one.input for one in plain.graph.node if one.name == "n_add2")
    assert inputs[0] == "e"  # the float sum, not the rounded one
    assert "e2" not in {i for n in plain.graph.node if n.op_type == "Add" for i in n.input}
    assert plain.graph.node[-1].op_type == "Gemm"  # answers are not rounded
    wanted = run_onnx(tmp_path / "m.onnx", images)
    away = np.abs(run_onnx(plain.SerializeToString(), images) - wanted).max()
    assert away < 0.1 * np.abs(wanted).max()


def test_agreement_by_hand() -> None:
    reference = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    logits = np.array([[1.0, 0.0], [3.0, 1.0]], np.float32)
    found = agreement(logits, reference)
    p, q = np.exp([0, 1]) / np.exp([0, 1]).sum(), np.exp([3, 1]) / np.exp([3, 1]).sum()
    assert found.share == 0.5 and found.largest == 3.0
    assert found.divergence == pytest.approx((p * np.log(p / q)).sum() / 2)
    assert agreement(logits + np.float32(np.inf), reference) == Agreement(
        0.0, float("inf"), float("inf")
    )


def test_what_the_processor_can_do_is_said() -> None:
    none = parse_cpuinfo("model name\t: Old CPU\nflags\t\t: sse2 avx2\n", "x86_64")
    assert none == Int8Support("Old CPU", (), False)
    assert none.sentence == (
        "Old CPU: no instructions for int8 (VNNI or the like), so that int8 saves bytes, but "
        "little or no time here"
    )
    arm = parse_cpuinfo("processor\t: 0\nFeatures\t: fp asimd asimddp\n", "aarch64")
    assert arm.instructions == ("asimddp",) and arm.has_instructions
    unknown = parse_cpuinfo("nothing", "riscv64")
    assert unknown.has_instructions is None and unknown.sentence.startswith("riscv64: not known")
    assert int8_support().sentence
