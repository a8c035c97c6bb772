"""Redundant units of a network cost nothing, and no order of units or images counts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateurs.prune.to_budget import (
    Budget,
    Hooks,
    PrunedToBudget,
    prune_surveyed,
    survey_network,
)

WIDTH = 6


class Residual(nn.Module):
    """A stem, a residual block with batch norm, and a head on flattened maps."""

    def __init__(self, *, act: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.one = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.norm, self.act = nn.BatchNorm2d(WIDTH), nn.ReLU() if act else nn.Identity()
        self.two = nn.Conv2d(WIDTH, WIDTH, 1)  # padding would tell a constant from an offset
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        x = self.act(x + self.two(self.act(self.norm(self.one(x)))))
        return self.head(x.mean((2, 3)))


def network(seed: int, *, act: bool = True) -> Residual:
    torch.manual_seed(seed)
    model = Residual(act=act)
    model.norm.momentum = 1.0
    with torch.no_grad():
        model.norm.weight.uniform_(0.8, 1.2)
        model.norm.bias.uniform_(0.2, 0.6)  # every unit is above zero now and then
        model.two.weight.mul_(2)
        model.train()(images(7))
    return model.eval()


def images(seed: int, num: int = 192) -> Tensor:
    return torch.randn(num, 3, 3, 3, generator=torch.Generator().manual_seed(100 + seed))


def pruned(model: nn.Module, kept: dict[str, int], batches: Tensor) -> PrunedToBudget:
    """Pruned to so many units of each group."""
    ratios = {name: 1 - keep / WIDTH for name, keep in kept.items()}
    found = survey_network(model, list(batches.split(64)), [images(9, 40)], Hooks(ratios=ratios))
    return prune_surveyed(found, Budget(macs=1.0, round_to=1, fewest=1))


def away(model: nn.Module, other: nn.Module) -> float:
    """Squared difference of the outputs on new images, relative to their variance."""
    x = images(5)
    with torch.no_grad():
        wanted, found = model(x), other(x)
    return float((found - wanted).square().mean() / (wanted - wanted.mean(0)).square().mean())


def copied_unit(model: Residual, scale: float) -> None:
    """In the block unit 4 is unit 1 times a positive number, through batch norm and ReLU."""
    model.one.weight[4] = model.one.weight[1]
    for name in ("running_mean", "running_var"):
        getattr(model.norm, name)[4] = getattr(model.norm, name)[1]
    model.norm.weight[4], model.norm.bias[4] = (
        scale * model.norm.weight[1],
        scale * model.norm.bias[1],
    )


def dead_unit(model: Residual) -> None:
    """Unit 4 is never above zero."""
    model.norm.weight[4], model.norm.bias[4] = 0.1, -50.0


def constant_unit(model: Residual) -> None:
    """Unit 4 is the same everywhere."""
    model.norm.weight[4], model.norm.bias[4] = 0.0, 0.7


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["copy", "scaled copy", "dead", "constant"])
def test_redundant_units_go_first_and_without_a_trace(kind: str, seed: int):
    model = network(seed)
    with torch.no_grad():
        if kind == "dead":
            dead_unit(model)
        elif kind == "constant":
            constant_unit(model)
        else:
            copied_unit(model, 1.0 if kind == "copy" else 2.5)
    found = pruned(model, {"one": WIDTH - 1}, images(seed))
    gone = set(range(WIDTH)) - set(found.result.survivors["one"].tolist())
    assert gone <= ({1, 4} if "copy" in kind else {4})
    # Shrinkage keeps a thousandth of the ridge, whatever the samples say.
    assert away(model, found.model) < 2e-3


@pytest.mark.parametrize("seed", [0, 1])
def test_a_unit_that_is_the_sum_of_two_others_goes_also_through_batch_norm(seed: int):
    model = network(seed, act=False)
    norm = model.norm
    with torch.no_grad():
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        model.one.weight[4] = (
            gain[1] * model.one.weight[1] + gain[2] * model.one.weight[2]
        ) / gain[4]
        offset = norm.bias - gain * norm.running_mean
        norm.bias[4] += offset[1] + offset[2] - (norm.bias[4] - gain[4] * norm.running_mean[4])
    found = pruned(model, {"one": WIDTH - 1}, images(seed))
    assert set(range(WIDTH)) - set(found.result.survivors["one"].tolist()) < {1, 2, 4}
    assert away(model, found.model) < 2e-3


@pytest.mark.parametrize("seed", [0, 1])
def test_a_copy_in_a_residual_sum_goes_without_a_trace(seed: int):
    model = network(seed)
    with torch.no_grad():
        for layer in (model.stem, model.two):
            layer.weight[4], layer.bias[4] = layer.weight[1], layer.bias[1]
    found = pruned(model, {"stem": WIDTH - 1}, images(seed))
    assert set(range(WIDTH)) - set(found.result.survivors["stem"].tolist()) < {1, 4}
    # Shrinkage keeps a thousandth of the ridge, whatever the samples say.
    assert away(model, found.model) < 2e-3


def test_the_order_of_the_units_changes_nothing():
    model, x = network(3), images(3)
    order = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(1))
    other = network(3)
    with torch.no_grad():
        other.one.weight.copy_(model.one.weight[order])
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(other.norm, name).copy_(getattr(model.norm, name)[order])
        other.two.weight.copy_(model.two.weight[:, order])
    one, two = (pruned(net, {"one": 3, "stem": 4}, x) for net in (model, other))
    assert order[two.result.survivors["one"]].sort().values.tolist() == (
        one.result.survivors["one"].tolist()
    )
    assert away(one.model, two.model) < 1e-8
    assert two.chosen.loss == pytest.approx(one.chosen.loss, rel=1e-4)


def test_the_order_of_the_images_hardly_counts():
    model, x = network(4), images(4)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    one, two = (pruned(model, {"one": 3, "stem": 4}, part) for part in (x, x[order]))
    for name, units in one.result.survivors.items():
        assert units.tolist() == two.result.survivors[name].tolist()
    # The samples whose gradients are taken are others; the refit is the same but for rounding.
    assert away(one.model, two.model) < 1e-6
