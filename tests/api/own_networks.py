"""Small networks of several kinds, as users have them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UNet(nn.Module):
    """Two levels, joined by concatenation; bilinear upsampling."""

    def __init__(self, width: int = 12, channels: int = 1) -> None:
        super().__init__()
        self.down = _block(channels, width)
        self.deep = _block(width, 2 * width)
        self.up = _block(3 * width, width)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first = self.down(x)
        deep = self.deep(nn.functional.max_pool2d(first, 2))
        deep = nn.functional.interpolate(deep, scale_factor=2.0, mode="bilinear")
        return {"logits": self.head(self.up(torch.cat([deep, first], 1))), "aux": deep.mean()}


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(inplace=True),
    )


class Text(nn.Module):
    """Token ids and a mask in, an encoder layer with an MLP, two heads of output."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(input_ids)
        x = x + self.fc2(nn.functional.gelu(self.fc1(self.norm(x))))
        mask = attention_mask[..., None].to(x)
        pooled = (x * mask).sum(1) / mask.sum(1)
        return self.head(pooled), x


class TwoInputs(nn.Module):
    """An image and a vector of facts about it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(5, 8, 3)
        self.facts = nn.Linear(4, 8)
        self.mix = nn.Linear(16, 12)
        self.head = nn.Linear(12, 2)

    def forward(self, image: Tensor, facts: Tensor) -> Tensor:
        seen = self.conv(image).relu().mean((2, 3))
        both = torch.cat([seen, self.facts(facts).relu()], 1)
        return self.head(self.mix(both).relu())


def tabular() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(9, 40), nn.BatchNorm1d(40), nn.ReLU()),
        *(nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 1)),
    )


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models have the same parameters and buffers, bit for bit."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )
