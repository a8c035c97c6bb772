"""Layers that standardise their weights: what is known of them, and narrow networks by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from timm.layers.std_conv import StdConv2d
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import secateurs
from secateurs.prune.coupling.groups import find_groups
from secateurs.prune.coupling.standardised import standardised_weight
from secateurs.prune.surgery.checked_groups import checked
from secateurs.prune.surgery.narrow import narrow


class Turned(nn.Linear):
    """Reads its inputs in another order than its weight has them."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(1, keepdim=True)
        return F.linear(input, weight.flip(1), self.bias)


class OverAll(nn.Linear):
    """Its weights depend on those of other outputs."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight - self.weight.mean(), self.bias)


class Squared(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.square(), self.bias)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 4),
        Turned(6, 4),
        OverAll(6, 4),
        Squared(6, 4),
        parametrizations.spectral_norm(nn.Linear(6, 4)),
        nn.Conv2d(6, 6, 3, groups=6),
    ],
)
def test_other_layers_are_not_taken_for_standardised_ones(layer: nn.Module):
    assert standardised_weight(layer) is None


def test_a_layer_is_known_and_not_changed():
    layer = StdConv2d(6, 4, 3)
    before = layer.weight.detach().clone()
    assert standardised_weight(layer) == "weight"
    assert torch.equal(layer.weight, before)


def network(*widths: int) -> nn.Sequential:
    inputs, first, second = widths
    return nn.Sequential(
        *(StdConv2d(inputs, first, 3, bias=True), nn.BatchNorm2d(first), nn.ReLU()),
        *(StdConv2d(first, second, 3, bias=True), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(second, 3)),
    )


def test_the_narrow_network_is_the_one_written_by_hand():
    torch.manual_seed(0)
    net, images = network(3, 12, 10).eval(), torch.randn(4, 3, 8, 8)
    groups = checked(net, find_groups(net, images), images)
    assert [(group.name, group.num_units) for group in groups.found] == [("0", 12), ("3", 10)]
    first, second = torch.tensor([1, 2, 5, 8, 11]), torch.tensor([0, 4, 5, 9])
    small = narrow(net, groups.found, {"0": first, "3": second})

    by_hand = network(3, 5, 4).eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        state[name] = state[name][first]
    state["3.weight"] = state["3.weight"][second][:, first]
    state["3.bias"] = state["3.bias"][second]
    state["7.weight"] = state["7.weight"][:, second]
    by_hand.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(small(images), by_hand(images))


def test_statistics_taken_by_a_function_are_the_reason_of_the_row():
    class Function(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(6, 12), nn.Linear(12, 10), nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            weight = self.b.weight - self.b.weight.mean(1, keepdim=True)
            return self.head(F.linear(self.a(x).relu(), weight, self.b.bias).relu())

    found = secateurs.inspect(Function(), torch.randn(4, 6))
    assert [(row.name, row.num_units) for row in found.groups] == [("b", 10)]
    reasons = {row.name: row.reason for row in found.not_pruned}
    assert reasons == {"a": "Function takes statistics of its weights over what it reads"}
