from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.fit.config import distillation_loss
from secateurs.fit.images import ViewPlan
from secateurs.fit.inputs import prepare_inputs, with_teacher
from secateurs.fit.recipe import Recipe
from secateurs.prune import to_budget
from secateurs.prune.to_budget import Budget
from secateurs.ship.checkpoint import load, save
from secateurs.ship.cost import Cost, cost
from secateurs.ship.spec import ImageInput, describe
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.pruning import network as whole_module
from secateurs.study.pruning import saved_output, savings
from secateurs.study.pruning.network import prune_whole, survey_whole
from secateurs.study.pruning.recovery import RecoveryOptions, recover
from secateurs.study.pruning.saved_network import shrink_saved
from secateurs.study.pruning.saved_output import pruning_summary
from secateurs.study.setup import trial_context as trial_context
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import Dataset, open_dataset, seeded_model

pytestmark = pytest.mark.usefixtures("surveys_once")
CPU = torch.device("cpu")
NAME = "squeezenet1_1"
CONFIG = StudyConfig(backbone=NAME, group_by=r"^(\d+)_", batch_size=8, augment=True)


PIXELS = 64  # enough for this network, and a twelfth of the work


@pytest.fixture(scope="module")
def dataset(flags: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    small = ImageInput.of(NAME, size=PIXELS)
    real = trial_context.open_images
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trial_context, "open_images", lambda data, _, **words: real(data, small, **words)
        )
        found = open_dataset(str(flags), CONFIG, cache=tmp_path_factory.mktemp("cache"))
    assert found.sides["train"].size == PIXELS
    return found


def cost_here(network: nn.Module) -> Cost:
    return cost(network, size=PIXELS)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return seeded_model(NAME, 3, 0).eval()


def test_a_budget_is_met_and_nothing_given_is_changed(dataset: Dataset, network: nn.Module):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cut = prune_whole(network, dataset, CONFIG, Budget(macs=0.5, params=0.6), device=CPU)
    price, whole = cost_here(cut.model), cost_here(network)
    assert price.macs <= 0.5 * whole.macs
    assert price.num_parameters <= 0.6 * whole.num_parameters
    assert cut.pruned.chosen.price.macs == pytest.approx(price.macs)
    assert cut.pruned.chosen.price.parameters == price.num_parameters
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(units % 8 == 0 for units in cut.pruned.chosen.kept.values())
    assert cut.record["parity"] <= 1e-5
    assert [row["num_kept"] for row in cut.record["groups"]] == list(
        cut.pruned.chosen.kept.values()
    )


def test_one_survey_serves_several_budgets_as_a_survey_for_each_would(
    dataset: Dataset, network: nn.Module, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(whole_module, "survey_network", to_budget.survey_network)
    surveyed = survey_whole(network, dataset, CONFIG, device=CPU)
    larger, found = (surveyed.prune(Budget(macs=share)) for share in (0.7, 0.4))
    alone = prune_whole(network, dataset, CONFIG, Budget(macs=0.4), device=CPU)
    assert found.pruned.channels == alone.pruned.channels != larger.pruned.channels
    for name, value in alone.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value)


def test_calibration_takes_some_images_of_every_class_in_no_order_of_the_folder(
    dataset: Dataset, network: nn.Module
):
    words: Any = {"device": torch.device("cpu"), "num_images": 9}
    few = whole_module.survey_whole(network, dataset, replace(CONFIG, augment=False), **words)
    images = torch.cat([*few.surveyed.calibration])
    assert len(images) == few.num_images == 9
    train = dataset.sides["train"]
    every = train.eval_views(slice(0, len(train)), torch.device("cpu"))
    rows = [int((every - image).flatten(1).abs().sum(1).argmin()) for image in images]
    assert np.bincount(train.labels[rows], minlength=3).tolist() == [3, 3, 3]
    turned = replace(dataset, sides=dataset.sides | {"train": train.take(np.arange(30)[::-1])})
    again = whole_module.survey_whole(network, turned, replace(CONFIG, augment=False), **words)
    assert torch.equal(torch.cat([*again.surveyed.calibration]), images)


