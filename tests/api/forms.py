"""Small networks whose layers are convolutions of every form, and signals for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UNet(nn.Module):
    """Two levels with transposed convolutions, each joined to its level by concatenation."""

    def __init__(self, width: int = 8, channels: int = 1) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.down = _block(channels, width)
        self.middle = _block(width, 2 * width)
        self.deep = _block(2 * width, 4 * width)
        self.raise1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.up1 = _block(4 * width, 2 * width)
        self.raise2 = nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1)
        self.up2 = _block(2 * width, width)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down(x)
        second = self.middle(self.pool(first))
        x = self.raise1(self.deep(self.pool(second)))
        x = self.raise2(self.up1(torch.cat([x, second], 1)))
        return self.head(self.up2(torch.cat([x, first], 1)))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def audio() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv1d(1, 12, 9, stride=4, padding=4), nn.BatchNorm1d(12), nn.ReLU()),
        *(nn.Conv1d(12, 16, 5, padding="same", dilation=2, padding_mode="reflect"), nn.ReLU()),
        *(nn.MaxPool1d(2), nn.Conv1d(16, 20, 3), nn.BatchNorm1d(20), nn.ReLU()),
        *(nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(80, 5)),
    )


def volume() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv3d(1, 10, 3, padding=1), nn.BatchNorm3d(10), nn.ReLU(), nn.MaxPool3d(2)),
        *(nn.Conv3d(10, 16, (3, 3, 1), padding=(1, 1, 0)), nn.SyncBatchNorm(16), nn.ReLU()),
        *(nn.Conv3d(16, 12, 2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(12, 4)),
    )


def autoencoder1d() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv1d(2, 12, 4, stride=2, padding=1), nn.ReLU(), nn.Conv1d(12, 16, 4, stride=2)),
        *(nn.ReLU(), nn.ConvTranspose1d(16, 12, 4, stride=2), nn.BatchNorm1d(12), nn.ReLU()),
        nn.ConvTranspose1d(12, 2, 4, stride=2, padding=1),
    )


def autoencoder3d() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv3d(1, 10, 2, stride=2), nn.ReLU(), nn.Conv3d(10, 16, 2, stride=2), nn.ReLU()),
        *(nn.ConvTranspose3d(16, 10, 2, stride=2, bias=False), nn.BatchNorm3d(10), nn.ReLU()),
        nn.ConvTranspose3d(10, 1, 3, stride=2, padding=1, output_padding=1),
    )


def grouped() -> nn.Sequential:
    """A transposed convolution in four groups of two inputs and three outputs."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()),
        *(nn.ConvTranspose2d(8, 12, 4, stride=2, padding=1, groups=4), nn.ReLU()),
        *(nn.Conv2d(12, 10, 3, padding=1), nn.ReLU(), nn.Conv2d(10, 2, 1)),
    )


def depthwise() -> nn.Sequential:
    """A transposed convolution of each channel alone, and one with two outputs for each."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1, groups=8), nn.BatchNorm2d(8)),
        *(nn.ConvTranspose2d(8, 16, 3, padding=1, groups=8), nn.ReLU(), nn.Conv2d(16, 2, 1)),
    )


def signals(num: int, channels: int, *size: int) -> Tensor:
    """Sums of a few smooth waves and a little noise (num, channels, *size)."""
    grid = torch.stack(torch.meshgrid(*(torch.linspace(0, 1, n) for n in size), indexing="ij"))
    frequency = 6 * torch.randn(num, channels, 4, len(size))
    phase = 6.3 * torch.rand(num, channels, 4, *[1] * len(size))
    waves = torch.sin(torch.tensordot(frequency, grid, 1) + phase).sum(2)
    return waves + 0.1 * torch.randn(num, channels, *size)
