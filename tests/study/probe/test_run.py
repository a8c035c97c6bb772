"""The probe of several networks: its record, resuming, damage, networks that cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from secateurs.errors import InputError
from secateurs.nets.backbones import build
from secateurs.study.labelling import csv_text, label_findings
from secateurs.study.probe import network, run
from secateurs.study.probe.run import Probed, run_probe
from secateurs.study.setup.config import StudyConfig

NAME = "mobilenet_v3_small"
CONFIG = StudyConfig(group_by=r"^(\d+)_", device="cpu", precision="float32", image_size=64)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    torch.save(build(NAME, 1000).state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


def _run(flags: Path, out: Path, cache: Path, weights: str, **options: Any) -> Probed:
    options = {"backbones": (NAME,), "depths": (0, 11, 53)} | options
    return run_probe(str(flags), CONFIG, out=out, weights={NAME: weights}, cache=cache, **options)


@pytest.fixture(scope="module")
def probed(flags: Path, out: Path, net_cache: Path, weights: str) -> Probed:
    return _run(flags, out, net_cache, weights)


def test_a_row_for_each_depth_with_names_and_intervals(probed: Probed):
    [record] = probed.record["networks"]
    assert [row["name"] for row in record["depths"]] == [
        "all trained",
        "up to features 3",
        "head only",
    ]
    assert [row["share"] for row in record["depths"]][::2] == [0, 1]
    assert all(row["random_frozen"] == [] for row in record["depths"])
    for row in record["depths"]:
        for side in ("train", "val"):
            assert row[f"{side}_low"] <= row[f"{side}_accuracy"] <= row[f"{side}_high"]
    assert record["num_parameters"] == sum(p.numel() for p in build(NAME, 3).parameters())
    assert probed.record["data"]["num_groups"] == 12 - len(
        set(_groups(probed, "test")) - set(probed.groups or ())
    )
    own = probed.networks[0]
    row = own.row(11)
    correct, num = own.correct(11, probed.labels), probed.record["data"]["num_train"]
    assert own.train_scores[11].shape == (2, num, 3)
    assert correct.mean() == row["accuracy"]
    assert correct[:num].mean() == row["train_accuracy"]
    assert correct[num:].mean() == row["val_accuracy"]


def _groups(probed: Probed, side: str) -> tuple[str, ...]:
    return probed.dataset.side_groups(side) or ()


def test_the_same_call_again_computes_nothing(
    probed: Probed, flags: Path, out: Path, net_cache: Path, weights: str,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    def refuse(*given: Any, **options: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(network, "probe", refuse)
    again = _run(flags, out, net_cache, weights)
    assert again.record["networks"] == probed.record["networks"]
    assert again.suggestions == probed.suggestions
    one, other = again.networks[0], probed.networks[0]
    assert all(torch.equal(one.train_scores[k], other.train_scores[k]) for k in (0, 11, 53))
    assert one.head is not None and other.head is not None
    assert torch.equal(one.head.weight, other.head.weight)
    assert one.head.temperature == other.head.temperature
    with pytest.raises(AssertionError, match="computed again"):
        _run(flags, out, net_cache, weights, depths=(0, 53))


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_what_is_damaged_is_computed_again(
    probed: Probed, flags: Path, out: Path, net_cache: Path, weights: str, suffix: str
):
    [path] = (out / run.FOLDER).glob(f"*{suffix}")
    content = path.read_bytes()
    place = content.index(b'"train_accuracy": ') + 19 if suffix == ".json" else len(content) - 5
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    again = _run(flags, out, net_cache, weights)
    before, after = probed.record["networks"][0], again.record["networks"][0]
    assert {**after, "seconds": 0} == {**before, "seconds": 0}


def test_networks_without_weights_are_left_out_and_named(
    flags: Path, out: Path, net_cache: Path, weights: str
):
    found = _run(flags, out, net_cache, weights, backbones=(NAME, "resnet81"))
    assert [one.name for one in found.networks] == [NAME]
    assert found.record["skipped"][0]["backbone"] == "resnet81"
    assert "did you mean" in found.record["skipped"][0]["reason"]
    with pytest.raises(InputError, match="no network can be probed: resnet81: unknown backbone"):
        _run(flags, out, net_cache, weights, backbones=("resnet81", "resnet82"))


def test_labels_and_groups_are_those_of_training_then_validation(probed: Probed):
    dataset = probed.dataset
    expected = np.concatenate([dataset.sides["train"].labels, dataset.sides["val"].labels])
    assert np.array_equal(probed.labels, expected)
    assert probed.groups == _groups(probed, "train") + _groups(probed, "val")


def test_labels_are_ranked_with_their_sides_and_pictures(probed: Probed, tmp_path: Path):
    record, rows = label_findings(probed, tmp_path)
    assert len(rows) == len(probed.labels) == record["num_images"]
    assert [row["probability"] for row in rows] == sorted(row["probability"] for row in rows)
    assert sum(row["flagged"] for row in rows) == record["num_flagged"]
    names = {side: probed.dataset.names(side) for side in ("train", "val")}
    labels = {
        name: probed.dataset.classes[label]
        for side in names
        for name, label in zip(names[side], probed.dataset.sides[side].labels, strict=True)
    }
    assert all(row["name"] in names[row["side"]] for row in rows)
    assert all(labels[row["name"]] == row["label"] for row in rows)
    assert all(row["group"] == Path(row["name"]).name[:2] for row in rows)
    assert sum(one["num_flagged"] for one in record["classes"]) == record["num_flagged"]
    shown = record["images"]
    assert len(shown) == min(24, record["num_flagged"])
    assert all((tmp_path / row["thumbnail"]).stat().st_size > 0 for row in shown)
    assert csv_text(rows).count("\n") == len(rows) + 1
