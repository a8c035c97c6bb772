from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.prune.allocation.importance import gradients, importance

Pair = tuple[Tensor, Tensor]


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 1), nn.Flatten(), nn.Linear(12, 5)
    )


def run(model: nn.Module, batch: Pair) -> object:
    return model(batch[0])


def cross_entropy(model: nn.Module, batch: Pair) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def summed(model: nn.Module, batch: Pair) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")


@pytest.mark.parametrize("loss", [cross_entropy, summed])
def test_a_loss_weighs_by_its_squared_derivative_for_each_sample(loss: Any):
    torch.manual_seed(0)
    model, x, y = network(), torch.randn(6, 2, 4, 4), torch.randint(0, 5, (6,))
    found = importance(model, ["0", "2"], [(x[:4], y[:4]), (x[4:], y[4:])], run=run, loss=loss).each
    expected = {"0": torch.zeros(4), "2": torch.zeros(3)}
    for one in range(6):
        first = model[0](x[one : one + 1])
        second = model[2](model[1](first))
        value = nn.functional.cross_entropy(model[4](second.flatten(1)), y[one : one + 1])
        for path, part in zip("02", torch.autograd.grad(value, [first, second]), strict=True):
            expected[path] += part.square().sum((0, 2, 3)) / 6
    for path, weights in expected.items():
        torch.testing.assert_close(found[path], weights)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda m, b: m(b[0]), r"loss: expected a scalar tensor, got \(1, 5\)"),
        (lambda m, b: 1.0, "loss: expected a scalar tensor, got float"),
        (lambda m, b: b[0].detach().sum(), "loss: it does not depend on the network's layers"),
        (lambda m, b: torch.tensor(1.0), "loss: it does not depend on the network's layers"),
        (lambda m, b: m(b[0]).sum() * float("nan"), "loss: nan for a sample"),
        (lambda m, b: m(b[0])["loss"], "loss: it failed on a sample"),
    ],
)
def test_what_is_no_loss_is_one_clear_line(loss: Any, message: str):
    batch = torch.randn(3, 2, 4, 4), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(InputError, match=message) as caught:
        importance(network(), ["0"], [batch], run=run, loss=loss)
    assert "\n" not in str(caught.value)


def test_an_error_that_is_the_same_everywhere_counts_by_the_summed_derivative():
    torch.manual_seed(0)
    model, x = network(), torch.randn(6, 2, 4, 4)
    found = importance(model, ["0"], [x], seed=3)
    signs = torch.randint(0, 2, (6, 5), generator=torch.Generator().manual_seed(3)) * 2.0 - 1
    alone = same = 0.0
    for one in range(6):
        maps = model[0](x[one : one + 1]).detach().requires_grad_(True)
        answers = model[1:](maps)
        gradient = torch.autograd.grad((answers * signs[one]).sum(), maps)[0][0].flatten(1)
        alone += float(gradient.square().sum())
        same += float(gradient.sum(1).square().sum())
    assert found.together["0"] == pytest.approx(max(1.0, same / alone), rel=1e-4)


class Overwriting(nn.Module):
    """Half of its channels go through a layer, in place, and the weights are rounded."""

    def __init__(self, quantised: bool) -> None:
        super().__init__()
        self.quantised = quantised
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(4, 4), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).tanh()
        weight = self.b.weight
        if self.quantised:  # PyTorch wants scales without gradients
            scale = weight.detach().abs().amax(1)
            zero = torch.zeros(4, dtype=torch.int32)
            weight = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)
            x = torch.cat([nn.functional.linear(x[:, :4], weight), x[:, 4:]], 1)
        else:
            x[:, :4] = self.b(x[:, :4])
        return self.c(x)


class Apart(Overwriting):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).tanh()
        return self.c(torch.cat([self.b(x[:, :4]), x[:, 4:]], 1))


def test_a_network_that_writes_into_what_it_needs_later_is_differentiated_all_the_same():
    torch.manual_seed(0)
    model, x = Overwriting(quantised=False), torch.randn(20, 4)
    apart = Apart(quantised=False)
    apart.load_state_dict(model.state_dict())
    found, expected = (importance(one, ["a", "b", "c"], [x[:9], x[9:]]) for one in (model, apart))
    for path in ("a", "b", "c"):
        torch.testing.assert_close(found.each[path], expected.each[path])
        assert found.together[path] == pytest.approx(expected.together[path])


def test_derivatives_of_weights_whose_scales_take_none():
    torch.manual_seed(0)
    model, x = Overwriting(quantised=True), torch.randn(6, 4)
    (found,) = gradients(model, [x], [model.b.weight, model.a.weight], run=lambda m, b: m(b))
    assert all(part is not None and bool(part.abs().sum() > 0) for part in found)
