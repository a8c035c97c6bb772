"""Where the elements of a tensor come from: places in a parameter or buffer of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    the source, `name` what it calls it. Along the axes of the source that are `mixed` an element
    depends on other places too, as the rows of a weight that is divided by their norm; where it
    depends on how many these are, as in a mean, they are `counted` as well.
    """

    source: Tensor
    path: str
    name: str
    places: tuple[Tensor, ...]
    mixed: frozenset[int] = frozenset()
    counted: frozenset[int] = frozenset()

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

    def along(self, axis: int, depth: int) -> Origin:
        """The origin of a vector that is one axis of a tensor with so many."""
        shape = [1] * axis + [-1] + [1] * (depth - axis - 1)
        return replace(self, places=tuple(places.reshape(shape) for places in self.places))

    def axes_along(self, axes: Sequence[int]) -> list[int]:
        """Axes of the source whose coordinates change along some axes of the tensor."""
        return [k for k, places in enumerate(self.places) if set(varying(places)) & set(axes)]

    def axes_at(self, axis: int) -> list[int]:
        """The axes of the source that this axis of the tensor has: several where it folds them."""
        return [
            k
            for k, places in enumerate(self.places)
            if varying(places) == [axis] and int(places.max()) < self.source.shape[k]
        ]

    def mixed_along(self, axes: Sequence[int], *, counted: bool = True) -> Origin:
        """The origin of what depends on all places along some axes of the tensor."""
        found = frozenset(self.axes_along(axes))
        counts = found if counted else frozenset[int]()
        return replace(self, mixed=self.mixed | found, counted=self.counted | counts)

    def reduced(self, axes: Sequence[int], *, keep: bool, counted: bool = True) -> Origin:
        """The origin of what is computed over some axes of the tensor, which may stay of size 1."""
        places = [p.amax(list(axes), keepdim=True) for p in self.places] if axes else self.places
        if not keep:
            left = [a for a in range(places[0].ndim) if a not in axes]
            places = [p.reshape([p.shape[a] for a in left]) for p in places]
        return replace(self.mixed_along(axes, counted=counted), places=tuple(places))

    def beside(self, other: Origin) -> Origin:
        """The origin of what is computed element by element from two parts of one source."""
        places: list[Tensor] = []
        mixed, counted = self.mixed | other.mixed, self.counted | other.counted
        for k, (one, two) in enumerate(zip(self.places, other.places, strict=True)):
            if one.shape == two.shape and bool((one == two).all()):
                places.append(one)
            elif one.numel() == 1 or two.numel() == 1:
                mixed |= {k}
                places.append(two if one.numel() == 1 else one)
            else:  # of two places each: no place of the source
                mixed, counted = mixed | {k}, counted | {k}
                places.append(one + self.source.shape[k] * (two + 1))
        return replace(self, places=tuple(places), mixed=mixed, counted=counted)

    @property
    def is_known(self) -> bool:
        """Whether there is an axis of the source along which the tensor has its places."""
        return any(
            k not in self.mixed for k, places in enumerate(self.places) if places.numel() > 1
        )


def whole(source: Tensor, path: str, name: str) -> Origin:
    """The origin of a parameter or buffer itself."""
    places = [
        torch.arange(size).reshape([size if k == axis else 1 for k in range(source.ndim)])
        for axis, size in enumerate(source.shape)
    ]
    return Origin(source, path, name, tuple(places))


def origins_of(model: nn.Module) -> dict[int, tuple[Origin, ...]]:
    """The origins of all parameters and buffers of real or complex numbers, by identity."""
    found: dict[int, tuple[Origin, ...]] = {}
    for path, module in python_modules(model):
        for name, tensor in (
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ):
            if (tensor.is_floating_point() or tensor.is_complex()) and tensor.ndim:
                found.setdefault(id(tensor), (whole(tensor, path, name),))
    return found
