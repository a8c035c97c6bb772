"""Means over channels in norms that modules write out, which the reference replaces."""

from __future__ import annotations

from torch import Tensor


def channel_mean(x: Tensor, axis: int) -> Tensor:
    """The mean over an axis, which stays."""
    return x.mean(axis, keepdim=True)


def centred(x: Tensor, axis: int) -> Tensor:
    """What is left without the mean over an axis."""
    return x - x.mean(axis, keepdim=True)


def input_mean(weight: Tensor) -> Tensor:
    """The mean of the weights of each output over all that it reads."""
    return weight.mean(tuple(range(1, weight.ndim)), keepdim=True)


def input_centred(weight: Tensor) -> Tensor:
    """Weights without the mean of those of the same output."""
    return weight - input_mean(weight)
