"""What becomes of the numbers of units in each operation of a network: one small rule for each.

An operation that has no rule, or a form that its rule does not know, makes what goes in stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from secateurs.prune.coupling.origin_rules import (
    ALONG,
    ELEMENTWISE,
    MOVING,
    PARTING,
    POOLING,
    REDUCING,
    RESHAPING,
    SUMMING,
    OriginRules,
    reduced_axes,
)
from secateurs.prune.coupling.union_find import compact, varying


class Operations(OriginRules):
    """Rules that move the numbers of units from the tensors that go in to those that come out."""

    def _rule(self, name: str) -> Callable[..., None] | None:
        own = getattr(self, f"_do_{name}", None)
        if own is not None:
            return own
        for names, rule in (
            (ELEMENTWISE, self._elementwise),
            (MOVING, self._moving),
            (PARTING, self._parting),
            (REDUCING, self._reducing),
            (POOLING, self._pooling),
            (ALONG, self._along),
        ):
            if name in names:
                return rule
        return None

    def _elementwise(self, _: str, __: Any, args: list[Any], kw: Any, out: Any) -> None:
        given = [t for t in tree_leaves((args, kw)) if isinstance(t, Tensor)]
        why = f"{self.where()} mixes it with what cannot be cut"
        self._set(out, self.ties.combine(self.labels(given), why))

    def _moving(self, name: str, func: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        def full(value: Any) -> Any:
            if isinstance(value, Tensor):
                return self._full(value)
            return [full(v) for v in value] if isinstance(value, list | tuple) else value

        if name in ("view", "_unsafe_view"):  # numbers spread over axes may need a copy
            moved = self._full(args[0]).reshape(out.shape)
        else:
            moved = func(*[full(value) for value in args], **kw)
        numbers = compact(moved)
        if name in RESHAPING:
            self.ties.split(numbers)
        self._set(out, numbers)

    def _do_cat(self, name: str, func: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        tensors: list[Tensor] = list(args[0])
        axis = kw.get("dim", args[1] if len(args) > 1 else 0) % out.ndim
        if name != "stack":
            self.note_pieces(tensors, axis, out)
        fulls = [self._full(tensor) for tensor in tensors]
        known = [n for tensor in tensors if (n := self.numbers_of(tensor)) is not None]
        along = {a for numbers in known for a in varying(numbers)} if name != "stack" else set()
        if along and axis not in along:
            # Beside each other along another axis: the same channel of each is the same unit.
            met = known[0]
            for numbers in known[1:]:
                self.ties.tie(met, numbers)
                self._beside(met, numbers)
                met = torch.maximum(*torch.broadcast_tensors(met, numbers))
            for place, tensor in enumerate(tensors):
                if self.numbers_of(tensor) is None and id(tensor) in self.origins:
                    self.adopt(tensor, met)
                    fulls[place] = met.expand(tensor.shape)
            if all(full.any() for full in fulls):
                self._set(out, met)
                return
        self._set(out, compact(func(fulls, *args[1:], **kw)))

    _do_concat = _do_stack = _do_cat

    def _do_view_as(self, _: str, __: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        numbers = compact(self._full(args[0]).reshape(out.shape))
        self.ties.split(numbers)
        self._set(out, numbers)

    _do_reshape_as = _do_view_as

    def _do_expand_as(self, _: str, __: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        self._set(out, compact(self._full(args[0]).expand(out.shape)))

    def _parting(self, name: str, func: Any, args: list[Any], kw: Any, out: Any) -> None:
        axis = kw.get("dim", args[-1] if name == "unbind" and len(args) > 1 else 0)
        if name != "unbind" and len(args) > 2:
            axis = args[2]
        numbers = self.numbers_of(args[0])
        assert numbers is not None
        axis %= numbers.ndim
        parts = [compact(part) for part in func(self._full(args[0]), *args[1:], **kw)]
        if numbers.shape[axis] > 1:
            # As many units must go from each part, so that they are parts of equal size again.
            first = parts[0]
            unequal = len({tensor.shape for tensor in out}) > 1
            if unequal and len(varying(numbers)) > 1:  # units go along the other axes, as heads
                numbers = self.ties.merge(numbers, [axis], self.over())
                for tensor in out:
                    self._set(tensor, numbers)
                return
            if unequal:
                self.ties.fix(numbers, f"{self.where()} splits it into unequal parts")
            for part in () if unequal else parts[1:]:
                self.ties.tie(first, part)
                for some in (first, part):
                    self.ties.fix(some[(part == 0) ^ (first == 0)], "what it is beside has to stay")
        for tensor, part in zip(out, parts, strict=True):
            self._set(tensor, part)

    def _reducing(self, name: str, _: Any, args: list[Any], kw: Any, out: Any) -> None:
        x = args[0]
        numbers = self.numbers_of(x)
        assert numbers is not None
        axes = reduced_axes(name, args, kw)
        if name in SUMMING and set(varying(numbers)) <= set(axes):
            self.contract([numbers])  # to which a unit that is zero adds nothing
            return
        leaves: list[Tensor] = tree_leaves(out)

        def merge() -> None:
            merged = self.merged_all(numbers, axes)
            if merged is None:
                return
            for tensor in leaves:
                kept = tensor.ndim == x.ndim
                shape = [n for axis, n in enumerate(merged.shape) if kept or axis not in axes]
                self._set(tensor, merged.reshape(shape))

        if set(axes) & set(varying(numbers)):
            self.defer(leaves, merge)
        else:
            merge()

    def _do_max(self, name: str, func: Any, args: list[Any], kw: Any, out: Any) -> None:
        """The largest of two tensors, or along an axis (with its place), or of all."""
        if len(args) > 1 and isinstance(args[1], Tensor):
            self._elementwise(name, func, args, kw, out)
        else:
            self._reducing(name, func, args, kw, out)

    _do_min = _do_max

    def _do_sort(self, name: str, _: Any, args: list[Any], kw: Any, out: Any) -> None:
        """Values in another order along one axis, or some of them, with their places."""
        numbers = self.numbers_of(args[0])
        assert numbers is not None
        place = 2 if name in ("topk", "kthvalue") else 1
        axis = kw.get("dim", args[place] if len(args) > place else -1)
        if not isinstance(axis, int) or axis % numbers.ndim in varying(numbers):
            raise NotImplementedError(name)
        if tree_leaves(out)[0].ndim < numbers.ndim:  # one value, without the axis
            numbers = numbers.squeeze(axis)
        for tensor in tree_leaves(out):
            self._set(tensor, numbers)

    _do_topk = _do_kthvalue = _do_median = _do_nanmedian = _do_mode = _do_sort
    _do_cummax = _do_cummin = _do_argsort = _do_sort

    def _along(self, _: str, __: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        numbers = self.numbers_of(args[0])
        assert numbers is not None
        axis = kw.get("dim", args[1] if len(args) > 1 else -1)
        self._set(out, self.merged_all(numbers, [axis % numbers.ndim]))

    def _do_cumsum(self, name: str, func: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        numbers = self.numbers_of(args[0])
        assert numbers is not None
        axis = kw.get("dim", args[1] if len(args) > 1 else -1)
        if varying(numbers) != [axis % numbers.ndim]:
            self._along(name, func, args, kw, out)
            return
        self.contract([numbers])  # to the sums of which a unit that is zero adds nothing
        self._set(out, numbers)

    def _pooling(self, name: str, _: Any, args: list[Any], kw: Any, out: Any) -> None:
        numbers = self.numbers_of(args[0])
        assert numbers is not None
        dimensions = re.search(r"(\d)d", name)
        assert dimensions is not None
        axes = range(numbers.ndim - int(dimensions[1]), numbers.ndim)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._set(tensor, self.ties.merge(numbers, axes, self.over()))
