"""Which units belong together: numbers on the elements of tensors, and ties between numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Shape = tuple[int, ...]
Labelled = tuple[Shape, Tensor | None]  # a tensor's shape and its numbers, None without any


def compact(numbers: Tensor) -> Tensor:
    """The same numbers with one place along each axis on which they do not change.

    >>> compact(torch.tensor([[1, 1], [2, 2]])).tolist()
    [[1], [2]]
    """
    for axis in range(numbers.ndim):
        if numbers.shape[axis] > 1 and numbers.stride(axis) == 0:
            numbers = numbers.narrow(axis, 0, 1)
    for axis in range(numbers.ndim):
        if numbers.shape[axis] > 1:
            first = numbers.narrow(axis, 0, 1)
            if bool((numbers == first).all()):
                numbers = first
    return numbers


def varying(numbers: Tensor) -> list[int]:
    """Axes along which compact numbers change."""
    return [axis for axis, size in enumerate(numbers.shape) if size > 1]


def _axes(unit: NDArray[np.int64], numbers: Tensor) -> list[int]:
    """Axes along which the units of numbers change."""
    return varying(compact(torch.from_numpy(unit[numbers.numpy()])))


def apart(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors' numbers change, and along no common axis."""
    first, second = set(varying(one)), set(varying(other))
    return bool(first and second) and not first & second


