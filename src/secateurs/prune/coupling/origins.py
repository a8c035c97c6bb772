"""Where the elements of a tensor come from: places in a parameter or buffer of the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from secateurs.nets.trace import python_modules
from secateurs.prune.coupling.union_find import compact, varying


@dataclass(frozen=True)
class Origin:
    """The places in the parameter or buffer `source` at which the elements of a tensor were.

    `places` has for each axis of the source the coordinates of the tensor's elements, compact: of
    as many axes as the tensor, of size 1 where they do not change. `path` is the module that owns
    the source, `name` what it calls it.
    """

    source: Tensor
    path: str
    name: str
    places: tuple[Tensor, ...]

    def moved(self, shape: torch.Size, move: Callable[[Tensor], Tensor]) -> Origin:
        """The origin of what `move` makes of a tensor of this shape."""
        return replace(
            self, places=tuple(compact(move(places.expand(shape))) for places in self.places)
        )

    def aligned(self, depth: int) -> Origin:
        """The same with so many axes, new ones first."""
        return replace(
            self,
            places=tuple(p.reshape((1,) * (depth - p.ndim) + tuple(p.shape)) for p in self.places),
        )

    def axes_along(self, axes: list[int]) -> list[int]:
        """Axes of the source whose coordinates change along some axes of the tensor."""
        return [k for k, places in enumerate(self.places) if set(varying(places)) & set(axes)]

    def axes_at(self, axis: int) -> list[int]:
        """The axes of the source that this axis of the tensor has: several where it folds them."""
        return [k for k, places in enumerate(self.places) if varying(places) == [axis]]


def whole(source: Tensor, path: str, name: str) -> Origin:
    """The origin of a parameter or buffer itself."""
    places = [
        torch.arange(size).reshape([size if k == axis else 1 for k in range(source.ndim)])
        for axis, size in enumerate(source.shape)
    ]
    return Origin(source, path, name, tuple(places))


def origins_of(model: nn.Module) -> dict[int, tuple[Origin, ...]]:
    """The origins of all parameters and floating-point buffers of a model, by identity."""
    found: dict[int, tuple[Origin, ...]] = {}
    for path, module in python_modules(model):
        for name, tensor in (
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ):
            if tensor.is_floating_point() and tensor.ndim:
                found.setdefault(id(tensor), (whole(tensor, path, name),))
    return found
