"""Norms over channels that a network writes out by itself, known by what they compute.

Many networks have an RMS norm, a layer norm over the channels of maps or a global response norm as
a class of their own. Followed step by step such a class works over all units at once. It is known
on random values: its channels can be permuted with its parameters, it does not depend on the scale
of what it receives (or is proportional to it), and what it gives in one channel depends on others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from secateurs.prune.coupling.custom_layers import PassThrough, rule_of

SHAPES = ((3, -1), (4, 1), (2, -1), (4, -1), (3, 1))  # axes of the input, and that of the channels
KNOWN = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)  # also classes made from them
PLACES = 3  # along every other axis
TOLERANCE = 2e-5  # of the largest value: norms work in float32 and add something small
SCALE = 8.0


def known_rule(module: nn.Module) -> PassThrough | None:
    """How units pass through a module: as was registered for its type, or as through a norm."""
    return rule_of(module) or own_norm(module)


def own_norm(module: nn.Module) -> PassThrough | None:
    """How units pass through a module that is a norm of its own; None for every other module.

    It has no modules within, and no parameters and buffers but such as have a value per channel.

    >>> class Rms(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.weight = nn.Parameter(torch.ones(6))
    ...     def forward(self, x):
    ...         return x * x.square().mean(-1, keepdim=True).rsqrt() * self.weight
    >>> own_norm(Rms()).axis, own_norm(nn.LayerNorm(6))
    (-1, None)
    """
    kind = type(module)
    if kind.__module__.startswith("torch.") or isinstance(module, KNOWN) or [*module.children()]:
        return None
    tensors = dict((*module.named_parameters(), *module.named_buffers()))
    width = max((tensor.numel() for tensor in tensors.values()), default=0)
    if width < 2 or not all(
        tensor.is_floating_point() and tensor.numel() == width == max(tensor.shape)
        for tensor in tensors.values()
    ):
        return None
    with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
        try:
            axis = _norm_axis(module, width)
        except Exception:  # it takes something else, or does something else: it is no norm
            return None
    if axis is None:
        return None
    along = {name: tensor.shape.index(width) for name, tensor in tensors.items()}
    return PassThrough(axis=axis, tensors=along, norm=True)


def _norm_axis(module: nn.Module, width: int) -> int | None:
    """The axis of the channels that a module norms, counted as in `PassThrough`."""
    generator = torch.Generator().manual_seed(0)
    tried = with_values(module, lambda shape: torch.rand(shape, generator=generator) + 0.5)
    for depth, axis in SHAPES:
        shape = [2, *[PLACES] * (depth - 1)]
        shape[axis] = width
        x = torch.randn(shape, generator=generator, dtype=torch.float64) * SCALE
        try:
            found = tried(x)
        except Exception:  # made for tensors of other shapes
            continue
        if isinstance(found, Tensor) and found.shape == x.shape and _is_norm(tried, x, axis):
            return axis
    return None


def _is_norm(module: nn.Module, x: Tensor, axis: int) -> bool:
    width = x.shape[axis]
    order = torch.arange(width).roll(1).flip(0)
    places = {id(tensor): tensor.shape.index(width) for tensor in _own(module)}
    permuted = copy.deepcopy(module)
    for tensor, before in zip(_own(permuted), _own(module), strict=True):
        tensor.copy_(before.index_select(places[id(before)], order))
    found, at_zero = module(x), module(torch.zeros_like(x))
    if not _same(permuted(x.index_select(axis, order)), found.index_select(axis, order)):
        return False
    larger = module(SCALE * x)
    if not _same(larger, found) and not _same(larger - at_zero, SCALE * (found - at_zero)):
        return False
    other = x.clone()
    other.select(axis, 0).mul_(2)
    rest = torch.arange(1, width)
    return not _same(module(other).index_select(axis, rest), found.index_select(axis, rest))


def bare_copy(module: nn.Module, memo: dict[int, object] | None = None) -> nn.Module:
    """A copy of a module that runs its class's `forward` and no hooks."""
    result = copy.deepcopy(module, memo or {})
    result._forward_hooks.clear()  # pyright: ignore[reportPrivateUsage]
    result._forward_pre_hooks.clear()  # pyright: ignore[reportPrivateUsage]
    if type(module).forward is not nn.Module.forward:  # or it has one for each object alone
        vars(result).pop("forward", None)
    return result


def _own(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def with_values(module: nn.Module, values: Callable[[torch.Size], Tensor] | None) -> nn.Module:
    """A copy in evaluation, in float64 with other values in its tensors where these are given."""
    if values is None:
        return bare_copy(module).eval()
    made = {id(tensor): tensor for tensor in _own(module)}
    memo: dict[int, object] = {}
    for key, tensor in made.items():
        value = values(tensor.shape).double()
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[key] = nn.Parameter(value, requires_grad=False) if is_parameter else value
    return bare_copy(module, memo).eval()


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two results are alike but for what keeps a norm from dividing by zero."""
    return float((one - other).abs().max()) <= TOLERANCE * float(other.abs().max())
