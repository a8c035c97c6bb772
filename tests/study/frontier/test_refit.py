from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from narrow import narrowed
from secateurs.errors import InputError
from secateurs.fit.cache import PrefixCache
from secateurs.fit.probe.probing import fit_head, probe
from secateurs.nets.depth import num_depths
from secateurs.report.frontier.card import render_frontier_card
from secateurs.report.frontier.schema import check_frontier
from secateurs.ship.checkpoint import load
from secateurs.stopping import StopFlag
from secateurs.study.frontier import answer, latency
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.frontier.record import headline
from secateurs.study.frontier.refit import Refit, joined
from secateurs.study.frontier.run import run_frontier
from secateurs.study.insight.trust import find_confidence
from secateurs.study.pruning.recovery import RecoveryOptions
from secateurs.study.saved.confidence import confidence_of
from secateurs.study.saved.evaluate_saved import evaluate_saved
from secateurs.study.saved.evaluation import evaluate_model, side_logits
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import TrialContext, open_context
from secateurs.study.trials.store import Store

CONFIG = StudyConfig(
    weights="none",
    group_by=r"^(\d+)_",
    runs=1,
    epochs=1,
    batch_size=8,
    device="cpu",
    image_size=64,
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Generator[None]:
    with narrowed(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "REPEATS", 3)
        patch.setattr("secateurs.study.pruning.savings.BUDGET_S", 0.05)
        patch.setattr(answer, "onnx_obstacle", lambda model: "left out here")
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def study(flags: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of before there was a refit, resumed with one."""
    out = tmp_path_factory.mktemp("study") / "out"
    options = replace(
        FrontierOptions(("alexnet",), num_depths=1, sizes=(0.95,), recover=1, refit="train"),
        earlier_depths=False,
    )
    run_frontier(str(flags), CONFIG, options, out, cache=cache)
    known = json.loads((out / "study.json").read_text())
    del known["frontier"]["refit"]
    (out / "study.json").write_text(json.dumps(known))
    shutil.copytree(out / "model", out / "before")
    run_frontier(str(flags), CONFIG, replace(options, refit="all"), out, cache=cache)
    return out


@pytest.fixture(scope="module")
def results(study: Path) -> dict[str, Any]:
    return json.loads((study / "results.json").read_text())


@pytest.fixture(scope="module")
def context(flags: Path, cache: Path) -> TrialContext:
    return open_context(str(flags), replace(CONFIG, backbone="alexnet"), cache=cache)


def same(one: Path, other: Path) -> bool:
    a, b = (load(folder).model.state_dict() for folder in (one, other))
    return all(torch.equal(value, b[name]) for name, value in a.items())


def test_both_sides_are_trained_on_in_the_order_of_the_folder(context: TrialContext):
    before, both = context.dataset, joined(context.dataset)
    assert both.split.train.tolist() == sorted([*before.split.train, *before.split.val])
    assert both.split.test.tolist() == before.split.test.tolist()
    known = {
        name: pixels.tobytes()
        for side in ("train", "val")
        for name, pixels in zip(before.names(side), before.sides[side].pixels, strict=True)
    }
    for name, pixels in zip(both.names("train"), both.sides["train"].pixels, strict=True):
        assert pixels.tobytes() == known[name]
    assert len(both.sides["train"]) == len(known)
    assert both.sides["val"] is before.sides["val"]


def test_the_classifier_of_both_sides_is_what_a_probe_of_them_finds(context: TrialContext):
    both = joined(context.dataset)
    model = context.new_model(seed=0, pretrained=True)
    own = {"num_classes": 3, "groups": both.side_groups("train")}
    found = fit_head(model, "alexnet", both.sides["train"], **own)
    last = num_depths(model, "alexnet") - 1
    wanted = probe(model, "alexnet", (last,), both.sides["train"], both.sides["val"], **own).head
    assert found is not None and wanted is not None
    assert found.digest() == wanted.digest()


def test_every_kind_of_network_is_trained_again_and_what_cannot_be_says_why(
    study: Path, results: dict[str, Any], context: TrialContext
):
    assert [row["kind"] for row in results["points"]] == ["probe", "fine-tuned", "pruned"]
    for row in results["points"]:
        folder = study / "models" / row["name"]
        teacher = study / "models" / row.get("made_from", row["name"])
        recovery = RecoveryOptions(epochs=1, views=1)
        refit = Refit(row, teacher, recovery, Store(study), PrefixCache(), StopFlag())
        network, record = refit.run(load(folder), context)
        sizes = {f"num_{side}": len(context.dataset.sides[side]) for side in ("train", "val")}
        assert record == sizes | {"reason": None}
        old = load(folder).model.state_dict()
        new = network.model.state_dict()
        changed = [name for name in old if not torch.equal(old[name], new[name])]
        assert "classifier.6.weight" in changed
        if row["kind"] == "probe":
            assert changed == ["classifier.6.weight", "classifier.6.bias"]
        assert network.spec.extra["refit"] == "all"
        assert network.spec.widths == load(folder).spec.widths
    none = replace(refit, recovery=RecoveryOptions())
    network, record = none.run(load(folder), context)
    assert record["reason"] == "a pruned network without recovery is not trained"
    assert "refit" not in network.spec.extra
    assert not list(study.rglob("*.state.safetensors"))


def test_the_shipped_network_is_trained_again_and_tested_and_the_others_stay(
    study: Path, results: dict[str, Any], context: TrialContext, flags: Path, cache: Path
):
    final = results["recommended"]
    point = study / "models" / final["name"]
    assert same(study / "before", point)
    assert not same(study / "model", point)
    assert same(study / "unpruned", study / "models" / final["unpruned"])
    shipped = load(study / "model")
    found = evaluate_model(shipped.model, context.dataset, "test", CPU)
    assert final["test"]["accuracy"] == pytest.approx(found.accuracy)
    # Temperature and threshold come from the network that had not seen these images.
    logits = side_logits(load(point).model, context.dataset, "val", CPU)
    sure = find_confidence(logits, context.dataset.sides["val"].labels)
    assert confidence_of(shipped.spec).temperature == pytest.approx(sure.temperature)
    assert "trained once more, on all" in headline(results)
    assert "trained once more, on all" in render_frontier_card(check_frontier(results))
    said = evaluate_saved(study, str(flags), side="val", cache=cache)["split"]["notes"]
    assert any("trained on its validation images too" in text for text in said)
    said = evaluate_saved(point, str(flags), side="val", cache=cache)["split"]["notes"]
    assert not any("trained on its validation images too" in text for text in said)


def test_no_image_that_was_trained_on_is_a_validation_image_of_another_split(
    study: Path, results: dict[str, Any], flags: Path, cache: Path
):
    point = study / "models" / results["recommended"]["name"]
    assert evaluate_saved(point, str(flags), side="val", seed=5, cache=cache)["num_images"] > 0
    with pytest.raises(InputError, match="no image is on the validation side"):
        evaluate_saved(study, str(flags), side="val", seed=5, cache=cache)
