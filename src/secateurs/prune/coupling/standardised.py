"""Layers that standardise their weights, known by what they compute with: checked by a fit.

Networks without batch norm subtract the mean from the weights of each output and divide them by
their deviation, in a class or a parametrization of their own. It is known on random values: each
row of the weight that the layer multiplies with is an affine function of the same row of a
parameter, also with fewer inputs, and does not depend on other rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from secateurs.nets.layers import CONVOLUTIONS, channel_axis, groups_of, inputs_of
from secateurs.prune.coupling.own_norms import with_values

TOLERANCE = 1e-9  # of the largest weight
PRODUCTS = ("linear", "conv1d", "conv2d", "conv3d")
KNOWN = (nn.Linear, *CONVOLUTIONS)


def standardised_weights(model: nn.Module) -> dict[int, str]:
    """The parameters that layers standardise, by identity, with the layers' paths."""
    found: dict[int, str] = {}
    for path, module in model.named_modules():
        name = standardised_weight(module)
        if name is not None:
            found[id(module.get_parameter(name))] = path
    return found


def standardised_weight(module: nn.Module) -> str | None:
    """The name of the parameter that a layer standardises over its inputs; None for others.

    >>> class Standardised(nn.Linear):
    ...     def forward(self, x):
    ...         weight = self.weight - self.weight.mean(1, keepdim=True)
    ...         return nn.functional.linear(x, weight, self.bias)
    >>> standardised_weight(Standardised(6, 4)), standardised_weight(nn.Linear(6, 4))
    ('weight', None)
    """
    if not isinstance(module, KNOWN) or groups_of(module) > 1 or inputs_of(module) < 4:
        return None
    if not parametrize.is_parametrized(module, "weight") and _is_plain(module):
        return None
    with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
        try:
            return _fitted(module)
        except Exception:  # it needs something else, or does something else
            return None


def _is_plain(module: nn.Module) -> bool:
    kind = type(module)
    return kind.forward in (known.forward for known in KNOWN) and "weight" in module._parameters  # pyright: ignore[reportPrivateUsage]


def _fitted(module: nn.Module) -> str | None:
    generator = torch.Generator().manual_seed(0)
    tried = with_values(module, lambda shape: torch.randn(shape, generator=generator) + 0.5)
    used = _used(tried)
    for name, parameter in tried.named_parameters():
        if parameter.shape != used.shape or not _is_affine(parameter, used):
            continue
        few = narrowed(tried, name, torch.arange(inputs_of(module) // 2 + 1))
        if not _is_affine(few.get_parameter(name), _used(few)):
            continue
        parameter[0] *= torch.linspace(1, 2, parameter[0].numel()).view_as(parameter[0])
        if torch.allclose(_used(tried)[1:], used[1:], rtol=0, atol=TOLERANCE):
            return name
    return None


def narrowed(module: nn.Module, name: str, stays: Tensor) -> nn.Module:
    """A copy of a layer that reads only some inputs, `name` being its weight.

    >>> narrowed(nn.Linear(6, 4), "weight", torch.tensor([1, 3])).weight.shape
    torch.Size([4, 2])
    """
    small = with_values(module, None)
    owner = small.get_submodule(name.rpartition(".")[0])
    weight = small.get_parameter(name).detach()
    left = weight.index_select(1, stays.to(weight.device))
    setattr(owner, name.rpartition(".")[2], nn.Parameter(left, requires_grad=False))
    setattr(small, "in_features" if isinstance(small, nn.Linear) else "in_channels", len(stays))
    return small


def _is_affine(weight: Tensor, used: Tensor) -> bool:
    """Whether each row of a weight is an affine function of the same row of another one."""
    for row, other in zip(weight.flatten(1), used.flatten(1), strict=True):
        columns = torch.stack([row, torch.ones_like(row)], 1)
        fit = columns @ torch.linalg.lstsq(columns, other).solution
        if float((fit - other).abs().max()) > TOLERANCE * max(float(other.abs().max()), 1e-30):
            return False
    return True


def _used(module: nn.Module) -> Tensor:
    """The weight that a layer multiplies with."""
    weight = next(p for p in module.parameters() if p.ndim > 1)
    kernel = [1 if isinstance(module, nn.Linear) else 16] * (-channel_axis(module) - 1)
    with _Watching() as watching:
        module(torch.zeros((1, inputs_of(module), *kernel), dtype=weight.dtype))
    assert watching.weight is not None
    return watching.weight.detach().clone()


class _Watching(TorchFunctionMode):
    """Keeps the weight of the last product."""

    weight: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in PRODUCTS:
            self.weight = args[1] if len(args) > 1 else kwargs["weight"]
        return func(*args, **kwargs)
