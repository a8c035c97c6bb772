"""Models that are called or that answer in uncommon ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from own_networks import same_weights
from torch import Tensor, nn

import secateurs
from secateurs.nets.counting import num_parameters

X = torch.randn(40, 6)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 24), nn.Linear(24, 4)

    def head(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())

    def forward(self, x: Tensor) -> Any:
        return self.head(x)


class Nested(Two):
    """A structure in, with names in it, and a structure out."""

    def forward(self, batch: dict[str, list[Tensor]], *, scale: Tensor, names: list[str]) -> Any:
        return {"found": [self.head(batch["x"][0] * scale), None], "names": names, "number": 3}


class KeywordsOnly(Two):
    def forward(self, *, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.head(x)


class Remembering(Two):
    """Keeps a feature map, and counts."""

    seen: Tensor | None = None
    runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen, self.runs = self.first(x), self.runs + 1
        return self.second(self.seen.relu())


class Frozen(Two):
    def __init__(self) -> None:
        super().__init__()
        self.first.requires_grad_(False)


class Sound(nn.Module):
    """A spectrogram, and convolutions on it."""

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(16))
        self.conv = nn.Sequential(nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU())
        self.head = nn.Linear(12, 3)

    def forward(self, wave: Tensor) -> Tensor:
        found = torch.stft(wave, 16, 8, window=self.window, return_complex=True).abs()
        return self.head(self.conv(found[:, None]).mean((2, 3)))


def hooked() -> nn.Module:
    model = Two()
    model.first.register_forward_hook(lambda _, __, output: output * 2)
    return model


@pytest.mark.parametrize(
    ("make", "batch"),
    [
        (Nested, {"batch": {"x": [X]}, "scale": torch.ones(40, 1), "names": ["a"] * 40}),
        (KeywordsOnly, {"x": X, "y": X}),
        (Remembering, X),
        (Frozen, X),
        (Sound, torch.randn(20, 200)),
        (hooked, X),
    ],
)
def test_they_are_pruned_and_come_back(make: Callable[[], nn.Module], batch: Any, tmp_path: Path):
    torch.manual_seed(0)
    model = make()
    budget = secateurs.Budget(params=0.6, round_to=1, fewest=1)
    small = secateurs.prune(model, [batch], budget)
    assert num_parameters(small.model) <= 0.6 * num_parameters(model)
    assert small.report["parity"] <= 1e-5
    wanted = {name: p.requires_grad for name, p in model.named_parameters()}
    assert {name: p.requires_grad for name, p in small.model.named_parameters()} == wanted
    small.save(tmp_path / "small.safetensors")
    again = secateurs.load_weights(make(), tmp_path / "small.safetensors")
    assert same_weights(again, small.model)
