from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateurs.prune.allocation.elimination import Elimination
from secateurs.prune.allocation.merge_costs import lowered, with_merging
from secateurs.prune.allocation.survey import Survey, survey
from secateurs.prune.coupling.groups import find_groups

SIZE, FEATURES, UNITS, KINDS = 4, 48, 64, 4


def network() -> nn.Sequential:
    """A hidden layer whose units are four directions, each with noise of its own."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(FEATURES, UNITS), nn.ReLU(), nn.Linear(UNITS, 3)
    ).eval()
    kinds = torch.randn(KINDS, FEATURES, generator=generator).repeat(UNITS // KINDS, 1)
    noise = torch.randn(UNITS, FEATURES, generator=generator)
    with torch.no_grad():
        model[1].weight.copy_(kinds + 0.1 * noise)
        model[1].bias.zero_()
        model[3].bias.zero_()
        model[3].weight.copy_(torch.randn(3, KINDS, generator=generator).repeat(1, UNITS // KINDS))
    return model


def images(count: int = 256) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(count, 3, SIZE, SIZE, generator=generator).split(64))


def looked_at(model: nn.Module, sizes: tuple[int, ...], **words: Any) -> tuple[Survey, Survey]:
    groups = find_groups(model, torch.empty(1, 3, SIZE, SIZE)).found
    seen = survey(model, groups, images())
    return seen, with_merging(model, groups, seen, images(), sizes=sizes, **words)


def test_units_that_only_differ_by_noise_cost_less_merged():
    seen, merged = looked_at(network(), (4, 8, 16))
    name = next(iter(seen.eliminations))
    for keep in (4, 8, 16):
        assert merged.eliminations[name].loss_of(keep) < 0.5 * seen.eliminations[name].loss_of(keep)
    assert torch.equal(merged.eliminations[name].order, seen.eliminations[name].order)


@pytest.mark.parametrize("opened", [False, True])
def test_the_loss_is_what_left_out_images_make_of_the_answers(opened: bool):
    model = network()
    if opened:
        model.extend([nn.Tanh(), nn.Linear(3, 2)])
        torch.nn.init.eye_(model[5].weight)
    steps = (lambda model: list(model.named_children())) if opened else (lambda model: [])
    seen, merged = looked_at(model, (4,), steps=steps)
    name = next(iter(seen.eliminations))
    # Units by kind, in plain NumPy, and the refit without a ridge, each image left out in turn.
    x = torch.cat(images()).flatten(1).double().numpy()
    weight = model[1].weight.detach().double().numpy()
    hidden = np.maximum(x @ weight.T, 0)
    target = hidden @ model[3].weight.detach().double().numpy().T
    means = np.stack([weight[kind::KINDS].mean(0) for kind in range(KINDS)])
    design = np.column_stack([np.maximum(x @ means.T, 0), np.ones(len(x))])
    hat = design @ np.linalg.pinv(design)
    away = (target - hat @ target) / (1 - np.diag(hat))[:, None]
    scale = seen.importance["3"].numpy()
    if opened:  # through all that follows, not by its derivative
        away, scale = (np.tanh(target - away) - np.tanh(target))[:, :2], 1.0
    # Targets are held in bfloat16.
    assert merged.eliminations[name].loss_of(4) == pytest.approx(
        float((away**2 * scale).sum() / len(x)), rel=0.03
    )


def test_a_loss_is_never_raised_and_never_falls_with_units_gone():
    generator = torch.Generator().manual_seed(2)
    loss = torch.rand(99, generator=generator, dtype=torch.float64).cumsum(0)
    one = Elimination(torch.arange(100), loss)
    new = lowered(one, {8: 9.0, 16: 12.0, 32: 1.0}).loss
    assert bool((new <= loss).all()) and bool((new.diff() >= 0).all())
    assert float(new[99 - 32]) == pytest.approx(1.0)
    assert float(new[99 - 8]) == pytest.approx(9.0)
    assert torch.equal(new[99 - 7 :], loss[99 - 7 :])  # fewer than were tried
    assert torch.equal(lowered(one, {}).loss, loss)
