"""What a study returns and writes."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from narrow_study import CONFIG, without_clock

from secateurs.extras import MODULES
from secateurs.progress import Silent
from secateurs.report.study.page import write_report
from secateurs.report.study.schema import check_results
from secateurs.ship.checkpoint import load
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.setup.trial_context import open_dataset
from secateurs.study.study import headline, run_study
from secateurs.study.trials import engine
from secateurs.study.trials.trial import prefix_cache


def test_results_are_whole(finished: tuple[Path, dict]):
    out, results = finished
    written = json.loads((out / "results.json").read_text())
    assert written == results
    check_results(written)
    for key in ("data", "split", "weights", "trials", "chosen", "pruned", "cost", "versions"):
        assert key in written
    assert len(written["trials"]) == 5
    assert {(t["depth"], t["pretrained"]) for t in written["trials"]} == {
        (5, True),
        (7, True),
        (0, False),
    }
    for name in ("model", "tensors", "onnx", "program", "unpruned", "ledger"):
        assert (out / written["files"][name]).stat().st_size > 0
    assert all((out / sample["thumbnail"]).exists() for sample in written["samples"])
    assert all((out / shown["thumbnail"]).exists() for shown in written["merged"]["pictures"])
    (cut,), (merged,) = written["pruned"]["layers"], written["merged"]["layers"]
    assert merged["layer"] == cut["layer"]
    assert 0 < merged["num_merged"] <= cut["num_units"] - cut["num_kept"]
    assert set(written["split"]["names"]["train"]) >= {
        p["name"] for p in written["merged"]["pictures"]
    }
    assert written["split"]["leakage"]["same_group"] == 0
    assert "of" in headline(results)


def test_saved_networks_give_the_accuracies_in_the_results(
    finished: tuple[Path, dict], flags: Path, cache: Path
):
    out, results = finished
    dataset = open_dataset(str(flags), CONFIG, cache=cache)
    for where, key in (("unpruned", "chosen"), ("model", "pruned")):
        loaded = load(out / where)
        again = evaluate_model(loaded.model, dataset, "test", torch.device("cpu"))
        found, kept = again.to_json(), dict(results[key]["test"])
        # The mean of float32 losses: memory laid out in another way may round the last bits.
        assert found.pop("loss") == pytest.approx(kept.pop("loss"), rel=1e-6)
        assert found == kept


def test_a_second_run_trains_decodes_and_measures_nothing(
    finished: tuple[Path, dict], flags: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    def never(*args: object, **options: object) -> None:
        raise AssertionError("done again")

    out, results = finished
    monkeypatch.setattr(engine, "run_trial", never)
    monkeypatch.setattr("secateurs.data.audit.decoding", never)
    monkeypatch.setattr("secateurs.data.image_store.decoding", never)
    monkeypatch.setattr("secateurs.study.stages.prune_network", never)
    monkeypatch.setattr("secateurs.study.stages.price", never)
    again = run_study(str(flags), CONFIG, out, cache=cache)
    assert json.loads(json.dumps(again)) == results


def test_a_sweep_ends_with_the_choice_and_a_study_goes_on_from_it(
    finished: tuple[Path, dict],
    flags: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    out = tmp_path / "out"
    both = run_study(
        str(flags),
        CONFIG,
        out,
        cache=cache,
        prune=False,
        both_splits=True,
        prefix_cache=prefix_cache(out, 1.0, "disk"),
    )
    assert both["pruned"] is None
    assert both["trials"] == json.loads((out / "results.json").read_text())["trials"]
    assert not (out / "frozen").exists()  # the shared files of frozen layers are gone
    assert not list((out / "trials").glob("*.weights.safetensors"))
    other = both["ungrouped"]
    assert other["split"]["rule"] == "random, groups ignored"
    assert other["split"]["leakage"]["same_group"] > 0
    assert both["split"]["leakage"]["same_group"] == 0
    assert {t["key"] for t in other["trials"]}.isdisjoint(t["key"] for t in both["trials"])
    assert "unpruned" in headline(both)
    check_results(both)

    def never(*args: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(engine, "run_trial", never)
    results = run_study(str(flags), CONFIG, out, cache=cache)
    assert without_clock(results) == without_clock(finished[1])


def test_progress_says_how_long_is_left(flags: Path, cache: Path, tmp_path: Path):
    class Notes(Silent):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def note(self, text: str) -> None:
            self.lines.append(text)

    progress = Notes()
    config = replace(CONFIG, depths=(7,), scratch_runs=0, epochs=1)
    run_study(str(flags), config, tmp_path, cache=cache, prune=False, progress=progress)
    first, last = [line for line in progress.lines if line.startswith("depth 7 run")]
    assert re.fullmatch(r"depth 7 run 1: \d+\.\d% on validation, \d+ s; about \d+ s left", first)
    assert re.fullmatch(r"depth 7 run 2: \d+\.\d% on validation, \d+ s", last)


def test_without_onnx_and_parquet_a_study_ends_whole_and_says_so(
    flags: Path, cache: Path, tmp_path: Path
):
    config = replace(CONFIG, depths=(7,), runs=1, scratch_runs=0, epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        for module in (*MODULES["onnx"], *MODULES["parquet"]):
            patch.setitem(sys.modules, module, None)
        results = run_study(str(flags), config, tmp_path, cache=cache)
    note = results["cost"]["onnx_note"]
    assert note.endswith("the ONNX packages are not installed: pip install 'secateurs[onnx]'")
    assert {row["runtime"] for row in results["cost"]["latency"]} == {"pytorch"}
    assert results["cost"]["after"]["onnx_bytes"] is None
    assert "onnx" not in results["files"] and "unpruned_onnx" not in results["files"]
    assert all(
        (tmp_path / file).exists() for file in results["files"].values() if "report" not in file
    )
    assert not list(tmp_path.rglob("*.onnx")) and not (tmp_path / "ledger.parquet").exists()
    write_report(results, tmp_path)
    assert "No ONNX file was written" in (tmp_path / "report.html").read_text()

    again = run_study(str(flags), config, tmp_path, cache=cache)
    assert again["cost"]["onnx_note"] is None
    assert {row["runtime"] for row in again["cost"]["latency"]} == {"pytorch", "onnxruntime"}
    assert (tmp_path / again["files"]["onnx"]).exists()
    assert (tmp_path / "ledger.parquet").exists()
