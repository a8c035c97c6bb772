"""AlexNet with few channels and units, which runs in milliseconds; also for the tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision import models

CONVOLUTIONS = (6, 10, 12, 12, 8)
LINEAR = (40, 32)


def narrow_alexnet(name: str, *, weights: None, num_classes: int, **_: Any) -> nn.Module:
    """What torchvision's `get_model` gives for AlexNet, with other widths."""
    assert name == "alexnet" and weights is None
    with torch.device("meta"):
        model = models.AlexNet(num_classes)
    inputs, widths = 3, iter(CONVOLUTIONS)
    for place, step in enumerate(model.features):
        if isinstance(step, nn.Conv2d):
            width = next(widths)
            model.features[place] = nn.Conv2d(
                inputs, width, step.kernel_size, step.stride, step.padding
            )
            inputs = width
    shapes = ((36 * inputs, LINEAR[0]), LINEAR, (LINEAR[1], num_classes))
    for place, (given, found) in zip((1, 4, 6), shapes, strict=True):
        model.classifier[place] = nn.Linear(given, found)
    return model
