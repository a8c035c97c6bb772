"""Layers with a class of their own: the rows that their weights are multiplied with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import secateurs
from secateurs.errors import InputError
from secateurs.nets.layers import channel_axis, matrix
from secateurs.prune.statistics.patches import visit_rows
from secateurs.prune.statistics.products import is_plain


class Causal(nn.Conv1d):
    """Sees what was before, not what comes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (4, 0)))


class Chomped(nn.Conv1d):
    """The same by padding both ends and cutting off the last."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., : -self.padding[0]]  # type: ignore[operator]


class Scaled(nn.Conv2d):
    """Scales what it receives, with a stride of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x * 0.5, self.weight, bias=self.bias, stride=2, padding=(0, 1))


class Wide(nn.ConvTranspose2d):
    """Adds a border before it multiplies."""

    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        return super().forward(F.pad(x, (1, 1, 2, 0)), output_size)


class Clipped(nn.Linear):
    """Clips what it receives."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input.clamp(-1, 1), self.weight, self.bias)


FOUND = [
    (Causal(3, 5, 3, dilation=2), (3, 9)),
    (Chomped(3, 5, 3, padding=4, dilation=2), (3, 9)),
    (Scaled(3, 5, 3), (3, 7, 8)),
    (Wide(3, 5, 3, stride=2, padding=1), (3, 4, 5)),
    (Clipped(3, 5), (7, 3)),
]


@pytest.mark.parametrize(("layer", "size"), FOUND, ids=lambda given: type(given).__name__)
def test_rows_are_those_that_the_weights_are_multiplied_with(
    layer: nn.Module, size: tuple[int, ...]
):
    x = torch.randn(4, *size)
    ran: list[int] = []
    layer.register_forward_hook(lambda *_: ran.append(1))
    found: list[tuple[Tensor, Tensor]] = []
    visit_rows(layer, {"": 1000}, [x], lambda _, rows, outputs, __: found.append((rows, outputs)))
    ((rows, outputs),) = found
    bias = dict(layer.named_parameters())["bias"]
    torch.testing.assert_close(rows @ matrix(layer).T + bias, outputs)
    assert ran == [1] and not is_plain(layer)
    given = layer(x).movedim(channel_axis(layer), -1).flatten(0, -2)
    if not isinstance(layer, Chomped):  # of which more places are looked at than it gives
        mine = outputs.unflatten(0, (-1, 4)).transpose(0, 1).flatten(0, 1)
        torch.testing.assert_close(mine, given)


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias)


class Louder(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class InPlace(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mul_(2)


class Again(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(super().forward(x))


@pytest.mark.parametrize("cls", [Standardised, Louder, InPlace, Again])
def test_a_class_that_does_more_is_told(cls: type[nn.Conv2d]):
    layer = cls(3, 3, 1)
    with pytest.raises(InputError, match=f"layer 0: its class {cls.__name__} does more than"):
        visit_rows(nn.Sequential(layer), {"0": 9}, [torch.randn(2, 3, 4, 4)], lambda *_: None)


def test_a_group_that_cannot_be_read_is_a_reason_and_others_are_pruned():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(Causal(2, 12, 3, dilation=2), nn.ReLU(), Causal(12, 16, 3, dilation=2), nn.ReLU()),
        *(nn.Unflatten(2, (9, 1)), Louder(16, 12, 1), nn.ReLU(), nn.Conv2d(12, 2, 1)),
    ).eval()
    x = torch.randn(40, 2, 9)
    seen = secateurs.inspect(model, x)
    assert [row.name for row in seen.groups] == ["0", "5"]
    ((name, reason),) = [(left.name, left.reason) for left in seen.not_pruned]
    assert name == "2" and reason.startswith("layer 5: its class Louder does more than")
    budget = secateurs.Budget(params=0.6, round_to=1, fewest=2)
    small = secateurs.prune(model, x.split(10), budget)
    assert small.report["parameters"] <= 0.6 and small.report["parity"] <= 1e-5
    assert [left.name for left in small.not_pruned] == ["2"]
