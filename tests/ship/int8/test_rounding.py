from __future__ import annotations

import pytest
import torch
from torch import Tensor

from secateurs.ship.int8.rounding import channel_scales, nearest, round_weights


def correlated(groups: int, inputs: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(groups, inputs, inputs, generator=generator, dtype=torch.float64)
    return mix @ mix.transpose(1, 2) / inputs + 0.05 * torch.eye(inputs, dtype=torch.float64)


def some_weight(groups: int, channels: int, inputs: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(groups, channels, inputs, generator=generator, dtype=torch.float64)


def output_error(weight: Tensor, integers: Tensor, scale: Tensor, moments: Tensor) -> Tensor:
    away = integers * scale - weight
    return torch.einsum("gci,gij,gcj->gc", away, moments, away)


def one_by_one(weight: Tensor, moments: Tensor, scale: Tensor) -> Tensor:
    """Optimal brain surgeon with a matrix inverted anew for every input, as a plain loop."""
    found = torch.zeros_like(weight)
    for g in range(len(weight)):
        order = torch.argsort(torch.diagonal(moments, dim1=1, dim2=2).mean(0), descending=True)
        left = weight[g].clone()
        for place, k in enumerate(order.tolist()):
            rest = order[place:]
            inverse = torch.linalg.inv(moments[g][rest][:, rest])
            found[g, :, k] = nearest(left[:, k], scale[g, :, 0])
            error = left[:, k] - found[g, :, k] * scale[g, :, 0]
            left[:, rest] -= error[:, None] * inverse[0] / inverse[0, 0]
    return found


@pytest.mark.parametrize(("groups", "channels", "inputs"), [(1, 3, 7), (4, 1, 9), (1, 2, 150)])
def test_rounding_is_that_of_a_plain_loop(groups: int, channels: int, inputs: int) -> None:
    weight, moments = some_weight(groups, channels, inputs), correlated(groups, inputs)
    scale = weight.abs().amax(2, keepdim=True) / 127
    found = round_weights(weight, moments, scale)
    assert torch.equal(found, one_by_one(weight, moments, scale))
    assert found.abs().max() <= 127 and torch.equal(found, found.round())


def test_rounding_changes_the_outputs_less_than_the_nearest_integers() -> None:
    weight, moments = some_weight(1, 20, 40), correlated(1, 40)
    scale = weight.abs().amax(2, keepdim=True) / 15
    chosen = output_error(weight, round_weights(weight, moments, scale), scale, moments)
    plain = output_error(weight, nearest(weight, scale), scale, moments)
    assert chosen.sum() < 0.6 * plain.sum() and (chosen < plain).all()


def test_independent_inputs_round_to_the_nearest() -> None:
    weight = some_weight(1, 3, 6)
    scale = weight.abs().amax(2, keepdim=True) / 127
    strengths = torch.diag(torch.arange(1.0, 7, dtype=torch.float64))[None]
    assert torch.equal(round_weights(weight, strengths, scale), nearest(weight, scale))


def test_the_scale_is_the_best_of_all_that_are_tried() -> None:
    weight, strengths = some_weight(2, 3, 30), torch.rand(2, 30, dtype=torch.float64) + 0.1
    weight[0, 0, 0] = 12.0  # alone far out: worth clipping when its input is weak
    strengths[0, 0] = 1e-6
    scale = channel_scales(weight, strengths)
    largest = weight.abs().amax(2, keepdim=True) / 127
    moments = torch.diag_embed(strengths)
    best = output_error(weight, nearest(weight, scale), scale, moments)
    for shrink in range(13):
        tried = largest * (1 - 0.04 * shrink)
        error = output_error(weight, nearest(weight, tried), tried, moments)
        assert (best <= error * (1 + 1e-9)).all()
    assert scale[0, 0] < 0.6 * largest[0, 0]


def test_a_channel_of_zeros_has_a_scale() -> None:
    scale = channel_scales(torch.zeros(1, 1, 3), torch.ones(1, 3))
    assert float(scale) > 0 and torch.equal(nearest(torch.zeros(3), scale), torch.zeros(1, 1, 3))
