"""A module of the zoo: how it is made, what it is called with, and what can be cut of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Callable[[int], Any]  # example inputs with so many samples


@dataclass(frozen=True)
class Entry:
    """One shape of network, with what follows for it from first principles.

    `groups` has by the path of a layer, or of a parameter, the number of units of a group that has
    to be offered and that this layer makes; a set holds the numbers that are right alike, as the
    groups of a group norm or the channels of each. Other groups may be offered too. `stays` has the
    layers whose outputs must not be offered, and why. Where `norm_width` is true, a norm works over
    the units: then removed is compared with the norm computed over the survivors. Layers that make
    the outputs have names that start with "head".
    """

    make: Callable[[], nn.Module]
    inputs: Inputs
    groups: Mapping[str, int | frozenset[int]] = field(default_factory=dict[str, Any])
    stays: Mapping[str, str] = field(default_factory=dict[str, str])
    norm_width: bool = False

    def built(self) -> nn.Module:
        """The module in evaluation, with the same weights every time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.make().eval()

    def example(self, samples: int = 2, seed: int = 1) -> Any:
        """Example inputs: a tuple of all arguments, or a mapping of keywords."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.inputs(samples)


class Net(nn.Module):
    """A module of named parts and a function that runs it; tensors among the parts are buffers."""

    def __init__(self, run: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, nn.Module | nn.Parameter):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)

    def __getattr__(self, name: str) -> Any:  # a part, of whatever type
        return super().__getattr__(name)

    def forward(self, *args: Any, **words: Any) -> Any:
        return self.run(self, *args, **words)


def any_of(*units: int) -> frozenset[int]:
    """Numbers of units that are right alike."""
    return frozenset(units)


def floats(*shape: int) -> Inputs:
    """One tensor of random numbers, (samples, *shape)."""
    return lambda samples: (torch.randn(samples, *shape),)


def tokens(length: int, vocabulary: int = 20) -> Inputs:
    """One tensor of token numbers, (samples, length)."""
    return lambda samples: (torch.randint(vocabulary, (samples, length)),)


def run(model: nn.Module, inputs: Any) -> Any:
    """Call a module with its inputs: a mapping as keywords, a tuple as all arguments."""
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def own(*shape: int) -> nn.Parameter:
    """A parameter of random numbers around one."""
    return nn.Parameter(torch.randn(*shape) * 0.3 + 1)


def matrix(outputs: int, inputs: int) -> nn.Parameter:
    """A parameter used as the weights of a layer."""
    return nn.Parameter(torch.randn(outputs, inputs) * inputs**-0.5)


def pooled(x: Tensor) -> Tensor:
    """The mean over all places of (samples, channels, ...)."""
    return x.flatten(2).mean(2)
