from __future__ import annotations

import pytest
import torch
from torch import nn

from secateurs.nets.counting import macs
from secateurs.study.frontier.options import FrontierOptions
from secateurs.study.frontier.reach import Reach, narrowed, share_of, within_reach


class Residual(nn.Module):
    """Two convolutions of which the second ends in the stem's channels, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.first, self.second = nn.Conv2d(32, 64, 3, padding=1), nn.Conv2d(64, 32, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = (x + self.second(self.first(x).relu())).relu()
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("share", [0.7, 0.25])
def test_all_groups_are_narrowed_alike_to_the_share(share: float):
    model, x = Residual(), torch.randn(2, 3, 8, 8)
    small = narrowed(model, x, share)
    reached = macs(small, x[:1]) / macs(model, x[:1])
    assert share - 0.06 < reached <= share
    assert isinstance(small, Residual)
    kept = small.first.out_channels / 64
    assert small.stem.out_channels / 32 == pytest.approx(kept, abs=0.04)
    assert small(x).shape == (2, 5)
    assert model.stem.out_channels == 32


def test_a_network_with_nothing_to_prune_is_returned_whole():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    small = narrowed(model, torch.randn(2, 3, 2, 2), 0.25)
    assert [p.shape for p in small.parameters()] == [p.shape for p in model.parameters()]


def test_groups_keep_eight_units_however_little_is_asked_for():
    small = narrowed(Residual(), torch.randn(2, 3, 8, 8), 0.0001)
    assert small.get_submodule("first").out_channels == 8


FOUND = (Reach("small", 3.0, 1.0, 9.0, 5.0), Reach("large", 40.0, 11.0, 30.0, 14.0))


def test_networks_that_pruning_cannot_bring_within_the_limits_are_left_out():
    options = FrontierOptions(max_mb=5)
    near, sentences = within_reach(FOUND, options)
    assert near == {"small"}
    assert sentences == (
        "large is not fine-tuned: pruned to 25% of its multiply-accumulates it would have about "
        "11.0 MB of 40.0",
    )
    assert within_reach(FOUND, FrontierOptions(max_mb=12)) == ({"small", "large"}, ())
    assert within_reach(FOUND, FrontierOptions(max_mb=12, max_ms=13))[0] == {"small"}


def test_where_no_network_can_come_within_the_limits_the_nearest_is_tuned():
    near, sentences = within_reach(FOUND, FrontierOptions(max_mb=0.5))
    assert near == {"small"}
    assert sentences[0].startswith("no network is likely to come within the limits; small is the")


def test_the_share_is_that_of_the_smallest_size():
    assert share_of(FrontierOptions(sizes=(0.7, 0.35))) == 0.35
    assert share_of(FrontierOptions(sizes=())) == 0.25
