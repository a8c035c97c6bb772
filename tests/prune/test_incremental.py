"""Cuts read off shared sums and held cosines, against each cut made by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.prune.incremental import Refits
from secateurs.prune.layer import PruneOptions, prune_layer
from secateurs.prune.layer_grid import LayerView, view_layer
from secateurs.prune.selection.all_angles import cosines
from secateurs.prune.selection.pairwise import pairwise
from secateurs.prune.selection.rules import SelectOptions, select

UNITS, IMAGES = 90, 17


def network(*, bias: bool = True, outputs: int = 6) -> nn.Sequential:
    """Some units of the first layer are dead, some constant, some nearly equal or opposite."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        layer, last = nn.Linear(12, UNITS), nn.Linear(UNITS, outputs, bias=bias)
        with torch.no_grad():
            layer.weight[1::5] = layer.weight[0::5] + 0.05 * torch.randn(UNITS // 5, 12)
            layer.weight[4::15] = -layer.weight[3::15]
            layer.bias[2::9] = -100
            layer.weight[7], layer.bias[7] = 0.0, 2.0
        steps = (nn.Dropout(), layer, nn.ReLU(inplace=True), nn.Dropout(), last, nn.ReLU())
        return nn.Sequential(*steps, nn.Linear(outputs, 3))


def inputs(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(samples, 12, generator=generator),
        torch.randn(IMAGES, 12, generator=generator),
    )


def looked_at(model: nn.Sequential, samples: int) -> LayerView:
    return replace(view_layer(model, "1", *inputs(samples)), copies=2)


@pytest.mark.parametrize("budget", [2**20, 0])
@pytest.mark.parametrize("norm_std", [None, 0.5])
@pytest.mark.parametrize("low_deg", [0.0, 4.0, 12.0, 40.0])
def test_survivors_and_parents_are_those_of_the_rule(budget, norm_std, low_deg: float):
    x = looked_at(network(), 30).train
    table = cosines(x, budget_bytes=budget)
    assert (table.strength is None) == (budget == 0)
    expected = pairwise(x, low_deg=low_deg, high_deg=180 - low_deg, norm_std=norm_std)
    alive = table.survivors(low_deg, norm_std)
    assert alive.nonzero()[0].tolist() == expected.survivors.tolist()
    found = table.selection(alive, low_deg, norm_std)
    assert found.parent.tolist() == expected.parent.tolist()
    assert torch.allclose(found.angle_deg, expected.angle_deg, atol=1e-5, equal_nan=True)
    for name in ("survivors", "removed", "dead", "constant", "norm"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert bool(found.dead.any()) and bool(found.constant.any())


@pytest.mark.parametrize("keep", [70, 40, 9, 2])
def test_a_number_finds_the_angle_that_the_rule_finds(keep: int):
    model = network()
    x = looked_at(model, 30).train
    weights = model[1].weight.detach(), model[4].weight.detach()
    expected = select(x, *weights, SelectOptions(keep=keep, norm_std=0.2 if keep > 9 else None))
    table = cosines(x)
    norm_std = 0.2 if keep > 9 else None
    alive = table.survivors(table.angle_for(keep, norm_std), norm_std)
    assert alive.nonzero()[0].tolist() == expected.survivors.tolist()
    with pytest.raises(InputError, match="no angle below 90 degrees leaves 1 units or fewer"):
        table.angle_for(1, 1.5)


@pytest.mark.parametrize("outputs", [6, 40])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("samples", [20, 300])  # fewer and more than survivors
@pytest.mark.parametrize("low_deg", [2.0, 9.0, 25.0])
@pytest.mark.parametrize("step", ["merge", "least_squares", "add", "drop"])
def test_a_cut_answers_as_the_pruned_network(step, low_deg, samples, bias, outputs):
    model = network(bias=bias, outputs=outputs)
    view = looked_at(model, samples)
    table, refits = cosines(view.train), Refits(view)
    alive = table.survivors(low_deg, None)
    fitted = refits.fit(table.selection(alive, low_deg, None), step)
    train, images = inputs(samples)
    options = PruneOptions(
        low_deg=low_deg, high_deg=180 - low_deg, compensation=step, copies=2, check_parity=False
    )
    cut = prune_layer(model, "1", train, options=options)
    with torch.no_grad():
        expected = cut.model.eval()(images)
    if low_deg > 2:  # there only dead units go: nothing is missing, and any ridge will do
        assert fitted.outgoing.ridge == cut.outgoing.ridge
    assert torch.allclose(fitted.logits(view, view.outputs), expected, atol=2e-5)
    assert len(fitted.selection.removed) > 0


def test_nothing_left_and_bad_angles():
    table = cosines(torch.zeros(4, 5))
    alive = table.survivors(10, None)
    assert not alive.any()
    with pytest.raises(InputError, match="every one of 5 units would be removed"):
        table.selection(alive, 10, None)
    with pytest.raises(InputError, match="angle: expected degrees, at least 0 and below 90"):
        table.survivors(90, None)
    with pytest.raises(InputError, match="norm_std"):
        cosines(torch.rand(4, 5)).survivors(10, -1.0)
