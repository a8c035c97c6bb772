"""Units that no layer reads: what losing them costs, against finite differences."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from secateurs.prune.allocation.first_order import first_order
from secateurs.prune.coupling.groups import find_groups


class Match(nn.Module):
    """The product of what two layers make of a sample, and a bias of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(5, 6), nn.Linear(5, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.query(x)[:, None] @ self.key(x)[..., None]


def test_the_loss_is_the_squared_first_order_change():
    torch.manual_seed(0)
    model, x = Match().double(), torch.randn(9, 5, dtype=torch.float64)
    groups = find_groups(model, x).found
    (group,) = groups
    assert (group.num_units, group.at_source, group.side("in")) == (6, True, group.side("in"))
    found = first_order(model, groups, [x[:4], x[4:]])[group.name]

    step = 1e-6
    losses = torch.zeros(6, dtype=torch.float64)
    for unit in range(6):
        less = copy.deepcopy(model)
        with torch.no_grad():
            for layer in (less.query, less.key):
                for parameter in layer.parameters():
                    parameter[unit] *= 1 - step
            change = (less(x) - model(x)).flatten() / step
        losses[unit] = change.square().mean()
    order = losses.argsort()
    assert torch.equal(found.order, order)
    torch.testing.assert_close(found.loss, losses[order].cumsum(0)[:-1], rtol=1e-5, atol=0)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_loss_of_the_user_s_own_decides():
    torch.manual_seed(0)
    model, x = Match(), torch.randn(8, 5)
    groups = find_groups(model, x).found
    plain = first_order(model, groups, [x])["query"]
    half = first_order(model, groups, [x], loss=lambda net, part: net(part).sum() * 0.5)["query"]
    assert torch.equal(plain.order, half.order)
    torch.testing.assert_close(half.loss, plain.loss / 4)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_units_that_a_recurrent_layer_reads_have_a_loss(kind: type[nn.RNNBase]):
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.rnn = nn.Linear(5, 6), kind(6, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(self.a(x))[0][:, -1]

    torch.manual_seed(0)
    model, x = Reads(), torch.randn(8, 3, 5)
    with torch.no_grad():
        model.a.weight[2] = 0  # a unit that is dead
        model.a.bias[2] = 0
    groups = [group for group in find_groups(model, x).found if group.name == "a"]
    found = first_order(model, groups, [x])["a"]
    assert found.order[0] == 2 and found.loss[0] == 0 and found.loss[1] > 0


def test_weights_that_two_layers_share_count_once():
    class Shared(nn.Module):
        """The product of one weight's units with themselves."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(5, 6, bias=False), nn.Linear(5, 6, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x)[:, None] @ self.two(x)[..., None]

    torch.manual_seed(0)
    model, x = Shared(), torch.randn(8, 5)
    (group,) = find_groups(model, x).found
    found = first_order(model, [group], [x])[group.name]
    with torch.no_grad():  # the derivative of the sum of squares y to each row, times the row
        losses = (2 * model.one(x).square()).square().mean(0).double()
    order = losses.argsort()
    assert torch.equal(found.order, order)
    torch.testing.assert_close(found.loss, losses[order].cumsum(0)[:-1], rtol=1e-4, atol=1e-6)
