from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from secateurs.nets.layers import LAYERS
from secateurs.prune.statistics.rows import mean_rows, rows_of


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(3, 2), (5, 4, 3)),
        (nn.Linear(3, 2), (5, 3)),
        (nn.Conv1d(3, 2, 4, stride=3, padding=2), (5, 3, 11)),
        (nn.Conv2d(3, 2, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (5, 3, 7, 6)),
        (nn.Conv2d(3, 2, 3, padding="same", padding_mode="reflect"), (5, 3, 6, 5)),
        (nn.Conv3d(3, 2, 2), (5, 3, 3, 4, 3)),
    ],
)
def test_the_mean_of_all_rows_is_found_without_them(layer: nn.Module, shape: tuple[int, ...]):
    assert isinstance(layer, LAYERS)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    output: Any = layer(x)
    places = output[0].numel() // 2
    every = rows_of(layer, x, output, torch.arange(places).expand(5, -1))
    found = mean_rows(layer, x, output)
    assert found is not None
    torch.testing.assert_close(found, every.unflatten(0, (places, 5)).mean(0))