class UnionFind:
    """Numbers given out so far, which of them are tied, and which must stay.

    Number 0 stands for what belongs to no unit. Tensors carry their numbers in compact form: as
    many axes as the tensor, of size 1 where the numbers do not change.

    Where units could go along one of two axes of a tensor, those of the other one stay. `chose`
    says that this happened; `second` asks for the axis that is not taken otherwise.
    """

    def __init__(self, *, second: bool = False) -> None:
        self.count = 1
        self.second, self.chose = second, False
        self.pairs: list[NDArray[np.int64]] = []
        self.fixed: list[tuple[NDArray[np.int64], str]] = []
        self.whys: list[tuple[int, str]] = []  # why numbers were merged, for those who ask
        self.splits: list[Tensor] = []

    def fresh(self, count: int) -> Tensor:
        """So many new numbers (count,)."""
        start = self.count
        self.count += count
        return torch.arange(start, start + count, dtype=torch.int32)

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Tie numbers, place by place, of arrays that broadcast; 0 is tied to nothing."""
        a, b = torch.broadcast_tensors(a, b)
        both = (a != b) & (a > 0) & (b > 0)
        if bool(both.any()):
            found = np.unique((a[both].long() << 32 | b[both].long()).numpy())
            self.pairs.append(np.stack([found >> 32, found & (2**32 - 1)]))

    def fix(self, numbers: Tensor, why: str) -> None:
        """These must stay, and why."""
        found = np.unique(numbers.numpy().astype(np.int64))
        found = found[found > 0]
        if len(found):
            self.fixed.append((found, why))

    def merge(self, numbers: Tensor, axes: Iterable[int], why: str = "") -> Tensor:
        """Tie all numbers along some axes, which have size 1 in what is returned."""
        for axis in axes:
            if numbers.shape[axis] > 1:
                self.tie(
                    numbers.narrow(axis, 1, numbers.shape[axis] - 1), numbers.narrow(axis, 0, 1)
                )
                # Where the first belongs to no unit, the others have nothing to stand for them.
                first = numbers.narrow(axis, 0, 1)
                if bool((first == 0).any()):
                    self.fix(numbers, why or "it is mixed with what belongs to no unit")
                numbers = numbers.amax(axis, keepdim=True)
                if why:
                    self.whys.append((int(numbers.max()), why))
        return numbers

    def combine(self, parts: Sequence[Labelled], why: str = "") -> Tensor | None:
        """Numbers of what is computed element by element from tensors that broadcast.

        None where nothing has numbers, or all that has must stay beside what has none.
        """
        depth = max(len(shape) for shape, _ in parts)
        result: Tensor | None = None
        shapes: list[Shape] = []
        for given, some in parts:
            shape = (1,) * (depth - len(given)) + tuple(given)
            if some is not None:
                some = some.reshape((1,) * (depth - some.ndim) + tuple(some.shape))
            if result is not None and some is not None and apart(result, some):
                # Units of two axes: one of them stays, so that units go along the other.
                fewer = result if result.numel() <= some.numel() else some
                result = self.one_of(some if fewer is result else result, fewer, why)
            elif result is not None and some is not None:
                self.tie(result, some)
                self._beside(result, some, shape, why)
                for other in shapes:
                    self._beside(some, result, other, why)
                result = torch.maximum(*torch.broadcast_tensors(result, some))
            elif result is not None or some is not None:
                numbers, others = (some, shapes) if some is not None else (result, [shape])
                assert numbers is not None
                met = {a for other in others for a in varying(numbers) if other[a] > 1}
                if met and met < set(varying(numbers)):
                    # Along these axes the others stay as they are: units go along the rest.
                    numbers = self.merge(numbers, sorted(met), why)
                elif met:
                    # What is computed goes with nothing that can be cut, as those others do.
                    self.fix(numbers, why or "it meets a tensor that cannot be cut")
                    numbers = None
                result = numbers
            shapes.append(shape)
        return result

    def _beside(self, numbers: Tensor, others: Tensor, shape: Shape, why: str) -> None:
        """Where a tensor that changes along the same axes has no number, these must stay."""
        if any(shape[axis] > 1 for axis in varying(numbers)):
            a, b = torch.broadcast_tensors(numbers, others)
            lost = (a > 0) & (b == 0)
            if bool(lost.any()):
                self.fix(a[lost], why or "it meets a tensor that cannot be cut")

    def one_of(self, first: Tensor, other: Tensor, why: str = "") -> Tensor:
        """The numbers along the axis that is taken of two; those of the other one stay."""
        self.chose = True
        taken, left = (other, first) if self.second else (first, other)
        self.fix(left, why or "it meets units of another axis")
        return taken

    def split(self, numbers: Tensor) -> None:
        """Remember an axis that was split into several: units must go along one of them alone."""
        if len(varying(numbers)) > 1:
            self.splits.append(numbers)

    def units(self) -> tuple[NDArray[np.int64], dict[int, str], dict[int, str]]:
        """The unit (from 1 on; 0 for none) of every number; why units stay, and were merged.

        An axis split into several, along which units would go here and there, is tied along all
        of them but the longest (`second`: the last).
        """
        unit = self._components()
        splits = list(self.splits)
        while crossed := [numbers for numbers in splits if len(_axes(unit, numbers)) > 1]:
            splits = [numbers for numbers in splits if not any(numbers is c for c in crossed)]
            for numbers in crossed:
                axes = _axes(unit, numbers)
                if bool((numbers == 0).any()):
                    self.fix(numbers, "it is folded together with what cannot be cut")
                else:
                    longest = max(axes, key=lambda axis: numbers.shape[axis])
                    self.chose |= longest != axes[-1]
                    axes.remove(axes[-1] if self.second else longest)
                    self.merge(numbers, axes)
            unit = self._components()
        stays: dict[int, str] = {}
        for numbers, why in self.fixed:
            for one in np.unique(unit[numbers]).tolist():
                stays.setdefault(one, why)
        return unit, stays, {int(unit[number]): why for number, why in reversed(self.whys)}

    def _components(self) -> NDArray[np.int64]:
        pairs = np.concatenate(self.pairs, 1) if self.pairs else np.empty((2, 0), np.int64)
        graph = coo_matrix(
            (np.ones(pairs.shape[1], np.int8), (pairs[0], pairs[1])), (self.count,) * 2
        )
        found = connected_components(graph, directed=False)[1].astype(np.int64)
        # Number 0 has a component of its own, which is the first.
        assert not math.prod(found[:1])
        return found
