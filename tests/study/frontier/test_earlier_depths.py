"""A study whose network reads earlier depths: from the probe to the shipped model."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from narrow import narrowed
from secateurs.cli import main
from secateurs.fit.probe import probing
from secateurs.fit.probe.classifier import RidgeClassifier, fit_classifier
from secateurs.fit.probe.head import Head
from secateurs.nets.several_depths import SeveralDepths, both_depths
from secateurs.report.frontier.page import write_frontier_report
from secateurs.ship.checkpoint import load
from secateurs.study.frontier import answer, int8, latency
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.frontier.run import run_frontier
from secateurs.study.frontier.shortlist import earlier_note
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import open_context

CONFIG = StudyConfig(
    weights="none", runs=1, epochs=1, batch_size=8, device="cpu", image_size=64, group_by=r"^(\d+)_"
)
OPTIONS = FrontierOptions(backbones=("alexnet",), num_depths=1, sizes=(0.95,), recover=1)


def _helped_by_width(features: Tensor, *args: Any, **kwargs: Any) -> RidgeClassifier:
    """Every feature more makes the error less."""
    found = fit_classifier(features, *args, **kwargs)
    return replace(found, errors=tuple(error / features.shape[2] for error in found.errors))


@pytest.fixture(scope="module", autouse=True)
def quick() -> Generator[None]:
    """A narrow network that reads earlier depths, few timing rounds, no ONNX files."""
    with narrowed(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "REPEATS", 3)
        patch.setattr(answer, "onnx_obstacle", lambda model: "left out here")
        patch.setattr(int8, "onnx_obstacle", lambda model: "left out here")
        patch.setattr(probing, "fit_classifier", _helped_by_width)
        yield


def test_every_network_of_a_study_reads_both_depths(
    flags: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    out, cache = tmp_path / "study", tmp_path / "cache"
    results: dict[str, Any] = run_frontier(str(flags), CONFIG, OPTIONS, out, cache=cache)
    [network] = results["probe"]["networks"]
    name = "+".join(["alexnet", *network["earlier"]["paths"]])
    assert name.count("+") > 1
    assert network["backbone"] == name
    made = [row for row in results["points"] if "reason" not in row]
    assert {row["backbone"] for row in made} == {name}
    assert {row["kind"] for row in made} == {"probe", "fine-tuned", "pruned"}
    for row in made:
        model = load(out / "models" / row["name"]).model
        assert isinstance(model, SeveralDepths)
        read = [both.norm.num_features for both in both_depths(model)]
        assert model.head.weight.shape[1] > sum(read) > 0 and len(read) == name.count("+")
    frozen = load(out / "models" / "alexnet-probe").model
    assert isinstance(frozen, SeveralDepths)
    variance = frozen.both.norm.running_var
    assert variance is not None and not torch.allclose(variance, torch.ones_like(variance))
    shipped = load(out / "model").spec
    assert shipped.backbone == name
    page = (write_frontier_report(results, out)).read_text()
    assert f"Its head reads {network['earlier']['paths'][0]}, " in page
    said = earlier_note(network | {"backbone": "alexnet"})
    assert said.startswith(f"alexnet: its head also reads {network['earlier']['paths'][0]}, ")
    assert f"to {network['earlier']['error']:.3g} (accuracy " in said
    again = run_frontier(str(flags), CONFIG, OPTIONS, out, cache=cache)
    assert again == results
    words = ["evaluate", str(out), str(flags), "--json", "--cache", str(cache)]
    monkeypatch.setattr("sys.argv", ["secateurs", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    answered = json.loads(capsys.readouterr().out)
    assert answered["accuracy"] == results["recommended"]["test"]["accuracy"]


def test_a_head_of_several_depths_comes_back_from_its_tensors():
    generator = np.random.default_rng(0)
    weight, bias, center, scale = (torch.from_numpy(generator.random(n)) for n in (6, 2, 2, 2))
    head = Head(weight.view(2, 3), bias, 1.5, 0.25, center, scale)
    found = Head.from_tensors(head.tensors())
    assert found.digest() == head.digest()
    assert found.scale is not None and torch.equal(found.scale, scale)
    plain = Head(weight.view(2, 3), bias, 1.5, 0.25)
    assert Head.from_tensors(plain.tensors()).center is None
    assert plain.digest() != head.digest()


def test_such_a_network_is_trained_from_the_probes_classifier(flags: Path, tmp_path: Path):
    config = replace(CONFIG, backbone="alexnet+features.5")
    context = open_context(str(flags), config, cache=tmp_path)
    assert context.head is not None and context.head.scale is not None
    model = context.new_model(seed=0, pretrained=True)
    assert isinstance(model, SeveralDepths)
    variance = model.both.norm.running_var
    assert variance is not None
    assert torch.allclose(variance + model.both.norm.eps, context.head.scale.square().float())
    options = replace(OPTIONS, backbones=("alexnet+features.5",))
    results = run_frontier(str(flags), CONFIG, options, tmp_path / "out", cache=tmp_path)
    assert {row["backbone"] for row in results["points"]} == {"alexnet+features.5"}
