from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from secateurs.errors import InputError
from secateurs.ship.int8 import quantization, sensitivity
from secateurs.ship.int8.agreement import Agreement, agreement
from secateurs.ship.int8.calibration import CALIBRATORS
from secateurs.ship.int8.compensation import CompensatedLayer
from secateurs.ship.int8.processor import Int8Support, int8_support, parse_cpuinfo
from secateurs.ship.int8.quantization import Int8Images, quantize_onnx, run_onnx


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
    assert tried == [calibrator.name for calibrator in CALIBRATORS]
    assert bool(done.layers) == done.chosen.compensated == (method == "compensated")
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


def test_sensitive_layers_are_left_in_float32_where_that_pays(
    source: Path, images: Int8Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "ENOUGH", 1.1)  # no agreement is enough
    monkeypatch.setattr(sensitivity, "MOST_BYTES", 1.0)
    monkeypatch.setattr(quantization, "PAYS", 1.0)
    done = quantize_onnx(source, tmp_path / "q.onnx", images)
    tried = [one.float_layers for one in done.candidates if one.float_layers]
    assert tried and all(name in ("stem", "deep", "point", "head") for name in tried[-1])
    assert done.num_quantized == 4 - len(done.chosen.float_layers)
    floats = [
        one.name
        for one in onnx.load(done.path).graph.initializer
        if one.name in ("stem.weight", "deep.weight", "point.weight", "head.weight")
    ]
    assert floats == [f"{name}.weight" for name in done.chosen.float_layers]
    monkeypatch.setattr(quantization, "PAYS", 0.0)
    assert quantize_onnx(source, tmp_path / "q.onnx", images).chosen.float_layers == ()


def test_the_layer_whose_errors_matter_is_found(graphs: ModuleType) -> None:
    reference = np.zeros((8, 3), np.float32)
    harm = {"a": 0.1, "b": 3.0, "c": 0.0}

    def run(left: tuple[str, ...], images: Any) -> Any:
        logits = reference[: len(images)].copy()
        logits[:, 0] += sum(value for name, value in harm.items() if name not in left)
        return logits

    layers = [CompensatedLayer(name, 1.0, 0.5) for name in harm]
    found = sensitivity.sensitive_layers(
        lambda left: left, layers, graphs.some_images(8), run=run, reference=reference
    )
    assert found == ["b", "a"]  # c does no harm


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
