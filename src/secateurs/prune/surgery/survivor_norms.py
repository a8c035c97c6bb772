"""Norms over the channels that stay: what a narrower norm is compared with.

A norm over all channels of a layer gives other statistics when some of them are gone. With units
zeroed it has to compute them over the survivors too, or nothing could be compared.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def over_survivors(module: nn.Module, gone: Tensor, weight: Tensor | None = None) -> None:
    """Let a norm work over the channels that are not `gone`, which come out as zeros.

    With a `weight` these are the norms that `module` computes by a function with this parameter.
    Sets `forward` on the module itself; delete that attribute to undo it.
    """
    forward = module.forward

    def narrowed(*args: Any, **kwargs: Any) -> Any:
        with _Survivors(gone, weight):
            return forward(*args, **kwargs)

    module.forward = narrowed


class _Survivors(TorchFunctionMode):
    """Layer, RMS and group norms (one group) over some channels only."""

    def __init__(self, gone: Tensor, weight: Tensor | None) -> None:
        super().__init__()
        self.gone, self.weight = gone, weight

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.weight is not None and not any(
            value is self.weight for value in (*args, *kwargs.values())
        ):
            return func(*args, **kwargs)
        if func in (F.layer_norm, F.rms_norm, torch.layer_norm, torch.rms_norm):
            return self._narrowed(func, -len(args[1]), args[0], args[1], args[2:], kwargs)
        if func in (F.group_norm, torch.group_norm):
            return self._narrowed(func, 1, args[0], args[1], args[2:], kwargs)
        return func(*args, **kwargs)

    def _narrowed(
        self, func: Any, axis: int, x: Tensor, size: Any, rest: Any, kwargs: dict[str, Any]
    ) -> Tensor:
        stays = torch.ones(x.shape[axis], dtype=torch.bool)
        stays[self.gone] = False
        stays = stays.nonzero().flatten().to(x.device)

        def cut(value: Any) -> Any:
            return value[stays] if isinstance(value, Tensor) else value

        size = size if axis == 1 else [len(stays), *size[1:]]
        small = x.index_select(axis, stays)
        found = func(
            small, size, *map(cut, rest), **{name: cut(value) for name, value in kwargs.items()}
        )
        return torch.zeros_like(x).index_copy(axis, stays, found)
