"""`prune --layers` and `prune --macs` give the same outputs, with and without ONNX."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secateurs.cli.app import main
from secateurs.ship.checkpoint import load, save
from secateurs.ship.export import OnnxCheck
from secateurs.ship.latency import row
from secateurs.ship.spec import ImageInput
from secateurs.study.pruning import saved_output, savings

WAYS = {
    "layers": ("--layers", "classifier.0", "--keep", "64"),
    "network": ("--macs", "0.7", "--starts", "1"),
}
SAME = {
    *("schema", "backbone", "classes", "data", "groups", "not_pruned", "note", "budget", "rule"),
    *("before", "cut", "after", "cost", "num_parameters", "tried", "trajectory", "chosen"),
    *("starts", "outcome", "recovery", "parity", "split", "files", "versions"),
}


@pytest.fixture(scope="module")
def small(net: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network `net` for images of 32 pixels, which takes a fiftieth of the time."""
    loaded = load(net)
    image = ImageInput.of(loaded.spec.backbone, size=32)
    path = tmp_path_factory.mktemp("small") / "model"
    save(loaded.model, replace(loaded.spec, preprocessing=image), path)
    return path


@pytest.fixture(scope="module")
def outputs(
    small: Path, flags: Path, net_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The directory that each way of pruning has written; the ONNX files are stand-ins."""
    root = tmp_path_factory.mktemp("outputs")

    def exported(model: object, spec: object, path: Path, images: object) -> OnnxCheck:
        path.write_bytes(b"a network")
        return OnnxCheck(path, max_abs_difference=1e-6, opset=18, num_bytes=9)

    def timed(before: Path, after: Path, images: object, *, batch: int, budget_s: float) -> Any:
        assert before.exists() and after.exists()
        return row("onnxruntime", "cpu", batch, {"before": [2.0] * 3, "after": [1.0] * 3})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_output, "export_onnx", exported)
        patch.setattr(savings, "onnx_latency", timed)
        for name, words in WAYS.items():
            out = root / name
            common = ["--out", str(out), "--cache", str(net_cache), "--quiet", "--json"]
            patch.setattr(
                "sys.argv", ["secateurs", "prune", str(small), str(flags), *words, *common]
            )
            with pytest.raises(SystemExit) as ended:
                main()
            assert not ended.value.code
    return {name: root / name for name in WAYS}


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "pruning.json").read_text())


def test_the_files_are_the_same(outputs: dict[str, Path]):
    names = [{path.name for path in out.iterdir()} for out in outputs.values()]
    assert names[0] == names[1] == {*saved_output.FILES.values(), "config.toml"}
    for out in outputs.values():
        assert record(out)["files"] == saved_output.FILES


def test_the_records_have_the_same_parts(outputs: dict[str, Path]):
    for out in outputs.values():
        found = record(out)
        assert set(found) >= SAME
        assert found["schema"] == saved_output.SCHEMA
        assert {one["runtime"] for one in found["cost"]["latency"]} == {"pytorch", "onnxruntime"}
        for side in ("before", "after"):
            assert found["cost"][side]["onnx_bytes"] == 9
            assert found["cost"][side]["file_bytes"] > 1e5
        after = (out / "model.safetensors").stat().st_size
        assert found["cost"]["after"]["file_bytes"] == after


def test_layers_have_one_name_in_the_record_and_in_the_ledger(outputs: dict[str, Path]):
    for out in outputs.values():
        found = record(out)
        with (out / "ledger.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0])[:3] == ["layer", "unit", "action"]
        kept = {group["name"]: group["num_kept"] for group in found["groups"]}
        assert {row["layer"] for row in rows} == set(kept)
        for name, number in kept.items():
            assert sum(r["layer"] == name and r["action"] == "kept" for r in rows) == number


def test_pages_and_cards_show_size_and_both_runtimes(outputs: dict[str, Path]):
    for out in outputs.values():
        page, card = (out / "pruning.html").read_text(), (out / "README.md").read_text()
        for text in ("Model file", "ONNX file", "ONNX Runtime, cpu", "PyTorch, cpu"):
            assert text in page
        for text in ("| model.safetensors |", "| model.onnx |", "ONNX Runtime", "`model.onnx`"):
            assert text in card


def test_the_summary_names_kept_units_and_files(outputs: dict[str, Path]):
    found = record(outputs["layers"])
    text = saved_output.pruning_summary(found)
    assert text.startswith("classifier.0: 64 of 1024 units kept")
    assert f"file {found['cost']['before']['file_bytes'] / 1e6:.1f} MB to " in text
    assert "after: validation accuracy" in text
    assert " units kept\n" in saved_output.pruning_summary(record(outputs["network"]))


def test_a_network_that_cannot_be_exported_is_pruned_all_the_same(
    small: Path, flags: Path, net_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refused(*_: object) -> None:
        raise RuntimeError("an operator\nis missing")

    monkeypatch.setattr(saved_output, "export_onnx", refused)
    common = ["--out", str(tmp_path / "out"), "--cache", str(net_cache), "--quiet"]
    words = ["secateurs", "prune", str(small), str(flags), *WAYS["layers"], *common]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    found = record(tmp_path / "out")
    assert "cannot be exported to ONNX: an operator is missing" in found["cost"]["onnx_note"]
    assert {one["runtime"] for one in found["cost"]["latency"]} == {"pytorch"}
    assert "onnx" not in found["files"]
    assert not (tmp_path / "out" / "model.onnx").exists()
