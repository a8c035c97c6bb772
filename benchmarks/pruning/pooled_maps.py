"""Is the loss of a cut predicted where maps are averaged, and does that choose better widths?

Errors that are the same in all places of a sample add up when the places are averaged. Two small
trained networks that end with an average over places are pruned with the errors of the places taken
as independent, and as they are (which is what Secateurs does). Before any training; test samples.

    python benchmarks/pruning/pooled_maps.py --seeds 5
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from statistics import mean
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import secateurs
from secateurs.prune.allocation import survey

Data = tuple[Tensor, Tensor]
MACS = (0.7, 0.5, 0.35)


@contextmanager
def independent_places() -> Generator[None]:
    """Errors in the places of a sample taken as independent."""
    known = survey.importance

    def alone(*args: Any, **words: Any) -> Any:
        return replace(known(*args, **words), together={})

    survey.importance = alone
    try:
        yield
    finally:
        survey.importance = known


class Pooled(nn.Module):
    """Convolutions, and a linear layer on the average over all places."""

    def __init__(self, *features: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.features, self.head = nn.Sequential(*features), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (samples, classes)."""
        return self.head(self.features(x).flatten(2).mean(2))


def sound_network() -> nn.Module:
    """Four 1-D convolutions on sound, small."""

    def block(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        conv = nn.Conv1d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)
        return [conv, nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(2)]

    layers = [*block(1, 16, 32, 4), *block(16, 16, 3), *block(16, 32, 3), *block(32, 32, 3)]
    return Pooled(*layers, width=32, classes=4)


def digit_network() -> nn.Module:
    """Three 2-D convolutions on digits."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]

    return Pooled(*block(1, 24), *block(24, 48), *block(48, 48), width=48, classes=10)


def chords(num: int) -> Data:
    """Chords of four kinds in noise."""
    label = torch.randint(0, 4, (num,))
    steps = torch.tensor([[4.0, 7.0], [3.0, 7.0], [5.0, 9.0], [3.0, 6.0]])[label]
    root = 0.05 * 2 ** torch.rand(num, 1)
    pitch = torch.cat([root, root * 2 ** (steps / 12)], 1)[..., None]
    wave = torch.sin(2 * torch.pi * pitch * torch.arange(512)).sum(1, keepdim=True)
    return wave + 0.3 * torch.randn(num, 1, 512), label


def digits() -> tuple[Data, Data]:
    """Digits to train on and to test with."""
    found: Any = load_digits()
    x = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(found.target)
    order = torch.randperm(len(x))
    return (x[order[:900]], y[order[:900]]), (x[order[900:]], y[order[900:]])


def train(model: nn.Module, data: Data, epochs: int) -> None:
    """By cross-entropy."""
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(data[0])).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(data[0][rows]), data[1][rows]).backward()
            optimiser.step()
    model.eval()


@torch.no_grad()
def outcome(model: nn.Module, data: Data, macs: float) -> tuple[float, float]:
    """The measured change of the logits as a multiple of the predicted one, and the accuracy."""
    budget = secateurs.Budget(macs=macs, round_to=2, fewest=2)
    small = secateurs.prune(model, list(data[0][:256].split(32)), budget)
    x, y = data[0][256:], data[1][256:]
    answers = small.model(x)
    away = float((answers - model(x)).square().sum(1).mean())
    accuracy = float((answers.argmax(1) == y).float().mean())
    return away / small.report["predicted_loss"], accuracy


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--seeds", type=int, default=5)
    given = words.parse_args()
    print("| network | MACs left | places taken as | measured / predicted | accuracy |")
    print("|---|---|---|---|---|")
    for name in ("sound", "digits"):
        found: dict[tuple[float, bool], list[tuple[float, float]]] = {}
        whole: list[float] = []
        for seed in range(given.seeds):
            torch.manual_seed(seed)
            fitted, rest = (chords(256), chords(656)) if name == "sound" else digits()
            model = sound_network() if name == "sound" else digit_network()
            train(model, fitted, 14)
            with torch.no_grad():
                right = model(rest[0][256:]).argmax(1) == rest[1][256:]
            whole.append(float(right.float().mean()))
            for macs in MACS:
                with independent_places():
                    found.setdefault((macs, True), []).append(outcome(model, rest, macs))
                found.setdefault((macs, False), []).append(outcome(model, rest, macs))
        print(f"| {name} | 100% | | | {mean(whole):.3f} |")
        for (macs, alone), rows in found.items():
            ratio = math.exp(mean(math.log(ratio) for ratio, _ in rows))
            how = "independent" if alone else "they are"
            accuracy = mean(right for _, right in rows)
            print(f"| {name} | {macs:.0%} | {how} | {ratio:.1f} | {accuracy:.3f} |")


if __name__ == "__main__":
    main()
