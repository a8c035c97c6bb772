"""What becomes of numbers where a part of a tensor is taken by place: slices, indices, patches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from secateurs.prune.coupling.numbering import Numbering
from secateurs.prune.coupling.union_find import compact, varying

MOST_PARTS = 4  # of equal width, in which slices may take apart an axis


def _equal_parts(args: list[Any], taken: int, width: int) -> int:
    """In how many equal parts an axis is of which a slice takes one; 0 where it does not."""
    start = args[2] if len(args) > 2 and args[2] is not None else 0
    step = args[4] if len(args) > 4 else 1
    start = start + width if start < 0 else start
    if not taken or step != 1 or width % taken or start % taken:
        return 0
    return width // taken if width // taken <= MOST_PARTS else 0


class Picking(Numbering):
    """Rules of operations that take elements by their places."""

    def _do_select(self, _: str, func: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        numbers = self.numbers_of(args[0])
        assert numbers is not None
        axis = args[1] % numbers.ndim
        if self.merged_all(numbers, [axis]) is not None:
            self._set(out, compact(func(self._full(args[0]), *args[1:], **kw)))

    def _do_slice(self, _: str, func: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        numbers = self.numbers_of(args[0])
        assert numbers is not None
        axis = (args[1] if len(args) > 1 else 0) % numbers.ndim
        if numbers.shape[axis] > 1 and out.shape != args[0].shape:
            why = f"{self.where()} takes some of its channels by number"
            if len(varying(numbers)) > 1:  # units go along the other axes, as heads
                numbers = self.ties.merge(numbers, [axis], why)
                self._set(out, numbers)
                return
            parts = _equal_parts(args, out.shape[axis], numbers.shape[axis])
            if parts:  # by bounds that may come from the width: the check finds others
                first, *rest = numbers.chunk(parts, axis)
                for part in rest:
                    self.ties.tie(first, part)
                    self._beside(first, part)
            else:  # where it is used, and not only asked for its size
                self.defer([out], lambda: self.ties.fix(numbers, why))
        self._set(out, compact(func(self._full(args[0]), *args[1:], **kw)))

    def _do_index_select(self, _: str, func: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        numbers = self.numbers_of(args[0])
        assert numbers is not None
        axis = args[1] % numbers.ndim
        why = f"{self.where()} picks from it by number"
        self._set(out, self.ties.merge(numbers, [axis], why))

    def _do__pack_padded_sequence(
        self, name: str, _: Any, args: list[Any], kw: Any, out: Any
    ) -> None:
        """Sequences one after the other, and back: channels are along the last axis of both."""
        numbers = self.numbers_of(args[0])
        assert numbers is not None
        if varying(numbers) != [numbers.ndim - 1]:
            raise NotImplementedError(name)
        self._set(out[0], numbers.reshape([1] * (out[0].ndim - 1) + [-1]))

    _do__pad_packed_sequence = _do__pack_padded_sequence

    def _do__fft_r2c(self, _: str, func: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        numbers = self.numbers_of(args[0])
        assert numbers is not None
        axes = [axis % numbers.ndim for axis in args[1]]
        self._set(out, self.merged_all(numbers, axes))

    _do__fft_c2r = _do__fft_c2c = _do__fft_r2c

    def _do_view_as_real(self, _: str, func: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        numbers = self.numbers_of(args[0])
        assert numbers is not None
        self._set(out, numbers[..., None])

    def _do_view_as_complex(self, _: str, func: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        numbers = self.numbers_of(args[0])
        assert numbers is not None
        self._set(out, self.ties.merge(numbers, [numbers.ndim - 1]).squeeze(-1))

    def _do_index(self, _: str, func: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        numbers = self.numbers_of(args[0])
        if numbers is None:  # one of the indices has numbers
            return
        places = list(args[1])
        axes = [axis for axis, place in enumerate(places) if place is not None]
        if any(isinstance(p, Tensor) and p.dtype in (torch.bool, torch.uint8) for p in places):
            self._set(out, self._by_mask(numbers, places))
            return
        numbers = self.ties.merge(numbers, axes, f"{self.where()} picks from it by number")
        zeros = [None if p is None else torch.zeros(p.shape, dtype=torch.int64) for p in places]
        self._set(out, compact(func(numbers.expand(args[0].shape), zeros)))

    def _by_mask(self, numbers: Tensor, places: list[Any]) -> Tensor:
        """Numbers of the rows that one mask over leading axes picks."""
        if len(places) != 1 or places[0].ndim >= numbers.ndim:
            raise NotImplementedError("several masks")
        count = places[0].ndim
        if set(range(count)) & set(varying(numbers)):
            raise NotImplementedError("a mask over units")
        return numbers.reshape(1, *numbers.shape[count:])

    def _do_index_put(self, name: str, _: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        base, places, values = args[:3]
        axes = {axis for axis, place in enumerate(places) if place is not None}
        axes |= set(range(max((p.ndim for p in places if p is not None), default=0)))
        of_base, of_values = self.numbers_of(base), self.numbers_of(values)
        if of_values is None or axes & set(varying(of_base) if of_base is not None else ()):
            raise NotImplementedError(name)
        count = base.ndim - 1 - max(axes)  # the axes behind those of the places
        if any(axis < of_values.ndim - count for axis in varying(of_values)):
            raise NotImplementedError(name)
        other = of_values.reshape(of_values.shape[max(0, of_values.ndim - count) :])
        if of_base is not None:
            behind = of_base.reshape(of_base.shape[of_base.ndim - count :])
            self.ties.tie(behind, other)
            self._beside(behind, other)
        elif id(base) in self.neutral:  # rows put into zeros
            of_base = other.reshape([1] * (base.ndim - other.ndim) + list(other.shape))
        else:
            raise NotImplementedError(name)
        self._set(out, of_base)

    def _do_index_add(self, name: str, _: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        """Rows put, or added, at places along one axis of other rows, or of zeros."""
        base, axis = args[:2]
        source = args[3] if len(args) > 3 else kw.get("source", kw.get("src"))
        of_base, of_source = self.numbers_of(base), self.numbers_of(source)
        if of_source is None or axis % base.ndim in varying(of_source):
            raise NotImplementedError(name)
        if of_base is not None:
            if axis % base.ndim in varying(of_base):
                raise NotImplementedError(name)
            self.ties.tie(of_base, of_source)
            self._beside(of_base, of_source)
        elif id(base) not in self.neutral | self.constant:
            raise NotImplementedError(name)
        self._set(out, of_source)

    _do_index_copy = _do_index_reduce = _do_scatter_add = _do_scatter = _do_index_add
    _do_scatter_reduce = _do_index_add

    def _do_gather(self, name: str, _: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        numbers = self.numbers_of(args[0])
        axis = kw.get("dim", args[1]) % out.ndim
        along = [] if numbers is None else varying(numbers)
        if numbers is None or axis in along or out.shape != args[2].shape:
            raise NotImplementedError(name)
        if any(out.shape[a] != args[0].shape[a] for a in along):
            raise NotImplementedError(name)
        self._set(out, numbers)

    def _do_unfold(self, name: str, _: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        """Windows along one axis, whose places are along a last one."""
        numbers = self.numbers_of(args[0])
        axis = kw.get("dimension", args[1] if len(args) > 1 else 0)
        if numbers is None or axis % args[0].ndim in varying(numbers):
            raise NotImplementedError(name)
        self._set(out, numbers[..., None])

    def _do_glu(self, name: str, _: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        axis = kw.get("dim", args[1] if len(args) > 1 else -1) % out.ndim
        first, second = (compact(part) for part in self._full(args[0]).chunk(2, axis))
        self.ties.tie(first, second)
        self._beside(first, second)
        self._set(out, torch.maximum(*torch.broadcast_tensors(first, second)))

    def _do_im2col(self, name: str, _: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        channels = args[0].shape[-3]
        of = self._channels(self.numbers_of(args[0]), channels, -3)
        rows = of.repeat_interleave(out.shape[-2] // channels)
        self._set(out, rows.reshape([1] * (out.ndim - 2) + [-1, 1]))

    def _do_col2im(self, name: str, _: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        rows = self._channels(self.numbers_of(args[0]), args[0].shape[-2], -2)
        of = self.ties.merge(rows.reshape(out.shape[-3], -1), [1], self.over())
        self._set(out, of.reshape([1] * (out.ndim - 3) + [-1, 1, 1]))

    def _do_grid_sampler(self, name: str, _: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        if self.numbers_of(args[1]) is not None:
            raise NotImplementedError(name)
        of = self._channels(self.numbers_of(args[0]), out.shape[1], 1)
        self._set(out, of.reshape([1, -1] + [1] * (out.ndim - 2)))

    _do_grid_sampler_2d = _do_grid_sampler_3d = _do_grid_sampler

    def _do__local_scalar_dense(self, *_: Any) -> None:
        """A number read from a tensor: the branch that it decides is seen in the check."""

    def _do_constant_pad_nd(self, name: str, _: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        numbers = self.numbers_of(args[0])
        assert numbers is not None
        grown = [a for a in varying(numbers) if args[0].shape[a] != out.shape[a]]
        if not grown:
            self._set(out, numbers)
            return
        mode = (args[2] if len(args) > 2 else kw.get("mode", "constant")) if name == "pad" else ""
        if mode not in ("", "constant"):  # reflected channels
            raise NotImplementedError(mode)
        self._set(out, compact(torch.constant_pad_nd(self._full(args[0]), args[1], 0)))

    _do_pad = _do_constant_pad_nd
