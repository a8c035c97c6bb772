"""What becomes of the numbers of units in products of matrices, and in attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from secateurs.prune.coupling.picking import Picking
from secateurs.prune.coupling.union_find import Labelled, apart, varying


def _unknown_words(where: str, name: str) -> str:
    """Why units stay that an operation reads which is not known.

    >>> _unknown_words("Net", "nll_loss_forward"), _unknown_words("Net", "sort")
    ('Net computes a loss from it', 'Net does sort with it, which is not known')
    """
    if "loss" in name or name == "binary_cross_entropy":
        return f"{where} computes a loss from it"
    return f"{where} does {name} with it, which is not known"


def _aligned(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two tensors' numbers with as many axes as the one that has more."""
    depth = max(a.ndim, b.ndim)
    return a.reshape((1,) * (depth - a.ndim) + a.shape), b.reshape(
        (1,) * (depth - b.ndim) + b.shape
    )


def _repeated(numbers: Tensor | None, heads: int, tensor: Tensor) -> Tensor | None:
    """Numbers of a tensor whose heads are repeated one by one, for several queries each."""
    if numbers is None or numbers.shape[-3] == 1:
        return numbers
    return numbers.repeat_interleave(heads // tensor.shape[-3], -3)


def _with_heads(tensor: Tensor, heads: int) -> Tensor:
    """A tensor with so many heads, for its shape."""
    return tensor.repeat_interleave(heads // tensor.shape[-3], -3)


def _only(numbers: Tensor | None, axis: int) -> bool:
    """Whether numbers change along this axis alone."""
    return numbers is not None and varying(numbers) == [numbers.ndim + axis]


class MatrixProducts(Picking):
    """Rules of products of two tensors: units of their axes, and those that a sum goes over."""

    def _labelled(self, tensor: Tensor) -> Labelled:
        return tuple(tensor.shape), self.numbers_of(tensor)

    def _unknown(self, name: str, given: Sequence[Tensor]) -> None:
        for tensor in given:
            if (numbers := self.numbers_of(tensor)) is not None:
                self.ties.fix(numbers, _unknown_words(self.where(), name))

    def _product(self, a: Tensor, b: Tensor, *more: Tensor) -> Tensor | None:
        """Numbers of a matrix product (..., n, k) by (..., k, m), plus others that broadcast."""
        (first, of_a), (second, of_b) = self._labelled(a), self._labelled(b)
        why = f"{self.where()} multiplies it with what cannot be cut"
        self._matrices(a.shape, of_a, b.shape, of_b)
        if _only(of_a, -1) and _only(of_b, -2):
            assert of_a is not None and of_b is not None
            along, down = of_a.flatten(), of_b.flatten()
            self.ties.tie(along, down)
            self._beside(along, down)
            self.contract([along, down])
            return None
        if of_a is not None and of_b is not None and self._contracted(of_a, of_b):
            return None
        if of_a is not None:
            of_a = self.merged_all(of_a, [of_a.ndim - 1])
        if of_b is not None:
            of_b = self.merged_all(of_b, [of_b.ndim - 2])
        by_head = of_a is not None and any(axis < of_a.ndim - 2 for axis in varying(of_a))
        if of_a is not None and of_b is not None and by_head and apart(*_aligned(of_a, of_b)):
            # Heads that share what they attend to, whose channels stay.
            taken = self.ties.one_of(of_a, of_b, why)
            of_a, of_b = (of_a, None) if taken is of_a else (None, of_b)
        parts = [((*first[:-1], 1), of_a), ((*second[:-2], 1, second[-1]), of_b)]
        return self.ties.combine([*parts, *map(self._labelled, more)], why)

    def _contracted(self, of_a: Tensor, of_b: Tensor) -> bool:
        """Whether the units are those of the axis that a product of matrices sums over.

        Channels of all heads alike, in the place of whole heads; of all fields alike, where a
        product is of fields with themselves.
        """
        along = varying(of_a), varying(of_b)
        if of_a.ndim - 1 not in along[0] or of_b.ndim - 2 not in along[1]:
            return False
        self.ties.chose = True
        if not self.ties.second:
            return False
        over = self.over()
        a = self.ties.merge(of_a, [axis for axis in along[0] if axis != of_a.ndim - 1], over)
        b = self.ties.merge(of_b, [axis for axis in along[1] if axis != of_b.ndim - 2], over)
        a, b = a.flatten(), b.flatten()
        self.ties.tie(a, b)
        self._beside(a, b)
        self.contract([a, b])
        return True

    def _matrices(
        self, a: Sequence[int], of_a: Tensor | None, b: Sequence[int], of_b: Tensor | None
    ) -> None:
        """Take note of a matrix product (..., n, k) by (..., k, m), whose first axes broadcast."""
        batch = torch.broadcast_shapes(tuple(a[:-2]), tuple(b[:-2]))
        depth = len(batch)
        first = tuple(range(depth - len(a) + 2, depth))  # places of axes in (..., n, k, m)
        second = tuple(range(depth - len(b) + 2, depth))
        self.multiplied(
            1,
            (*batch, a[-2], a[-1], b[-1]),
            [(of_a, (*first, depth, depth + 1)), (of_b, (*second, depth + 1, depth + 2))],
        )

    def _do_matmul(self, name: str, __: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        if args[0].ndim < 2 or args[1].ndim < 2:
            self._unknown(name, args[:2])
            return
        self._set(out, self._product(args[0], args[1]))

    _do_bmm = _do_mm = _do_matmul

    def _do_baddbmm(self, _: str, __: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        self._set(out, self._product(args[1], args[2], args[0]))

    _do_addmm = _do_baddbmm

    def _do_scaled_dot_product_attention(
        self, name: str, _: Any, args: list[Any], kw: Any, out: Tensor
    ) -> None:
        query, key, value = args[:3]
        mask = kw.get("attn_mask", args[3] if len(args) > 3 else None)
        over = self.over()
        of_query, of_key, of_value = map(self.numbers_of, (query, key, value))
        if kw.get("enable_gqa") and query.shape[-3] != key.shape[-3]:
            of_key, of_value = (_repeated(n, query.shape[-3], key) for n in (of_key, of_value))
            key, value = (_with_heads(t, query.shape[-3]) for t in (key, value))
        turned_shape = (*key.shape[:-2], key.shape[-1], key.shape[-2])
        self._matrices(query.shape, of_query, turned_shape, None if of_key is None else of_key.mT)
        of_scores = None if of_query is None else of_query[..., :1]
        self._matrices((*query.shape[:-1], key.shape[-2]), of_scores, value.shape, of_value)

        if of_query is not None and of_key is not None and kw.get("scale") is not None:
            # Without a scale of its own it follows from the number of channels.
            if self._contracted(of_query, of_key.mT):
                of_query, of_key = None, None
        elif of_query is not None and of_key is not None and self.ties.second:
            for numbers in (of_query, of_key):
                self.ties.fix(numbers, f"{self.where()} scales by the number of its channels")
            of_query, of_key = None, None

        def merged(numbers: Tensor | None, axis: int) -> Tensor | None:
            return (
                None if numbers is None else self.ties.merge(numbers, [numbers.ndim + axis], over)
            )

        turned = merged(of_key, -1)
        parts: list[Labelled] = [
            ((*query.shape[:-1], 1), merged(of_query, -1)),
            ((*key.shape[:-2], 1, key.shape[-2]), None if turned is None else turned.mT),
        ]
        parts += [] if mask is None else [self._labelled(mask)]
        why = f"{self.where()} attends to what cannot be cut"
        scores = self.ties.combine(parts, why)
        if scores is not None:
            scores = self.ties.merge(scores, [scores.ndim - 1], over)
        mixed: list[Labelled] = [
            ((*query.shape[:-1], 1), scores),
            ((*value.shape[:-2], 1, value.shape[-1]), merged(of_value, -2)),
        ]
        self._set(out, self.ties.combine(mixed, why))
