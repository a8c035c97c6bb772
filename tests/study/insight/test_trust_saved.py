"""Saved networks measured for trust, and a threshold that `predict` uses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from secateurs.cli.app import app
from secateurs.errors import InputError
from secateurs.files import read_json, write_json
from secateurs.ship.checkpoint import load
from secateurs.study.insight.trust_saved import trust_saved
from secateurs.study.saved.confidence import Confidence, confidence_of
from secateurs.study.saved.prediction import predict_saved


@pytest.fixture
def model(net: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(net, tmp_path / "model"))


def test_the_command_compares_keeps_the_threshold_and_predict_uses_it(
    model: Path, net: Path, flags: Path, tmp_path: Path, net_cache: Path,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    out = tmp_path / "trust"
    words = ["trust", str(model), str(flags), "--against", str(net), "--out", str(out)]
    words += ["--target", "0.01", "--save-threshold", "--cache", str(net_cache), "--quiet"]
    app(words, standalone_mode=False)
    assert f"page: {out / 'trust.html'}" in capsys.readouterr().out
    record = read_json(out / "trust.json")
    assert record["clean"]["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    mistakes = record["mistakes"]
    losses = [row["answers"]["after"]["own"] for row in mistakes["losses"]]
    assert losses == sorted(losses)
    assert len(losses) == min(12, round(record["num_images"] * (1 - accuracy_of(record))))
    for pair in mistakes["confusions"]:
        assert pair["counts"]["before"] == pair["counts"]["after"] == pair["num_images"]
        assert all(row["label"] == pair["true"] for row in pair["mistakes"])
        assert all(row["label"] == pair["answer"] for row in pair["likest"])
    for row in mistakes["losses"]:
        assert (out / row["thumbnail"]).is_file()
        assert set(row["maps"]) == {"before", "after"}
        assert (out / row["maps"]["before"]).read_bytes() == (
            out / row["maps"]["after"]
        ).read_bytes()
    kept = confidence_of(load(model).spec)
    assert kept.temperature == record["networks"]["after"]["confidence"]["temperature"]
    assert kept.threshold == record["networks"]["after"]["confidence"]["threshold"]
    image = next((flags / "plain").iterdir())
    [row] = predict_saved(model, [image])["predictions"]
    assert row["unsure"] == (row["answers"][0]["probability"] < (kept.threshold or 0))
    [plain] = predict_saved(net, [image])["predictions"]
    assert "unsure" not in plain
    app(["predict", str(net), str(image), "--threshold", "1", "--quiet"], standalone_mode=False)
    assert "does not know (" in capsys.readouterr().out
    app(
        ["predict", str(net), str(image), "--threshold", "0", "--format", "csv", "--quiet"],
        standalone_mode=False,
    )
    head, line = capsys.readouterr().out.splitlines()
    assert head.endswith(",error,unsure")
    assert line.endswith(",,false")


def accuracy_of(record: dict[str, Any]) -> float:
    return record["clean"]["after"]["accuracy"]


def test_other_classes_and_bad_numbers_are_refused(
    model: Path, net: Path, flags: Path, tmp_path: Path, net_cache: Path
):
    plain = read_json(model / "model.json")
    plain["classes"] = ["across", "down", "dotted"]
    write_json(model / "model.json", plain)
    with pytest.raises(InputError, match="the two models have other classes"):
        trust_saved(net, str(flags), tmp_path / "out", against=model, cache=net_cache)
    with pytest.raises(InputError, match=re.escape("target must be above 0 and at most 1")):
        trust_saved(net, str(flags), tmp_path / "out", target=95, cache=net_cache)
    with pytest.raises(InputError, match="side must be val or test"):
        trust_saved(net, str(flags), tmp_path / "out", side="train", cache=net_cache)


@pytest.mark.parametrize(
    "damage",
    [
        "0.5",
        '{"temperature": 0}',
        '{"temperature": "1"}',
        '{"temperature": 1, "threshold": 2}',
        '{"temperature": 1, "threshold": "x"}',
    ],
)
def test_damaged_confidence_is_named(model: Path, damage: str):
    plain = read_json(model / "model.json")
    plain["extra"]["confidence"] = json.loads(damage)
    write_json(model / "model.json", plain)
    with pytest.raises(InputError, match=re.escape("extra.confidence is damaged")):
        confidence_of(load(model).spec)


def test_confidence_comes_back_as_it_was_kept(model: Path):
    kept = Confidence(1.7, 0.4, 0.95, 0.6)
    plain = read_json(model / "model.json")
    plain["extra"]["confidence"] = kept.to_json()
    write_json(model / "model.json", plain)
    found = confidence_of(load(model).spec)
    assert (found.temperature, found.threshold) == (1.7, 0.4)
