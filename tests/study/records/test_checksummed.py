from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from damage import damaged
from secateurs.files import write_json, write_text
from secateurs.study.records.checksummed import read_sealed, write_sealed
from secateurs.study.setup.config import StudyConfig
from secateurs.study.stages import Stages
from secateurs.study.training import train_model
from secateurs.study.trials.store import Store, load_weights, save_weights
from secateurs.study.trials.trial import prefix_cache

RECORD = {"key": "k", "run": 0, "val_accuracy": 0.8125, "curve": [{"epoch": 0, "loss": 1e-9}]}


def trial(key: str = "k") -> dict[str, Any]:
    """What a training of one epoch leaves."""
    losses = {"train_loss": 0.5, "train_accuracy": 0.75, "val_loss": 0.25, "val_accuracy": 0.875}
    return {
        "key": key,
        "depth": 1,
        "run": 0,
        "pretrained": True,
        "seed": 0,
        "lr": 0.1,
        "epochs_run": 1,
        "best_epoch": 0,
        "stopped": "epochs",
        "message": "",
        "val_accuracy": 0.875,
        "val_loss": 0.25,
        "curve": [{"epoch": 0, **losses}],
        "precision": "float32",
        "timing": {"seconds": 1.5, "frozen_seconds": 0.5},
        "num_trained_parameters": 7,
    }


def test_a_damaged_record_is_none_and_never_another_one(tmp_path: Path):
    path = tmp_path / "x.json"
    assert read_sealed(path) is None
    write_sealed(path, RECORD)
    assert read_sealed(path) == RECORD
    for name, content in damaged(path.read_bytes(), flips=60):
        path.write_bytes(content)
        assert read_sealed(path) in (None, RECORD), name  # a bit of white space changes nothing


@pytest.mark.parametrize(
    "odd",
    [
        {"curve": [True]}, {"timing": {}}, {"val_loss": None}, {"best_epoch": None}, {"run": "0"},
        {"depth": True}, {"pretrained": 1}, {"epochs_run": 10**30},
    ],
)  # fmt: skip
def test_trials_of_other_types_are_trained_again(tmp_path: Path, odd: dict[str, Any]):
    store = Store(tmp_path)
    write_json(store.record("k"), trial() | odd)
    assert store.read("k") is None


@pytest.mark.parametrize("stored", [True, [], {"key": "k"}, {"value": {"a": 1}}, {"value": 3}])
def test_a_stage_that_is_none_is_made_again(tmp_path: Path, stored: Any):
    stages, path = Stages(tmp_path), tmp_path / "stages" / "x.json"
    assert stages.run("x", {"a": 1}, lambda: {"b": 2})["b"] == 2
    key = json.loads(path.read_text())["key"]
    write_json(path, {"key": key, **stored} if isinstance(stored, dict) else stored)
    assert stages.run("x", {"a": 1}, lambda: {"b": 3})["b"] == 3
    assert stages.run("x", {"a": 1}, lambda: {"b": 4})["b"] == 3


def test_a_stage_whose_file_is_damaged_or_gone_is_made_again(tmp_path: Path):
    stages, file, times = Stages(tmp_path), tmp_path / "model" / "a.csv", 0

    def make() -> dict[str, Any]:
        nonlocal times
        times += 1
        write_text(file, "unit,norm\n0,1.5\n")
        return {"times": times}

    def run() -> int:
        return stages.run("x", {}, make, makes=(file,))["times"]

    assert (run(), run()) == (1, 1)
    file.write_text("unit,norm\n0,1.6\n")
    assert (run(), run()) == (2, 2)
    file.unlink()
    assert (run(), run()) == (3, 3)
    file.unlink()
    file.write_text("")
    assert run() == 4
    older = json.loads((tmp_path / "stages" / "x.json").read_text())
    write_sealed(tmp_path / "stages" / "x.json", {k: older[k] for k in ("key", "value")})
    file.write_text("as it was")
    assert run() == 4  # what older versions wrote is taken as it is


@pytest.mark.parametrize("text", ["true", "[1]", "NaN", '{"a": NaN, "sha256": "x"}', "[" * 10**5])
def test_other_json_is_none(tmp_path: Path, text: str):
    (tmp_path / "x.json").write_text(text)
    assert read_sealed(tmp_path / "x.json") is None


def test_records_of_earlier_versions_are_read(tmp_path: Path):
    write_json(tmp_path / "x.json", RECORD)
    assert read_sealed(tmp_path / "x.json") == RECORD


def test_a_trial_under_another_key_is_none(tmp_path: Path):
    store, record = Store(tmp_path), trial()
    write_sealed(store.record("k"), record)
    write_sealed(store.record("other"), record)
    write_sealed(store.record("none"), {"run": 1})
    write_json(store.record("k"), record)
    assert store.read("k") == record
    assert store.read("other") is None
    assert store.read("none") is None


def test_damaged_weights_are_gone(tmp_path: Path):
    store, net = Store(tmp_path), nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    path = store.weights("k")
    assert not store.has_weights("k")
    save_weights(net, path)
    assert store.has_weights("k")
    for name, content in damaged(path.read_bytes(), flips=40):
        path.write_bytes(content)
        assert not store.has_weights("k"), name
        assert not path.exists(), name
    save_weights(net, path)
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    load_weights(other, path)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))


def test_damage_to_any_cache_changes_no_number(flags: Path, tmp_path: Path):
    out, cache = tmp_path / "out", tmp_path / "cache"
    config = StudyConfig(
        backbone="mobilenet_v3_small",
        weights="none",
        depths=(50,),
        runs=1,
        scratch_runs=0,
        epochs=1,
        views=1,
        batch_size=14,
        precision="float32",
    )

    def train() -> dict[str, object]:
        kept = prefix_cache(out, 1.0, "keep")
        answer = train_model(str(flags), config, out, cache=cache, prefix_cache=kept)
        return {name: value for name, value in answer.items() if name != "timing"}

    first = train()
    kinds = ("frozen/*.bin", "trials/*.weights.safetensors", "trials/*.json")
    files = [path for kind in kinds for path in out.glob(kind)]
    files += [path for kind in ("images/*.npy", "audit/*.npz") for path in cache.glob(kind)]
    assert len(files) == 7
    for path in files:
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes(len(data) - middle))
    assert train() == first


def test_a_stage_whose_thumbnail_is_damaged_or_gone_is_made_again(tmp_path: Path):
    stages, times = Stages(tmp_path), 0
    picture = tmp_path / "thumbnails" / "map-1.jpg"

    def make() -> dict[str, Any]:
        nonlocal times
        times += 1
        write_text(picture, "a picture")
        return {"times": times, "rows": [{"maps": {"before": "thumbnails/map-1.jpg"}}]}

    def run() -> int:
        return stages.run("x", {}, make)["times"]

    assert (run(), run()) == (1, 1)
    picture.write_text("b picture")
    assert (run(), run()) == (2, 2)
    picture.unlink()
    assert (run(), run()) == (3, 3)
    stage = tmp_path / "stages" / "x.json"
    older = json.loads(stage.read_text())
    write_sealed(stage, {key: older[key] for key in ("key", "value")} | {"files": {}})
    picture.write_text("of an older version")
    assert run() == 3
    picture.unlink()
    assert run() == 4
