"""Settings of PyTorch that are the caller's: put aside while a model is pruned, back after it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
from torch import nn

P = ParamSpec("P")
R = TypeVar("R")
PLAIN_TYPE, PLAIN_DEVICE = torch.float32, torch.device("cpu")


@dataclass(frozen=True)
class Settings:
    """The default type and device of new tensors, under which the caller's functions run."""

    dtype: torch.dtype
    device: torch.device

    @classmethod
    def now(cls) -> Settings:
        """Those of the caller."""
        return cls(torch.get_default_dtype(), torch.get_default_device())

    @contextmanager
    def put_aside(self, model: nn.Module) -> Generator[None]:
        """Meanwhile the usual settings hold, gradients are allowed and random numbers are others.

        >>> with torch.no_grad(), Settings.now().put_aside(nn.Linear(2, 2)):
        ...     print(torch.is_grad_enabled())
        True
        """
        cards = {p.device for p in model.parameters() if p.device.type == "cuda"}
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=list(cards)))
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for kind in {"cpu", *(card.type for card in cards)}:
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            stack.enter_context(_defaults(PLAIN_TYPE, PLAIN_DEVICE))
            yield

    def within(self, function: Callable[P, R]) -> Callable[P, R]:
        """The same function, run under the caller's settings."""
        if (self.dtype, self.device) == (PLAIN_TYPE, PLAIN_DEVICE):
            return function

        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with _defaults(self.dtype, self.device):
                return function(*args, **kwargs)

        return run


@contextmanager
def _defaults(dtype: torch.dtype, device: torch.device) -> Generator[None]:
    before = torch.get_default_dtype()
    with ExitStack() as stack:
        if torch.get_default_device() != device:
            stack.enter_context(device)  # which slows every call, so not always
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
