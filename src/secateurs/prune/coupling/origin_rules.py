"""What becomes of the parameters that tensors without numbers come from, operation by operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from secateurs.prune.coupling.matrix_products import MatrixProducts
from secateurs.prune.coupling.numbering import unexpanded
from secateurs.prune.coupling.origins import Origin
from secateurs.prune.coupling.union_find import varying


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
PER_CHANNEL = _names("fake_quantize_per_channel_affine fake_quantize_per_channel_affine_cachemask")
BATCH_NORMING = _names("batch_norm _batch_norm_impl_index native_batch_norm")
ALONG = _names("softmax _softmax log_softmax _log_softmax cumsum cumprod logcumsumexp")


def _any_of(index: Tensor | None) -> Tensor | None:
    """An index of the same shape, all of the first entry, where values are not known."""
    if index is None or index.is_floating_point() or index.dtype in (torch.bool, torch.uint8):
        return index
    return torch.zeros(index.shape, dtype=torch.int64)


def reduced_axes(name: str, args: list[Any], kw: Any) -> list[int]:
    """The axes that a reduction goes over."""
    place = 2 if name in ("norm", "linalg_vector_norm") else 1
    axes = kw.get("dim", args[place] if len(args) > place else None)
    if axes is None or axes == []:
        axes = list(range(args[0].ndim))
    axes = [axes] if isinstance(axes, int) else list(axes)
    return [axis % args[0].ndim for axis in axes]


class OriginRules(MatrixProducts):
    """Rules of weights that are computed of parameters: which axis of which they come from."""

    def move_origins(self, name: str, func: Any, args: list[Any], kw: Any, out: Any) -> None:
        """What is a part or a function of parameters comes from them, axis by axis.

        Of a form of the operation that no rule knows, as under `vmap`, nothing is known.
        """
        try:
            self._follow_origins(name, func, args, kw, out)
        except Exception:  # whatever a rule meets
            for leaf in tree_leaves(out):
                self.origins.pop(id(leaf), None)

    def _follow_origins(self, name: str, func: Any, args: list[Any], kw: Any, out: Any) -> None:
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
        elif name in ("constant_pad_nd", "pad"):
            grown = [k for k in range(out.ndim) if out.shape[k] != args[0].shape[k]]
            found = [origin.reduced(grown, keep=True) for origin in self.origins[id(args[0])]]
            self._set_origins(out, found)
        elif name in BATCH_NORMING:
            self._norm_origins(args, tree_leaves(out)[0])
        elif name == "_weight_norm_interface":
            self._weight_norm_origins(args, kw, out[0])
        elif name in PER_CHANNEL:
            axis = args[3] % args[0].ndim
            scales = [self._along_axis(own, axis, args[0].ndim) for own in args[1:3]]
            found = self._joined([self._aligned(args[0], args[0].ndim), *scales])
            self._set_origins(tree_leaves(out)[0], found)
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
        axes = reduced_axes(name, args, kw)
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
                found.append(self._along_axis(own, 1, out.ndim))
        self._set_origins(out, self._joined(found))

    def joined_origins(self, tensors: Sequence[Tensor], axis: int, out: Tensor) -> None:
        """What is put together of parameters, and of numbers, comes from them along other axes."""
        others = self.neutral | self.constant
        if all(id(tensor) in self.origins or id(tensor) in others for tensor in tensors):
            parts = [
                [o.reduced([axis], keep=True) for o in self.origins.get(id(tensor), ())]
                for tensor in tensors
            ]
            self._set_origins(out, self._joined([(part, set()) for part in parts]))

    def _along_axis(self, own: Tensor, axis: int, depth: int) -> tuple[list[Origin], set[int]]:
        """The origins of a vector along one of so many axes, and the axis it has from elsewhere.

        Along it a vector of one number, or of the same number everywhere, is from nowhere.
        """
        origins = self.origins.get(id(own), ())
        if not origins and (own.numel() == 1 or id(own) in self.neutral | self.constant):
            return [], set()
        return [origin.along(axis, depth) for origin in origins], set() if origins else {axis}

    def _weight_norm_origins(self, args: list[Any], kw: Any, out: Tensor) -> None:
        """Rows of a direction divided by their lengths, times a length of each."""
        direction, length = args[:2]
        axis = kw.get("dim", args[2] if len(args) > 2 else 0)
        others = [k for k in range(out.ndim) if k != axis % out.ndim]
        origins = self.origins[id(direction)]
        rows = [origin.mixed_along(others, counted=False) for origin in origins]
        self._set_origins(out, self._joined([(rows, set()), self._aligned(length, out.ndim)]))

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
