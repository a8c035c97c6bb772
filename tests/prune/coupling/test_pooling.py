"""Pooling and resizing in one, two and three dimensions leave channels as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.prune.coupling.groups import find_groups
from secateurs.prune.surgery.checked_groups import checked

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


class Between(nn.Module):
    """Two convolutions, and something with the signal between them."""

    def __init__(self, dimensions: int, name: str) -> None:
        super().__init__()
        conv: Any = getattr(nn, f"Conv{dimensions}d")
        self.make, self.read = conv(3, 8, 3, padding=1), conv(8, 4, 1)
        self.dimensions, self.name = dimensions, name

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.between(self.make(x)))

    def between(self, x: Tensor) -> Tensor:
        if self.name == "lp_pool":
            return getattr(F, f"lp_pool{self.dimensions}d")(x.abs() + 1, 2.0, 2)
        if "pool" in self.name:
            return getattr(F, f"{self.name}{self.dimensions}d")(x, 2)
        mode = LINEAR[self.dimensions] if self.name == "linear" else self.name
        return F.interpolate(x, scale_factor=1.5, mode=mode)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(
    "name",
    [
        *("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "lp_pool"),
        *("nearest", "nearest-exact", "linear"),
    ],
)
def test_pools_of_any_dimension(dimensions: int, name: str):
    torch.manual_seed(0)
    model = Between(dimensions, name).eval()
    x = torch.randn(2, 3, *[8] * dimensions)
    found = find_groups(model, x)
    assert [(group.name, group.num_units) for group in found.found] == [("make", 8)]
    assert checked(model, found, x).found == found.found


@pytest.mark.parametrize("name", ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"])
def test_a_signal_without_an_axis_for_samples(name: str):
    """As where a network takes one sample apart from its batch."""
    cls: Any = getattr(nn, name)

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.make, self.read = cls(3, 8, 3), cls(8, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.read(self.make(x[0]).relu())[None]

    x = torch.randn(1, 3, *[9] * int(name[-2]))
    found = find_groups(One(), x)
    assert [(group.name, group.num_units) for group in found.found] == [("make", 8)]
    assert checked(One().eval(), found, x).found == found.found


@pytest.mark.parametrize("transposed", [False, True])
def test_the_general_convolution_is_known(transposed: bool):
    """`torch.convolution`, of which the others are forms, with the weight of a layer."""
    cls: Any = nn.ConvTranspose2d if transposed else nn.Conv2d

    class General(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.make, self.read = cls(3, 8, 3), cls(8, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            for layer in (self.make, self.read):
                sizes = ([1, 1], [0, 0], [1, 1])
                x = torch.convolution(x, layer.weight, layer.bias, *sizes, transposed, [0, 0], 1)
            return x

    found = find_groups(General(), torch.randn(2, 3, 9, 9))
    assert [(group.name, group.num_units) for group in found.found] == [("make", 8)]
    (group,) = found.found
    # The layers do not run themselves: their parameters are members, each by its name.
    assert [(member.path, member.side, member.tensor) for member in group.members] == [
        ("make", "out", "weight"),
        ("make", "both", "bias"),
        ("read", "in", "weight"),
    ]