def test_refitting_is_nearer_to_the_network_than_units_at_random_left_as_they_are(
    dataset: Dataset, network: nn.Module
):
    from secateurs.prune.surgery.narrow import narrow

    cut = prune_whole(network, dataset, CONFIG, Budget(macs=0.5), device=CPU)
    generator = torch.Generator().manual_seed(0)
    units = {group.name: group.num_units for group in cut.pruned.groups.found}
    survivors = {
        name: torch.randperm(units[name], generator=generator)[:keep]
        for name, keep in cut.pruned.chosen.kept.items()
    }
    images = dataset.sides["val"].eval_views(slice(0, 8), CPU)
    with torch.no_grad():
        exact = network(images)
        ours = (cut.model(images) - exact).square().mean()
        random = (
            (narrow(network, cut.pruned.groups.found, survivors)(images) - exact).square().mean()
        )
    assert ours < random / 4


def test_the_smallest_network_within_the_loss_is_found(dataset: Dataset, network: nn.Module):
    # Every loss is allowed: the way is gone to its end.
    cut = prune_whole(network, dataset, CONFIG, Budget(max_loss=100.0), device=CPU)
    assert cut.pruned.chosen == cut.pruned.trajectory[-1]
    assert len(cut.record["tried"]) >= 3
    part = strict_part(cut)
    assert min(row["macs"] for row in cut.record["tried"]) == part


def strict_part(cut: whole_module.PrunedNetwork) -> float:
    return cut.pruned.chosen.price.macs / cut.pruned.trajectory[0].price.macs


def test_latency_is_measured_until_it_is_low_enough(
    dataset: Dataset, network: nn.Module, monkeypatch: pytest.MonkeyPatch
):
    asked: list[float] = []

    def timed(before, after, images, *, batch, warmup, budget_s):
        part = cost_here(after).macs / cost_here(before).macs
        asked.append(part)
        from secateurs.ship.latency import LatencyRow, Spread

        flat = Spread(1.0, 1.0, 1.0)
        slower = 0.2 + 0.8 * part  # a fifth is not saved by cutting
        return LatencyRow("pytorch", "cpu", batch, flat, flat, slower, slower, slower, slower, 5)

    monkeypatch.setattr(whole_module, "torch_latency", timed)
    cut = prune_whole(network, dataset, CONFIG, Budget(latency=0.5), device=CPU)
    part = strict_part(cut)
    assert 0.2 + 0.8 * part <= 0.5
    place = cut.pruned.trajectory.index(cut.pruned.chosen)
    assert (
        0.2
        + 0.8 * cut.pruned.trajectory[place - 1].price.macs / cut.pruned.trajectory[0].price.macs
        > 0.5
    )
    assert (
        len(asked) <= 1 + len(cut.pruned.trajectory).bit_length()
    )  # the last step, then bisection
    with pytest.raises(InputError, match="smallest network still takes"):
        prune_whole(network, dataset, CONFIG, Budget(latency=0.1), device=CPU)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "give params, macs, latency, max_loss or size_mb"),
        ({"params": 0.0}, "params is out of range: 0.0; expected a number above 0, up to 1"),
        ({"macs": 1.5}, "macs is out of range: 1.5; expected"),
        ({"latency": -1.0}, "latency is out of range: -1.0; expected"),
        ({"max_loss": -1.0}, "max_loss is out of range: -1.0; expected"),
        ({"macs": 0.5, "round_to": 0}, "round_to"),
    ],
)
def test_bad_budgets_are_told(words, message: str):
    with pytest.raises(InputError, match=message):
        Budget(**words)


def test_a_budget_out_of_reach_says_what_is_possible(dataset: Dataset, network: nn.Module):
    with pytest.raises(InputError, match="the least that cutting can reach is 0"):
        prune_whole(network, dataset, CONFIG, Budget(params=0.0001), device=CPU)


def test_a_network_without_groups_is_told(dataset: Dataset):
    model = seeded_model(NAME, 3, 0)
    model.features = nn.Sequential(nn.Conv2d(3, 3, 16, stride=16))  # all that is left is the head
    model.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1))
    with pytest.raises(InputError, match="squeezenet1_1: nothing can be pruned"):
        prune_whole(model, dataset, CONFIG, Budget(macs=0.5), device=CPU)


