from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from secateurs.prune.compensation.batch_norm import outputs_of
from secateurs.prune.network import Pruned
from secateurs.prune.verification import cut_and_check


def scaled(model: nn.Module, factor: float) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[1].weight.mul_(factor)
    return other


def attempt(factors: dict[tuple[bool, bool], float], *, predicted: float):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False))
    x = torch.randn(40, 3, 2, 2)
    calls: list[tuple[bool, bool]] = []

    def cut_with(merging: bool, refitting: bool) -> Pruned:
        calls.append((merging, refitting))
        merged = ("1",) if merging else ()
        return Pruned(scaled(model, factors[merging, refitting]), {}, merged)

    pruned, outcome = cut_and_check(cut_with, outputs_of(model, [x]), [x], [x], predicted=predicted)
    return pruned, outcome, calls, float(outputs_of(model, [x]).square().sum(1).mean())


def test_a_cut_that_comes_as_predicted_is_made_once():
    factors = {(True, True): 0.5}
    _, outcome, calls, power = attempt(factors, predicted=1.0)
    assert calls == [(True, True)]
    assert not outcome.alarm
    assert outcome.change.squared == pytest.approx(0.25 * power, rel=1e-4)


def test_a_change_far_above_the_prediction_falls_back_to_the_least_change():
    factors = {(True, True): -1.0, (False, True): 0.9, (False, False): 0.5}
    pruned, outcome, calls, _ = attempt(factors, predicted=1e-3)
    assert calls == [(True, True), (False, True), (False, False)]
    assert outcome.weights == "refitted, not merged"
    assert pruned.merged == ()
    assert outcome.tried["refitted"] > outcome.tried["as they were"]
    assert outcome.tried["as they were"] > outcome.tried["refitted, not merged"]
    assert not outcome.alarm  # a hundredth of the variance: not noticeable any more


def test_the_alarm_stays_where_nothing_comes_near_the_prediction():
    factors = {(True, True): -1.0, (False, True): -1.5, (False, False): -2.0}
    _, outcome, _, _ = attempt(factors, predicted=1e-3)
    assert outcome.alarm and outcome.weights == "refitted"
    assert outcome.to_json()["alarm"] is True
