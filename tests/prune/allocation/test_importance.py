from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.prune.allocation.importance import importance

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
