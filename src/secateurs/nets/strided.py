"""Convolutions whose gradient PyTorch computes wrongly on a CPU, run in another way."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

FEWEST, MOST = 2, 15  # input channels for which the gradient writes outside of its memory


@contextmanager
def safe_strides(model: nn.Module) -> Generator[None]:
    """Let some convolutions skip places beforehand, with the same results but for rounding.

    PyTorch 2.15 writes outside of its memory on CPUs when it computes the gradient of a strided
    convolution of kernel 1 with 2 to 15 input channels and input in channels-last order, and the
    process dies. With the places picked before the convolution it has no stride. The model is as it
    was after the block.

    >>> import torch
    >>> layer, x = nn.Conv2d(3, 4, 1, stride=2), torch.rand(1, 3, 5, 5)
    >>> with safe_strides(layer):
    ...     inside = layer(x), layer.stride
    >>> torch.allclose(inside[0], layer(x)), inside[1], layer.stride
    (True, (1, 1), (2, 2))
    """
    changed: list[tuple[nn.Conv2d, Any]] = [
        (layer, layer.stride)
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d) and _is_unsafe(layer)
    ]
    hooks: list[Any] = []
    try:
        for layer, (down, across) in changed:
            layer.stride = (1, 1)
            hooks.append(layer.register_forward_pre_hook(_Picking(down, across)))
        yield
    finally:
        for layer, stride in changed:
            layer.stride = stride
        for hook in hooks:
            hook.remove()


class _Picking:
    """Hands on every so many places of a map."""

    def __init__(self, down: int, across: int) -> None:
        self.down, self.across = down, across

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0][..., :: self.down, :: self.across], *args[1:])


def _is_unsafe(layer: nn.Conv2d) -> bool:
    return (
        layer.weight.device.type == "cpu"
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.padding in ((0, 0), 0, "valid")
        and FEWEST <= layer.in_channels // layer.groups <= MOST
    )
