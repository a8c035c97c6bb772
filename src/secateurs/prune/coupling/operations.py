"""What becomes of the numbers of units in each operation of a network: one small rule for each.

An operation that has no rule, or a form that its rule does not know, makes what goes in stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from secateurs.prune.coupling.matrix_products import MatrixProducts
from secateurs.prune.coupling.numbering import unexpanded
from secateurs.prune.coupling.origins import Origin
from secateurs.prune.coupling.union_find import compact, varying


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


ELEMENTWISE = _names(
    "abs add addcmul alias asinh atan atan2 ceil cosh erfinv floor fmod hardshrink hypot round"
    " rrelu_with_noise sinh softshrink softsign tan threshold trunc copy"
    " celu clamp clamp_max clamp_min clone contiguous cos detach div dropout"
    " elu erf exp expm1 feature_dropout float gelu hardsigmoid hardswish hardtanh leaky_relu lerp"
    " log log1p log_sigmoid masked_fill maximum minimum mish mul neg nan_to_num pow reciprocal relu"
    " relu6 rsqrt rsub selu sigmoid sign silu sin softplus sqrt square sub tanh to _to_copy"
    " complex polar angle conj _conj conj_physical resolve_conj resolve_neg _neg_view"
    " type_as where alpha_dropout gt lt ge le eq ne logical_not logical_and logical_or"
    " logical_xor bitwise_and bitwise_or bitwise_xor bitwise_not acos asin atanh acosh exp2 log2"
    " log10 log1p erfc sinc frac logit lgamma digamma i0 xlogy xlog1py nextafter remainder"
    " floor_divide true_divide divide multiply subtract special_expit isnan isinf isfinite"
    " heaviside float_power deg2rad rad2deg copysign addcdiv"
    " fake_quantize_per_tensor_affine real imag"
)
MOVING = _names(
    "expand flatten flip movedim moveaxis permute pixel_shuffle pixel_unshuffle repeat"
    " reshape roll squeeze swapaxes t tile transpose unflatten unsqueeze view _unsafe_view"
    " numpy_T adjoint mT"
)
RESHAPING = _names("reshape view _unsafe_view unflatten pixel_unshuffle")
PARTING = _names("chunk split split_with_sizes tensor_split unbind unsafe_chunk")
REDUCING = _names(
    "amax amin mean sum var std norm linalg_vector_norm logsumexp prod var_mean nansum"
)
SUMMING = _names("sum nansum norm linalg_vector_norm")  # zeros change nothing
NOT_COUNTING = SUMMING | {"amax"}  # of magnitudes
POOLING = _names(
    "avg_pool1d max_pool1d max_pool1d_with_indices adaptive_avg_pool1d adaptive_max_pool1d"
    " avg_pool2d max_pool2d max_pool2d_with_indices adaptive_avg_pool2d adaptive_max_pool2d"
    " avg_pool3d max_pool3d max_pool3d_with_indices adaptive_avg_pool3d adaptive_max_pool3d"
    " _adaptive_avg_pool2d _adaptive_avg_pool3d lp_pool2d upsample_linear1d upsample_nearest1d"
    " _upsample_nearest_exact1d upsample_bilinear2d upsample_nearest2d upsample_bicubic2d"
    " _upsample_nearest_exact2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"
    " upsample_trilinear3d upsample_nearest3d _upsample_nearest_exact3d"
)
PICKED = _names(
    "select slice narrow view_as reshape_as expand_as index view_as_complex view_as_real"
)
FOURIER = _names("_fft_r2c _fft_c2r _fft_c2c")
BATCH_NORMING = _names("batch_norm _batch_norm_impl_index native_batch_norm")
ALONG = _names("softmax _softmax log_softmax _log_softmax cumsum cumprod logcumsumexp")


def _any_of(index: Tensor | None) -> Tensor | None:
    """An index of the same shape, all of the first entry, where values are not known."""
    if index is None or index.is_floating_point() or index.dtype in (torch.bool, torch.uint8):
        return index
    return torch.zeros(index.shape, dtype=torch.int64)


def _reduced_axes(name: str, args: list[Any], kw: Any) -> list[int]:
    """The axes that a reduction goes over."""
    place = 2 if name in ("norm", "linalg_vector_norm") else 1
    axes = kw.get("dim", args[place] if len(args) > place else None)
    if axes is None or axes == []:
        axes = list(range(args[0].ndim))
    axes = [axes] if isinstance(axes, int) else list(axes)
    return [axis % args[0].ndim for axis in axes]


class Operations(MatrixProducts):
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

    def move_origins(self, name: str, func: Any, args: list[Any], kw: Any, out: Any) -> None:
        """What is a part or a function of parameters comes from them, axis by axis."""
        if name in ELEMENTWISE and isinstance(out, Tensor):
            given = [t for t in tree_leaves((args, kw)) if isinstance(t, Tensor)]
            self._set_origins(out, self._joined([self._aligned(t, out.ndim) for t in given]))
            return
        if not args or not isinstance(args[0], Tensor) or id(args[0]) not in self.origins:
            return
        if name in REDUCING:
            self._reduce_origins(name, args, kw, out)
        elif name in ALONG:
            axis = kw.get("dim", args[1] if len(args) > 1 else -1) % args[0].ndim
            self._set_origins(out, [o.mixed_along([axis]) for o in self.origins[id(args[0])]])
        elif name in FOURIER:
            axes = [axis % args[0].ndim for axis in args[1]]
            found = [origin.reduced(axes, keep=True) for origin in self.origins[id(args[0])]]
            self._set_origins(out, found)
        elif name in BATCH_NORMING:
            self._norm_origins(args, tree_leaves(out)[0])
        else:
            self._move_origins(name, func, args, kw, out)

    def _move_origins(self, name: str, func: Any, args: list[Any], kw: Any, out: Any) -> None:
        if name in MOVING or name in PICKED:
            parts = [(None, out)]
        elif name in PARTING:
            parts = list(enumerate(out))
        else:
            return
        for place, tensor in parts:

            def move(places: Tensor, place: int | None = place, tensor: Tensor = tensor) -> Tensor:
                if name in ("view", "_unsafe_view", "view_as", "reshape_as"):  # may need a copy
                    return places.reshape(tensor.shape)
                if name == "expand_as":
                    return places.expand(tensor.shape)
                if name == "view_as_complex":
                    return places[..., 0]
                if name == "view_as_real":
                    return places[..., None].expand(tensor.shape)
                if name == "index":  # a table by entries: along these axes it is any of them
                    return func(places, [_any_of(index) for index in args[1]])
                moved = func(places, *args[1:], **kw)
                return moved if place is None else moved[place]

            self.origins[id(tensor)] = tuple(
                origin.moved(args[0].shape, move) for origin in self.origins[id(args[0])]
            )

    def _reduce_origins(self, name: str, args: list[Any], kw: Any, out: Any) -> None:
        axes = _reduced_axes(name, args, kw)
        for tensor in tree_leaves(out):
            keep, counted = tensor.ndim == args[0].ndim, name not in NOT_COUNTING
            origins = self.origins[id(args[0])]
            found = [origin.reduced(axes, keep=keep, counted=counted) for origin in origins]
            self._set_origins(tensor, found)

    def _norm_origins(self, args: list[Any], out: Tensor) -> None:
        """Weights standardised as the channels of one sample, with a scale and a shift of each."""
        others = [axis for axis in range(out.ndim) if axis != 1]
        found = [([o.mixed_along(others) for o in self.origins[id(args[0])]], set[int]())]
        for own in args[1:5]:
            if isinstance(own, Tensor):
                origins = self.origins.get(id(own), ())
                beside = [origin.along(1, out.ndim) for origin in origins]
                found.append((beside, set() if origins else {1}))
        self._set_origins(out, self._joined(found))

    def _aligned(self, tensor: Tensor, depth: int) -> tuple[list[Origin], set[int]]:
        """A tensor's origins with so many axes, and its axes that it has from elsewhere."""
        lead = depth - tensor.ndim
        axes = {lead + axis for axis, size in enumerate(unexpanded(tensor)) if size > 1}
        origins = [origin.aligned(depth) for origin in self.origins.get(id(tensor), ())]
        for origin in origins:
            axes -= {axis for places in origin.places for axis in varying(places)}
        return origins, axes

    def _product_origins(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        """A product of matrices of parameters comes from rows of one and columns of the other."""
        given: list[tuple[list[Origin], set[int]]] = []
        for tensor, inner in ((a, out.ndim - 1), (b, out.ndim - 2)):
            origins, along = self._aligned(tensor, out.ndim)
            reduced = [origin.reduced([inner], keep=True, counted=False) for origin in origins]
            given.append((reduced, along - {inner}))
        self._set_origins(out, self._joined(given))

    def _joined(self, given: Sequence[tuple[list[Origin], set[int]]]) -> list[Origin]:
        """A tensor computed element by element comes from all that it is computed from."""
        found: dict[int, Origin] = {}
        others: set[int] = set()  # axes along which it also comes from elsewhere
        for origins, along in given:
            others |= along
            for origin in origins:
                key = id(origin.source)
                found[key] = found[key].beside(origin) if key in found else origin
        return [origin.mixed_along(sorted(others)) for origin in found.values()]

    def _set_origins(self, tensor: Any, origins: Sequence[Origin]) -> None:
        known = tuple(origin for origin in origins if origin.is_known)
        if known:
            self.origins[id(tensor)] = known
        else:
            self.origins.pop(id(tensor), None)

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
        axes = _reduced_axes(name, args, kw)
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
