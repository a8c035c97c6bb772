"""Large networks with random values, made in a moment: their own initialisation takes seconds."""

from __future__ import annotations

import torch
from torch import nn

from secateurs.nets.backbones import build


def with_random_values(name: str, num_classes: int) -> nn.Module:
    """A backbone without batch norms in eval mode, its parameters uniform in -0.05..0.05."""
    with torch.device("meta"):
        model = build(name, num_classes).eval()
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.05, 0.05)
    assert not list(model.buffers())
    return model
