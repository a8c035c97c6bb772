from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from secateurs.prune.reconstruction.tuning import Problem, tune
from secateurs.stopping import StopFlag, StopRequested


def problem(layer: nn.Linear, noise: float = 0.0) -> tuple[Problem, torch.Tensor, torch.Tensor]:
    """Eight parts of samples of a linear layer; the last two are left out."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(160, 4, generator=generator)
    y = x @ torch.randn(4, 3, generator=generator) + 1
    y = y + noise * torch.randn(160, 3, generator=generator)
    parts, targets = x.split(20), y.split(20)
    held = {part: [target] for part, target in enumerate(targets)}
    train = [[0, 1], [2], [3], [4], [5]]
    return Problem([*layer.parameters()], lambda k: [layer(parts[k])], held, train, [6, 7]), x, y


def test_it_goes_to_the_least_squares_solution():
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    given, x, y = problem(layer, noise=0.1)
    seen = replace(given, left_out=range(6))  # the same samples decide
    found = tune(seen, steps=400, rate=0.5)
    ones = torch.cat([x[:120], torch.ones(120, 1)], 1)
    exact = torch.linalg.lstsq(ones, y[:120]).solution
    torch.testing.assert_close(layer.weight.T, exact[:4], rtol=0, atol=0.05)
    torch.testing.assert_close(layer.bias, exact[4], rtol=0, atol=0.05)
    assert found.after < 0.02 * found.before
    # The errors are what a plain formula gives.
    left = (layer(x[:120]) - y[:120]).square().sum() / (y[:120] - y[:120].mean()).square().sum()
    assert found.after == pytest.approx(left.item(), rel=1e-4)


def test_it_is_never_worse_than_before_on_the_samples_left_out():
    layer = nn.Linear(4, 3)
    given, x, _ = problem(layer)
    wrong = {
        part: [values[0] if part > 5 else -values[0]] for part, values in given.targets.items()
    }
    with torch.no_grad():
        exact = torch.linalg.lstsq(
            torch.cat([x[120:], torch.ones(40, 1)], 1), torch.cat([wrong[6][0], wrong[7][0]])
        ).solution
        layer.weight.copy_(exact[:4].T)
        layer.bias.copy_(exact[4] + 0.1)
    before = [parameter.detach().clone() for parameter in layer.parameters()]
    found = tune(
        Problem(given.parameters, given.outputs, wrong, given.train, given.left_out),
        steps=50,
        rate=0.1,
    )
    assert found.after == found.before and found.steps == 50
    assert all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))


def test_the_same_seed_gives_the_same_values():
    values: list[torch.Tensor] = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        layer = nn.Linear(4, 3)
        tune(problem(layer, noise=0.5)[0], steps=7, rate=0.05, seed=seed)
        values.append(layer.weight.detach().clone())
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


def test_it_stops_between_two_steps():
    stop, taken = StopFlag(), []

    def advance(steps: int) -> None:
        taken.append(steps)
        stop.request()

    with pytest.raises(StopRequested):
        tune(problem(nn.Linear(4, 3))[0], steps=9, rate=0.1, stop=stop, advance=advance)
    assert taken == [1]