def test_the_distillation_loss_is_the_divergence_of_softened_answers():
    generator = np.random.default_rng(0)
    given, taught = generator.normal(size=(2, 5, 4)) * 3

    def soft(logits: np.ndarray) -> np.ndarray:
        power = np.exp(logits / 3.0)
        return power / power.sum(1, keepdims=True)

    expected = 9.0 * (soft(taught) * np.log(soft(taught) / soft(given))).sum(1).mean()
    found = distillation_loss(torch.tensor(given), torch.tensor(taught), temperature=3.0)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_a_teacher_answers_the_very_views_that_are_trained_on(dataset: Dataset, network: nn.Module):
    plan = ViewPlan(3, 2, CONFIG.augmentation())
    train, val = dataset.sides["train"], dataset.sides["val"]
    inputs = prepare_inputs(train, val, nn.Sequential(), plan, num_epochs=3, device=CPU)
    inputs = with_teacher(inputs, network)
    rows = np.array([4, 0, 7])
    for epoch in range(3):
        with torch.no_grad():
            expected = network(inputs.batch(epoch, rows))
        torch.testing.assert_close(
            inputs.teacher_logits(epoch, rows), expected, rtol=1e-4, atol=1e-5
        )
    with pytest.raises(InputError, match="no teacher"):
        prepare_inputs(train, val, nn.Sequential(), plan, num_epochs=1, device=CPU).teacher_logits(
            0, rows
        )


def test_recovery_learns_and_leaves_the_pruned_network_alone(dataset: Dataset, network: nn.Module):
    cut = prune_whole(network, dataset, CONFIG, Budget(macs=0.5), device=CPU)
    before = {name: value.clone() for name, value in cut.model.state_dict().items()}
    options = RecoveryOptions(epochs=3, lr=1e-3, distil=1.0, views=1, min_scale=1.0)
    found = recover(cut.model, network, dataset, CONFIG, options, device=CPU)
    assert all(torch.equal(value, before[name]) for name, value in cut.model.state_dict().items())
    images = dataset.sides["train"].eval_views(slice(0, 24), CPU)
    with torch.no_grad():
        exact = network(images).softmax(1)
        away = [
            (model(images).softmax(1) - exact).abs().mean() for model in (cut.model, found.model)
        ]
    assert len(found.fit.curve) == 3
    assert found.fit.curve[-1].train_loss < found.fit.curve[0].train_loss
    assert not torch.equal(away[0], away[1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": -1}, "epochs is out of range: -1; expected"),
        ({"lr": 0.0}, "lr is out of range: 0.0; expected"),
        ({"lr": float("nan")}, "lr is out of range: nan; expected"),
        ({"distil": 1.5}, "distil is out of range: 1.5; expected"),
        ({"temperature": 0.0}, "temperature is out of range: 0.0; expected"),
        ({"views": 0}, "views is out of range: 0; expected"),
    ],
)
def test_a_recovery_out_of_range_is_refused_before_any_work(wrong: dict[str, Any], message: str):
    with pytest.raises(InputError, match=re.escape(message)):
        RecoveryOptions(**wrong)


def test_recoveries_follow_the_norms_of_training_unless_told():
    trained = replace(CONFIG, recipe=Recipe(norms="trained"))
    assert RecoveryOptions().settled(trained).norms == "trained"
    assert RecoveryOptions().settled(CONFIG).norms == "fixed"
    assert RecoveryOptions(norms="fixed").settled(trained).norms == "fixed"
    with pytest.raises(InputError, match="norms must be auto, trained or fixed, got 'off'"):
        RecoveryOptions(norms="off")  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(savings, "BUDGET_S", 0.1)
    monkeypatch.setattr(
        saved_output, "onnx_obstacle", lambda model: "not exported"
    )  # exports take long


