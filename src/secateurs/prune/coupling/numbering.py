"""Numbers on tensors and on the parameters of a network, and what each layer did with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.prune.coupling.members import Side
from secateurs.prune.coupling.origins import Origin, origins_of
from secateurs.prune.coupling.union_find import Labelled, UnionFind, varying


@dataclass
class Event:
    """What a layer did: numbers of the units that it makes, reads or passes on.

    `numbers` (channels,) are those of a layer's channels; with a `tensor`, those along the `axis`
    of this one parameter or buffer of the module. An axis of -1 stands for numbers on several axes
    of it, of which one is left when the units are known. With `norm` the layer computes statistics
    over all of its channels.
    """

    path: str
    side: Side
    numbers: Tensor
    tensor: str = ""
    axis: int = 0
    norm: bool = False


@dataclass
class Product:
    """Multiplications whose number is the product of the lengths of some axes.

    `times` of them for each place of the axes of `sizes`. `labels` are numbers (compact) of tensors
    that take part, and which axis of `sizes` each of their axes is.
    """

    times: int
    sizes: tuple[int, ...]
    labels: list[tuple[Tensor, tuple[int, ...]]]


@dataclass
class _Along:
    """Numbers along an axis of a parameter, and which of them are known."""

    numbers: Tensor
    known: Tensor


def unexpanded(tensor: Tensor) -> tuple[int, ...]:
    """The shape of a tensor that takes any size along the axes on which it was expanded."""
    return tuple(
        1 if stride == 0 else size
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )


class Numbering:
    """Numbers of the units in tensors, by the tensors' identities, and of the network's parameters.

    `stack` has the paths of the modules whose operations run. `origins` says of tensors without
    numbers which parameters they come from.
    """

    def __init__(self, bare: nn.Module, *, second: bool = False) -> None:
        self.ties = UnionFind(second=second)
        self.numbers: dict[int, Tensor] = {}
        self.products: list[Product] = []
        self.events: list[Event] = []
        self.modules = dict(bare.named_modules())
        self.stack: list[str] = []
        self.origins = origins_of(bare)
        self._axes: dict[tuple[int, int], _Along] = {}
        self.contracted: list[Tensor] = []
        self.deferred: dict[int, list[Callable[[], None]]] = {}
        self.neutral: set[int] = set()  # tensors of zeros, by identity
        self.constant: set[int] = set()  # tensors of another number
        self.blank: dict[int, tuple[int, Tensor]] = {}  # places of zeros along an axis
        self.pieces: dict[int, list[Tensor]] = {}  # of vectors that were put together
        self._noted: dict[tuple[str, Side, str, int], Event] = {}

    def numbers_of(self, tensor: Tensor) -> Tensor | None:
        """The numbers of a tensor, if it has any."""
        return self.numbers.get(id(tensor))

    def multiplied(
        self,
        times: int,
        sizes: Sequence[int],
        labels: Sequence[tuple[Tensor | None, tuple[int, ...]]],
    ) -> None:
        """Take note of multiplications, see `Product`."""
        known = [(numbers, axes) for numbers, axes in labels if numbers is not None]
        self.products.append(Product(times, tuple(sizes), known))

    def here(self) -> nn.Module | None:
        """The module whose operations run."""
        return self.modules.get(self.stack[-1]) if self.stack else None

    def where(self) -> str:
        """The same, for messages."""
        path = self.stack[-1] if self.stack else ""
        module = self.modules.get(path)
        if module is None:
            return "the network"
        return f"{type(module).__name__} {path}".strip()

    def over(self) -> str:
        """What is said of an operation over all units."""
        return f"{self.where()} works over all units at once"

    def defer(self, tensors: Sequence[Tensor], then: Callable[[], None]) -> None:
        """Do this once one of the tensors is used: attention averages weights that few ask for."""
        waiting = [then]
        for tensor in tensors:
            self.deferred[id(tensor)] = waiting

    def used(self, tensors: Sequence[Tensor]) -> None:
        """Do what was put off until these tensors are used."""
        for tensor in tensors if self.deferred else ():
            waiting = self.deferred.pop(id(tensor), [])
            while waiting:
                waiting.pop()()

    def contract(self, numbers: Sequence[Tensor]) -> None:
        """Take note of units that a sum or a product goes over, which no layer reads."""
        self.contracted += numbers

    def note(self, event: Event) -> None:
        """Take note of what a layer did, once for each layer, side, tensor and axis."""
        key = event.path, event.side, event.tensor, event.axis
        if key not in self._noted:
            self._noted[key] = event
            self.events.append(event)
        elif event.axis < 0:  # no key tells numbers on several axes from each other
            self.events.append(event)
        else:
            event = self._noted[key]

    def along(
        self, owner: Tensor | nn.Module, axis: int, numbers: Tensor, known: Tensor | None = None
    ) -> Tensor:
        """Numbers along an axis of a parameter (or of all of a module's), tied to earlier ones.

        Where a parameter is used again the same places have the same units. `known` (bool) are the
        places that this use is about. Returns the numbers of all places that were used.
        """
        known = torch.ones(len(numbers), dtype=torch.bool) if known is None else known
        key = id(owner), axis
        before = self._axes.get(key)
        if before is None:
            self._axes[key] = _Along(numbers.clone(), known.clone())
            return self._axes[key].numbers
        both = before.known & known
        old, new = before.numbers[both], numbers[both]
        self.ties.tie(old, new)
        lost = (old > 0) != (new > 0)
        if bool(lost.any()):
            why = f"{self.where()} also uses the same weights on what has to stay"
            self.ties.fix(torch.maximum(old, new)[lost], why)
        fresh = known & ~before.known
        # In place: events hold on to these numbers.
        before.numbers[fresh] = numbers[fresh]
        before.known |= known
        return before.numbers

    def note_pieces(self, tensors: Sequence[Tensor], axis: int, out: Tensor) -> None:
        """Take note of what tensors without numbers are put together of.

        Zeros beside others, as the first state of a recurrent network, go with any units: those
        that the same layer reads there later.
        """
        if out.ndim == 1:
            self.pieces[id(out)] = list(tensors)
        zeros = [id(tensor) in self.neutral for tensor in tensors]
        if any(zeros) and not all(zeros):
            sizes = torch.tensor([tensor.shape[axis] for tensor in tensors])
            self.blank[id(out)] = axis - out.ndim, torch.tensor(zeros).repeat_interleave(sizes)

    def not_blank(self, tensor: Tensor, axis: int) -> Tensor | None:
        """Which places along an axis are not such zeros; None where all are."""
        noted, zeros = self.blank.get(id(tensor), (0, None))
        return None if zeros is None or noted != axis else ~zeros

    def known_along(self, owner: Tensor, axis: int) -> Tensor | None:
        """The numbers along an axis of a parameter, where all are known."""
        before = self._axes.get((id(owner), axis))
        return before.numbers if before is not None and bool(before.known.all()) else None

    def adopt(self, tensor: Tensor, numbers: Tensor, *, norm: bool = False) -> None:
        """Take the parameters that a tensor comes from as carriers of units, channel by channel.

        `numbers` (compact, with the axes of the tensor) are those of the units that it meets; a
        `norm` works over all of them.
        """
        for origin in self.origins[id(tensor)]:
            axes = origin.axes_along(varying(numbers))
            if not axes:
                continue
            if origin.mixed & set(axes):
                self.ties.fix(numbers, f"{self.where()} mixes the entries of {origin.name}")
                continue
            index = torch.zeros((), dtype=torch.int64)
            for axis in axes:
                index = index * origin.source.shape[axis] + origin.places[axis]
            index, given = torch.broadcast_tensors(index, numbers)
            size = 1
            for axis in axes:
                size *= origin.source.shape[axis]
            grid = torch.zeros(size, dtype=torch.int32)
            known = torch.zeros(size, dtype=torch.bool)
            grid[index.flatten()] = given.flatten()
            known[index.flatten()] = True
            self.ties.tie(grid[index], given)
            lost = (grid[index] > 0) != (given > 0)
            if bool(lost.any()):
                why = f"{self.where()} also uses {origin.name} on what has to stay"
                self.ties.fix(torch.maximum(grid[index], given)[lost], why)
            self._carry(origin, axes, grid, known, norm)

    def _carry(
        self, origin: Origin, axes: list[int], grid: Tensor, known: Tensor, norm: bool
    ) -> None:
        if len(axes) == 1:
            numbers = self.along(origin.source, axes[0], grid, known)
            self.note(Event(origin.path, "both", numbers, origin.name, axes[0], norm))
            return
        shape = [n if k in axes else 1 for k, n in enumerate(origin.source.shape)]
        numbers = grid.reshape(shape)
        if not bool(known.all()):
            self.ties.fix(grid, f"{self.where()} uses a part of {origin.name}")
            return
        self.ties.split(numbers)
        self.note(Event(origin.path, "both", numbers, origin.name, -1))

    def labels(self, tensors: Sequence[Tensor]) -> list[Labelled]:
        """Shapes and numbers of tensors that broadcast; parameters take those of what they meet."""
        own: list[Labelled] = [
            (tuple(t.shape), numbers)
            if (numbers := self.numbers_of(t)) is not None
            else (unexpanded(t), None)
            for t in tensors
        ]
        if all(numbers is None for _, numbers in own):
            return own
        depth = max(len(shape) for shape, _ in own)
        met: Tensor | None = None
        for _, numbers in own:
            if numbers is not None:
                numbers = numbers.reshape((1,) * (depth - numbers.ndim) + tuple(numbers.shape))
                met = (
                    numbers
                    if met is None
                    else torch.maximum(*torch.broadcast_tensors(met, numbers))
                )
        assert met is not None
        return [
            (shape, self._taken(tensor, met)) if numbers is None else (shape, numbers)
            for tensor, (shape, numbers) in zip(tensors, own, strict=True)
        ]

    def _taken(self, tensor: Tensor, met: Tensor) -> Tensor | None:
        """Numbers that a parameter, or what comes from one, takes from what it meets."""
        if id(tensor) not in self.origins and id(tensor) not in self.neutral:
            return None
        shape = (1,) * (met.ndim - tensor.ndim) + tuple(tensor.shape)
        along = varying(met)
        shared = [axis for axis in along if shape[axis] > 1]
        if not shared or len(shared) < len(along):
            return None
        numbers = met.reshape(met.shape[met.ndim - tensor.ndim :])
        origins = self.origins.get(id(tensor), ())
        if any(origin.mixed & set(origin.axes_along(varying(numbers))) for origin in origins):
            return None
        if origins:
            self.adopt(tensor, numbers)
        return numbers

    def _set(self, tensor: Any, numbers: Tensor | None) -> None:
        assert isinstance(tensor, Tensor)
        if numbers is None or not bool(numbers.any()):
            self.numbers.pop(id(tensor), None)
        else:
            self.numbers[id(tensor)] = numbers

    def _full(self, tensor: Tensor) -> Tensor:
        numbers = self.numbers_of(tensor)
        if numbers is None:
            return torch.zeros((), dtype=torch.int32).expand(tensor.shape)
        return numbers.expand(tensor.shape)

    def _channels(self, numbers: Tensor | None, size: int, axis: int) -> Tensor:
        """Numbers (size,) of a layer's channels; what differs along other axes has to stay."""
        if numbers is None:
            return torch.zeros(size, dtype=torch.int32)
        others = [a for a in varying(numbers) if a != axis % numbers.ndim]
        if others:
            why = f"{self.where()} works across it"
            if len(others) == len(varying(numbers)):
                self.ties.fix(numbers, why)
            numbers = self.ties.merge(numbers, others, why)
        return numbers.flatten().expand(size)

    def _beside(self, one: Tensor, other: Tensor) -> None:
        """Fix what has numbers beside what has none."""
        one, other = torch.broadcast_tensors(one, other)
        lost = (one > 0) != (other > 0)
        if bool(lost.any()):
            why = f"{self.where()} puts it beside what cannot be cut"
            self.ties.fix(torch.maximum(one, other)[lost], why)

    def merged_all(self, numbers: Tensor, axes: list[int]) -> Tensor | None:
        """Numbers merged along some axes; None where nothing is left to tell units apart by.

        What is computed over all units belongs to none of them.
        """
        along = varying(numbers)
        merged = self.ties.merge(numbers, axes, self.over())
        return None if along and set(along) <= set(axes) else merged


def owns(module: nn.Module, tensors: list[Tensor]) -> bool:
    """Whether tensors are a norm's own, or it has none and the operation used none."""
    known = isinstance(
        module,
        nn.modules.batchnorm._NormBase  # pyright: ignore[reportPrivateUsage]
        | nn.LayerNorm
        | nn.RMSNorm
        | nn.GroupNorm
        | nn.PReLU,
    )
    own = {id(t) for t in (*module.parameters(recurse=False), *module.buffers(recurse=False))}
    return known and all(id(tensor) in own for tensor in tensors)
