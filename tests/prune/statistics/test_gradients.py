from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from secateurs.errors import InputError
from secateurs.prune.layer import PruneOptions, prune_layer
from secateurs.prune.statistics.gradients import loss_gradients


def network():
    torch.manual_seed(0)
    layers = [nn.Linear(4, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 3)]
    return nn.Sequential(*layers).double().train()


INPUTS = torch.rand(10, 4, generator=torch.Generator().manual_seed(0)).double()
LABELS = torch.arange(10) % 3


def test_against_finite_differences():
    model = network()
    found = loss_gradients(model, model, model[3], INPUTS.split(4), LABELS)
    model.eval()
    hidden = model[1](model[0](INPUTS)).detach()
    step = 1e-6
    for unit in range(6):
        moved = torch.zeros(6).double()
        moved[unit] = step
        high = cross_entropy(model[3](hidden + moved), LABELS, reduction="none")
        low = cross_entropy(model[3](hidden - moved), LABELS, reduction="none")
        expected = ((high - low) / (2 * step)).detach().float()
        torch.testing.assert_close(found[:, unit], expected, atol=1e-5, rtol=1e-4)


def test_nothing_is_left_behind():
    model = network()
    loss_gradients(model, model, model[3], [INPUTS], LABELS)
    assert all(p.grad is None for p in model.parameters())
    assert all(m.training for m in model.modules()) and not model[3]._forward_pre_hooks
    with pytest.raises(InputError, match=r"labels: expected \(10,\), got \(9,\)"):
        loss_gradients(model, model, model[3], [INPUTS], LABELS[:9])


def test_taylor_keeps_the_units_that_the_loss_feels():
    model = network().float()
    inputs = INPUTS.float()
    with torch.no_grad():
        model[0].bias += 1
        model[3].weight[:, [1, 4]] *= 1e-6
    options = PruneOptions(rule="taylor", keep=4)
    cut = prune_layer(model, "0", inputs, options=options, labels=LABELS)
    assert cut.selection.survivors.tolist() == [0, 2, 3, 5]
    with pytest.raises(InputError, match="rule taylor needs labels"):
        prune_layer(model, "0", inputs, options=options)