@pytest.fixture(scope="module")
def saved(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    spec = describe(
        network,
        NAME,
        ["across", "down", "plain"],
        ImageInput.of(NAME, size=PIXELS),
        extra={"config": CONFIG.to_json()},
    )
    save(network, spec, folder)
    return folder


@pytest.mark.usefixtures("without_onnx")
def test_a_saved_network_is_shrunk_and_loads_again(flags: Path, saved: Path, tmp_path: Path):
    budget, recovery = Budget(macs=0.5), RecoveryOptions(epochs=1, views=1)
    words = {"recovery": recovery, "cache": tmp_path / "cache"}
    answer = shrink_saved(saved, str(flags), tmp_path / "out", budget, **words)
    loaded = load(tmp_path / "out")
    assert cost(loaded.model, size=PIXELS).macs == answer["cost"]["after"]["macs"]
    assert answer["cost"]["after"]["macs"] <= 0.5 * answer["cost"]["before"]["macs"]
    assert json.loads((tmp_path / "out" / "pruning.json").read_text()) == answer
    assert answer["calibration"] == {"num_images": 30, "of": 30, "mirrored": True}
    assert answer["reconstruction"]["num_samples"] == 3 * 30  # views
    assert [path.name for path in (tmp_path / "out").glob("*.state.*")] == []
    with (tmp_path / "out" / "ledger.csv").open() as file:
        rows = list(csv.DictReader(file))
    for group in answer["groups"]:
        own = [row for row in rows if row["layer"] == group["name"]]
        assert len(own) == group["num_units"]
        assert sum(row["action"] == "kept" for row in own) == group["num_kept"]
    parquet = pq.read_table(tmp_path / "out" / "ledger.parquet").to_pylist()
    assert [row["action"] for row in parquet] == [row["action"] for row in rows]
    for path, units in loaded.spec.kept.items():
        assert len(units) == len(loaded.model.get_submodule(path).weight)
    assert answer["recovery"]["lr"] == 3e-4  # SqueezeNet has no batch norm
    text = pruning_summary(answer)
    assert "after recovery: validation accuracy" in text
    assert answer["cost"]["sentence"] in text.replace("\n", " ")
    with pytest.raises(InputError, match="already pruned"):
        shrink_saved(tmp_path / "out", str(flags), tmp_path / "b", budget, **words)


@pytest.mark.slow
@pytest.mark.usefixtures("without_onnx")
def test_a_stop_during_recovery_goes_on_to_the_same_network(
    flags: Path, saved: Path, tmp_path: Path
):
    budget = Budget(macs=0.6)
    words = {"recovery": RecoveryOptions(epochs=2, views=1), "cache": tmp_path / "cache"}
    straight = shrink_saved(saved, str(flags), tmp_path / "a", budget, **words)

    class Late(StopFlag):
        """Asked to stop once the recovery has taken three steps."""

        steps = 0

        @property
        def requested(self) -> bool:
            callers = sys._getframe(1), sys._getframe(2)
            self.steps += any(frame.f_code.co_name == "fit" for frame in callers)
            return self.steps >= 3

        @requested.setter
        def requested(self, value: bool) -> None:
            pass

    with pytest.raises(StopRequested):
        shrink_saved(saved, str(flags), tmp_path / "b", budget, stop=Late(), **words)
    assert not (tmp_path / "b" / "model.json").exists()
    assert (tmp_path / "b" / "recovery.state.safetensors").exists()
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    again = shrink_saved(saved, str(flags), tmp_path / "b", budget, **words)
    assert again["after"] == straight["after"]
    first, second = load(tmp_path / "a").model, load(tmp_path / "b").model
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    # A state of this request is of no use to one with other images, whose shapes are the same.
    smaller = tmp_path / "smaller"
    shutil.copytree(flags, smaller)
    next((smaller / "plain").iterdir()).unlink()
    fresh = shrink_saved(saved, str(smaller), tmp_path / "d", budget, **words)
    other = shrink_saved(saved, str(smaller), tmp_path / "c", budget, **words)
    assert other["recovery"]["curve"] == fresh["recovery"]["curve"]
    assert other["after"] == fresh["after"]


def test_a_cut_network_that_costs_more_than_was_asked_for_is_an_error(
    dataset: Dataset, network: nn.Module, monkeypatch: pytest.MonkeyPatch
):
    def too_little(model: nn.Module, groups: Any, seen: Any, kept: Any, *_: Any, **more: Any):
        return real_cut(model, groups, seen, {}, *_, **more)

    real_cut = to_budget.prune_groups
    monkeypatch.setattr(to_budget, "prune_groups", too_little)
    with pytest.raises(
        InputError, match=r"budget: macs 0\.9 was asked for, the pruned network has 1"
    ):
        prune_whole(network, dataset, CONFIG, Budget(macs=0.9), device=CPU)
