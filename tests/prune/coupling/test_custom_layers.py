"""Rules for layers whose operations do not say how units pass through."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch
from torch import Tensor, nn

import secateurs
from secateurs.errors import InputError
from secateurs.prune.coupling import custom_layers


class Waves(nn.Module):
    """Each value through a function that has no rule, and each channel scaled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x) * self.scale[:, None]


class Mixed(Waves):
    """Mixes neighbouring channels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.special.bessel_j0(x).roll(1, 1)


def net(middle: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 8, 3), middle, nn.Conv1d(8, 4, 3), nn.Flatten())


@pytest.fixture(autouse=True)
def no_rules(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    monkeypatch.setattr(custom_layers, "_RULES", {})
    yield


def test_a_layer_with_a_rule_can_be_cut():
    x = torch.randn(8, 2, 12)
    seen = secateurs.inspect(net(Waves(8)), x)
    assert not seen.groups and "bessel" in seen.not_pruned[0].reason
    secateurs.register(Waves, secateurs.PassThrough(tensors={"scale": 0}))
    (row,) = secateurs.inspect(net(Waves(8)), x).groups
    assert (row.num_units, row.layers) == (8, ("0", "1.scale", "2"))
    small = secateurs.prune(net(Waves(8)), [x], secateurs.Budget(params=0.6, round_to=1, fewest=1))
    assert len(small.model[1].scale) == len(small.kept["0"]) < 8
    assert small.report["parity"] <= 1e-5


def test_a_rule_that_is_wrong_leaves_its_group_whole():
    secateurs.register(Mixed, secateurs.PassThrough(tensors={"scale": 0}))
    seen = secateurs.inspect(net(Mixed(8)), torch.randn(4, 2, 12))
    assert not seen.groups and "not the same as zeroing" in seen.not_pruned[0].reason


def test_what_is_no_rule_is_told():
    with pytest.raises(InputError, match="expected a type of module, got 3"):
        secateurs.register(3, secateurs.PassThrough())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected a PassThrough, got int"):
        secateurs.register(Waves, 3)  # type: ignore[arg-type]
