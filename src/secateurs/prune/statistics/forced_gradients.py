"""Gradients through what a network does not want to have any."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# What a network reads plain numbers with: it warns of a history, or refuses it.
PLAIN = (Tensor.__float__, Tensor.__int__, Tensor.numpy, Tensor.__array__)


class KeptHistory(TorchFunctionMode):
    """A network keeps the history of what it computes, also under `torch.no_grad` and `detach`.

    An encoder that is not trained any more runs without gradients; how far the answers move with
    its units is asked for nevertheless.

    >>> x = torch.ones(2, requires_grad=True)
    >>> with KeptHistory(), torch.no_grad():
    ...     y = 2 * x.detach()
    >>> y.requires_grad
    True
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") == "_set_grad_enabled":
            return None
        if func in (Tensor.detach, torch.detach):
            return args[0]
        if func in PLAIN:
            return func(args[0].detach())
        return func(*args, **(kwargs or {}))
