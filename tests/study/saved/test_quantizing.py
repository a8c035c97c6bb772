"""int8 by the command line: one small network, its file and its table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from secateurs.cli import main
from secateurs.errors import InputError
from secateurs.nets.backbones import build
from secateurs.ship.checkpoint import save
from secateurs.ship.int8 import int8_candidates
from secateurs.ship.spec import ImageInput, describe
from secateurs.study.pruning.shrink_and_quantize import shrink_and_quantize
from secateurs.study.saved import quantizing
from secateurs.study.saved.quantizing import quantize_saved, quantized_table, sentences
from secateurs.study.setup.config import StudyConfig


def a_row(name: str, ms: float) -> dict[str, Any]:
    return {
        "name": name,
        "accuracy": 0.5,
        "accuracy_low": 0.4,
        "accuracy_high": 0.6,
        "agreement": 0.9,
        "num_bytes": 2_500_000,
        "ms": {"1": {"median": ms}, "64": {"median": 50 * ms}},
    }


def a_record(**changes: Any) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "calibrator": "min-max",
        "compensated": True,
        "float_layers": ["features.0"],
        "equalized": True,
    }
    chosen["agreement"] = {"share": 0.98}
    own = {"method": "compensated", "chosen": chosen, "candidates": [1, 2, 3], "num_quantized": 7}
    own |= {"end": ["head"], "wanted": 0.99}
    record: dict[str, Any] = {
        "path": "x.onnx",
        "num_images": 12,
        "threads": 1,
        "rows": [a_row("float32", 4.0), a_row("int8", 1.0)],
        "int8": own | changes.pop("int8", {}),
        "processor": {"sentence": "A: has instructions for int8 (avx_vnni)"},
    }
    record |= changes
    return record | {"sentences": sentences(record)}


def test_the_table_has_a_row_per_file_and_says_what_was_chosen() -> None:
    lines = quantized_table(a_record()).splitlines()
    assert re.split(r"  +", lines[0].strip()) == (
        ["accuracy", "95% interval", "agreement", "MB", "ms, batch 1", "ms, batch 64"]
    )
    assert lines[2].split() == ["int8", "50.0%", "40.0%", "to", "60.0%", "90.0%", "2.50", "1", "50"]
    assert len({len(line) for line in lines[1:3]}) == 1
    assert lines[3].startswith("on 12 validation images, in ONNX Runtime with 1 thread, ")
    assert lines[4] == (
        "chosen of 3 on validation, without labels: calibration: min-max, channels scaled to "
        "like ranges, weights rounded and biases corrected layer by layer"
    )
    assert lines[5] == (
        "7 convolutions and linear layers are int8; the last one, head, is small and stays in "
        "float32"
    )
    assert lines[6] == "left in float32, since they are sensitive: features.0"
    assert lines[7].startswith("98.0% of the answers agree with float32, fewer than the 99.0% ")
    assert lines[-1] == "written: x.onnx"


def test_int8_that_is_not_faster_is_said() -> None:
    slow = a_record(rows=[a_row("float32", 4.0), a_row("int8", 4.4)])
    said = "int8 is not faster than float32 here: 1.10 of its time at batch 1"
    assert said in slow["sentences"]
    assert said not in a_record()["sentences"]


@pytest.fixture(scope="module")
def small_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for the classes of `flags` that is quick to export."""
    torch.manual_seed(0)
    network = build("squeezenet1_1", 3)
    image = ImageInput(64, "straight", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    config = StudyConfig(backbone="squeezenet1_1", group_by=r"^(\d+)_", device="cpu")
    extra = {"config": config.to_json(), "depth": 26}
    spec = describe(network, "squeezenet1_1", ("across", "down", "plain"), image, extra=extra)
    path = tmp_path_factory.mktemp("net") / "model"
    save(network, spec, path)
    return path


def test_a_saved_network_is_quantized(
    small_net: Path,
    flags: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(int8_candidates, "CALIBRATORS", int8_candidates.CALIBRATORS[:1])
    monkeypatch.setattr(quantizing, "BUDGET_S", 0.05)
    monkeypatch.setattr(quantizing, "LARGE_BATCH", 2)
    out, cache = tmp_path / "small.onnx", tmp_path / "cache"
    words = [
        "export",
        str(small_net),
        str(flags),
        "--int8",
        "--out",
        str(out),
        "--cache",
        str(cache),
    ]
    monkeypatch.setattr(
        "sys.argv", ["secateurs", *words, "--calibration", "4", "--agreement", "0", "--json"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    found = json.loads(capsys.readouterr().out)
    assert not ended.value.code
    assert [row["name"] for row in found["rows"]] == ["float32", "int8"]
    whole, small = found["rows"]
    assert small["num_bytes"] == out.stat().st_size < 0.4 * whole["num_bytes"]
    assert whole["agreement"] == 1.0 and small["agreement"] > 0.7
    assert set(small["ms"]) == {"1", "2"} and found["int8"]["num_calibration"] == 4
    said = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    card = json.loads(said["card"])
    assert card["precision"] == "int8" and card["calibration_images"] == 4
    assert card["float32_accuracy"]["accuracy"] == whole["accuracy"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["small.onnx"]


def test_what_cannot_be_is_refused_before_any_work(net: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.pt2: an int8 file must end in \.onnx"):
        quantize_saved(net, "nowhere", tmp_path / "x.pt2", cache=tmp_path)
    with pytest.raises(InputError, match="calibration images: expected at least 1, got 0"):
        quantize_saved(net, "nowhere", tmp_path / "x.onnx", num_calibration=0, cache=tmp_path)
    with pytest.raises(InputError, match="--recovery-epochs goes with --macs"):
        shrink_and_quantize(net, "nowhere", tmp_path / "x.onnx", recovery_epochs=1, cache=tmp_path)
