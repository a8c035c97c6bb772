from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateurs.nets.backbones import build

NAME = "squeezenet1_1"


@pytest.fixture
def model() -> nn.Module:
    return build(NAME, 4)


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    torch.manual_seed(9)
    return build(NAME, 1000).state_dict()
