"""Weights rounded to int8 so that the layer's output changes least, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

MOST = 127  # symmetric: -128 is not used
_SHRINKS = tuple(1 - 0.04 * step for step in range(13))
_BLOCK = 128


def channel_scales(weight: Tensor, second_moments: Tensor) -> Tensor:
    """A scale for each output channel: of 13 the one with the least error of the output.

    `weight` (groups, channels, inputs), `second_moments` (groups, inputs) the mean squares of the
    inputs; returns (groups, channels, 1). A scale below the largest weight's clips it. Errors of
    the inputs are taken as independent, as for rounding to the nearest.
    """
    largest = weight.abs().amax(2, keepdim=True).clamp_min(1e-12) / MOST
    best, scales = torch.full_like(largest, torch.inf), largest
    for shrink in _SHRINKS:
        scale = largest * shrink
        error = (nearest(weight, scale) * scale - weight).square() * second_moments[:, None]
        total = error.sum(2, keepdim=True)
        scales = torch.where(total < best, scale, scales)
        best = torch.minimum(total, best)
    return scales


def nearest(weight: Tensor, scale: Tensor) -> Tensor:
    """Integers -127..127, each nearest to weight / scale.

    >>> nearest(torch.tensor([0.26, -9.0]), torch.tensor(0.1)).tolist()
    [3.0, -90.0]
    """
    return (weight / scale).round().clamp(-MOST, MOST)


def round_weights(weight: Tensor, moments: Tensor, scale: Tensor) -> Tensor:
    """Integers W for which the outputs scale W x are near those of `weight` x (GPTQ).

    `weight` (groups, channels, inputs), `moments` (groups, inputs, inputs) the positive definite
    second moments of x, `scale` (groups, channels, 1). Inputs are rounded one after the other, from
    the strongest, and the weights not yet rounded take up the error: optimal brain surgeon, as
    Frantar et al. (2023), GPTQ, order the work.
    """
    strengths = torch.diagonal(moments, dim1=1, dim2=2).mean(0)
    order = torch.argsort(strengths, descending=True)
    left = weight[:, :, order].clone()
    moments = moments[:, order][:, :, order]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    upper = torch.linalg.cholesky(inverse, upper=True)
    found = torch.empty_like(left)
    num_inputs = left.shape[2]
    for first in range(0, num_inputs, _BLOCK):
        last = min(num_inputs, first + _BLOCK)
        errors = torch.empty_like(left[:, :, first:last])
        for k in range(first, last):
            own = left[:, :, k : k + 1]
            found[:, :, k : k + 1] = nearest(own, scale)
            error = (own - found[:, :, k : k + 1] * scale) / upper[:, k : k + 1, k : k + 1]
            errors[:, :, k - first : k - first + 1] = error
            left[:, :, k + 1 : last] -= error * upper[:, k : k + 1, k + 1 : last]
        left[:, :, last:] -= errors @ upper[:, first:last, last:]
    return found[:, :, torch.argsort(order)]
