from __future__ import annotations

import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.prune.activations import collect


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(6, 3))


X = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))


def test_before_and_after_the_non_linearity_despite_working_in_place():
    model = network()
    raw = X @ model[0].weight.T + model[0].bias
    torch.testing.assert_close(collect(model, model[0], X.split(3)), raw.detach())
    after = collect(model, model[0], X.split(3), after=torch.relu)
    torch.testing.assert_close(after, raw.detach().relu())
    assert not after.requires_grad and after.dtype == torch.float32


def test_dropout_is_off_and_modes_come_back():
    model = network().train()
    model[2].p = 0.9
    model[1].eval()
    outputs = collect(model, model[3], [X])
    again = collect(model, model[3], [X])
    assert torch.equal(outputs, again)
    assert [module.training for module in model] == [True, False, True, True]


def test_hooks_and_modes_come_back_after_an_error():
    model = network().train()

    def fail(batch):
        model(batch)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        collect(fail, model[0], [X], model=model)
    assert model.training and model[2].training
    assert len(model[0]._forward_hooks) == 0


def test_bad_input():
    model = network()
    with pytest.raises(InputError, match="no batch"):
        collect(model, model[0], [])
    with pytest.raises(InputError, match="it ran 0 times"):
        collect(model, nn.Linear(2, 2), [X])
    convolution = nn.Conv2d(3, 2, 1)
    with pytest.raises(InputError, match=r"got shape \(5, 2, 4, 4\)"):
        collect(convolution, convolution, [torch.ones(5, 3, 4, 4)])
