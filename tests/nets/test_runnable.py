"""A network without values where that runs, with values where its way depends on them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.batches import forward
from secateurs.nets.counting import macs
from secateurs.nets.runnable import runnable


class Branch(nn.Module):
    """One layer more for samples with a positive mean; works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x.add_(1)
        return self.b(self.a(x)) if x.mean() > 1 else self.a(x)


def test_values_are_used_where_they_decide():
    model, x = Branch(), torch.ones(2, 3)
    network, sample = runnable(model, x, forward)
    assert network is not model and not network.a.weight.is_meta
    assert torch.equal(sample, torch.ones(1, 3)) and torch.equal(x, torch.ones(2, 3))
    assert macs(model, x) == 12 + 16
    assert macs(model, -x) == 12


def test_a_network_that_does_not_run_is_told_with_its_own_words():
    with pytest.raises(InputError, match=r"sample of \(1, 4\) \(RuntimeError: .*shapes"):
        runnable(nn.Linear(3, 2), torch.ones(2, 4), forward)
    with pytest.raises(InputError, match=r"\(1, 4\) without values"):
        runnable(nn.Linear(3, 2), torch.ones(2, 4, device="meta"), forward)
