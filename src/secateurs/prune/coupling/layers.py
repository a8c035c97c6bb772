"""What layers do with numbers: those that make units from others."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.nets.layers import LAYERS, TRANSPOSED
from secateurs.prune.coupling.numbering import Event, unexpanded
from secateurs.prune.coupling.operations import Operations
from secateurs.prune.coupling.origins import Origin
from secateurs.prune.coupling.standardised import standardised_weights
from secateurs.prune.coupling.union_find import varying

RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
# Operations that make units of their own, also from what has none.
MAKING = RECURRENT | {
    *("linear", "convolution", "bilinear", "embedding", "embedding_bag", "_embedding_bag"),
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("matmul", "bmm", "mm", "addmm", "deform_conv2d"),
}


def _goes_with(origin: Origin, axis: int, numbers: Tensor) -> bool:
    """Whether the same places along an axis of a parameter always have the same numbers."""
    places = origin.places[axis].flatten()
    if len(places) != len(numbers):
        return False
    full = torch.zeros(origin.source.shape[axis], dtype=numbers.dtype)
    full[places] = numbers
    return bool((full[places] == numbers).all())


class LayerRules(Operations):
    """Rules of linear layers and convolutions."""

    def __init__(self, bare: nn.Module, *, second: bool = False) -> None:
        super().__init__(bare, second=second)
        self.layers: dict[int, str] = {}  # paths of layers by the identity of their weights
        self.compiled: dict[int, str] = {}  # why, by the identity of the weights
        self.held: list[Tensor] = []  # so that these keep their identities
        self.standardised = standardised_weights(bare)
        for path, module in bare.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                self.held += module.parameters(recurse=False)
                why = f"{path} reads it, which TorchScript compiled"
                self.compiled |= {id(p): why for p in module.parameters(recurse=False)}
            if isinstance(module, LAYERS):
                # A weight that is computed from others is no parameter, and new in every run.
                weight = dict(module.named_parameters(recurse=False)).get("weight")
                if weight is not None:
                    self.layers.setdefault(id(weight), path)

    def _do_linear(self, _: str, __: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        bias = args[2] if len(args) > 2 else kw.get("bias")
        self._layer(args[0], args[1], bias, out, axis=-1, groups=1)

    def _do_convolution(self, _: str, func: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        """Any convolution, by the names that its operation gives its arguments."""
        named = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
        named |= dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kw
        self._layer(
            named["input"],
            named["weight"],
            named.get("bias"),
            out,
            axis=1 - named["weight"].ndim,
            groups=named["groups"],
            transposed=named.get("transposed", "transpose" in func._schema.name),
        )

    _do_conv1d = _do_conv2d = _do_conv3d = _do_convolution
    _do_conv_transpose1d = _do_conv_transpose2d = _do_conv_transpose3d = _do_convolution

    def _do_deform_conv2d(self, name: str, _: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        """torchvision's: what says where it looks and how much it counts stays."""
        x, weight, offset, mask, bias = args[:5]
        for tensor in (offset, mask):
            if (numbers := self.numbers_of(tensor)) is not None:
                self.ties.fix(numbers, f"{self.where()} takes places and weights from it")
        places = 2 * weight[0, 0].numel()
        if x.shape[1] != weight.shape[1] or offset.shape[1] != places:  # groups of either kind
            self._unknown(name, [x])
            return
        self._weights(x, weight, bias, out, sides=(0, 1), axis=-3)

    def _layer(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        out: Tensor,
        *,
        axis: int,
        groups: int,
        transposed: bool = False,
    ) -> None:
        sides = (1, 0) if transposed else (0, 1)
        path = self.layers.get(id(weight))
        # A layer that another module computes with, by a function, does not run itself: what it
        # receives is seen by no hook.
        by_function = groups == 1 and getattr(self.here(), "weight", None) is not weight
        if path is None or by_function or isinstance(self.modules[path], TRANSPOSED) != transposed:
            self._weights(x, weight, bias, out, sides=sides, axis=axis, groups=groups)
            return
        if self.stack and getattr(self.here(), "weight", None) is weight:
            path = self.stack[-1]  # one of several layers with the same weights
        outputs, inputs = (weight.shape[side] for side in sides)
        if transposed:
            outputs *= groups
        else:
            inputs *= groups
        beside = self._beside_channels(x, weight, out, axis) if groups == 1 else None
        numbers = None if beside is not None else self.numbers_of(x)
        read = self._channels(numbers, inputs, axis)
        # A transposed convolution multiplies at each place of its input, others of their output.
        places = x.numel() // inputs if transposed else out.numel() // outputs
        kernel = weight[0, 0].numel()
        if groups == 1:
            made = self._made(weight, sides[0], outputs)
            self.multiplied(places * kernel, (outputs, inputs), [(made, (0,)), (read, (1,))])
            if id(x) not in self.neutral:
                read = self.along(weight, sides[1], read, self.not_blank(x, axis))
            if bool(read.any()):
                self.note(Event(path, "in", read))
            self.note(Event(path, "out", made))
        else:
            # A unit is one of the convolution's groups: what it reads and makes goes together.
            made = self._made(weight, 0, outputs, of=groups)
            unit = made.reshape(groups, -1)[:, 0]
            rows = read.reshape(groups, -1)
            self.ties.tie(rows, unit[:, None])
            self.ties.fix(unit[(rows == 0).any(1)], f"{self.where()} also reads what has to stay")
            self.multiplied(places * kernel * (inputs // groups), (outputs,), [(made, (0,))])
            self.note(Event(path, "both", made))
        if bias is not None and getattr(self.modules[path], "bias", None) is not bias:
            self._carried(bias, made)
        if beside is not None:
            self.ties.fix(made, f"{self.where()} makes it beside units of another axis")
            self._set(out, beside)
            return
        shape = [1] * out.ndim
        shape[axis] = outputs
        self._set(out, made.reshape(shape))

    def _beside_channels(self, x: Tensor, weight: Tensor, out: Tensor, axis: int) -> Tensor | None:
        """Numbers along axes that a layer does not mix, as channels in a product over tokens.

        None where there are none, or where what the layer makes is cut instead of them.
        """
        numbers = self.numbers_of(x)
        if numbers is None or not varying(numbers) or numbers.shape[axis] > 1:
            return None
        if x.shape[axis + 1 :] != out.shape[axis + 1 :] and axis != -1:
            return None
        if weight[0, 0].numel() > 1:  # a kernel mixes places
            return None
        self.ties.chose = True
        return numbers if self.ties.second else None

    def _made(self, weight: Tensor, axis: int, width: int, of: int | None = None) -> Tensor:
        """Numbers (width,) of what a weight makes along an axis: the same in every use of it."""
        known = self.known_along(weight, axis)
        if known is not None:
            if not bool((known == 0).any()):
                return known
            if len(known) == 1:
                return known
            self.ties.fix(known, f"{self.where()} makes more with the weights of another layer")
        if (of or width) == 1:  # which cannot be cut, and ties all that it meets to itself
            return self.along(weight, axis, torch.zeros(width, dtype=torch.int32))
        fresh = self.ties.fresh(of or width).repeat_interleave(width // (of or width))
        return self.along(weight, axis, fresh)

    def _carried(self, parameter: Tensor, numbers: Tensor) -> None:
        """Numbers along a parameter that goes with them channel by channel."""
        if (known := self.numbers_of(parameter)) is not None:
            self.ties.tie(known, numbers)
            self._beside(known, numbers)
        elif id(parameter) in self.origins and parameter.ndim == 1:
            self.adopt(parameter, numbers)
        elif (pieces := self.pieces.get(id(parameter))) is not None:
            for piece, part in zip(pieces, numbers.split([len(p) for p in pieces]), strict=True):
                if id(piece) not in self.neutral:
                    self._carried(piece, part)
        else:
            self.ties.fix(numbers, f"{self.where()} adds what cannot be cut")

    def _weights(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        out: Tensor,
        *,
        sides: tuple[int, int],
        axis: int,
        groups: int = 1,
    ) -> None:
        """A product with weights that are no layer's own, such as another layer's transposed.

        `sides` are the axes of the weight that make and that read, `axis` that of the channels.
        """
        makes, reads = sides
        width, size = weight.shape[makes], weight.shape[reads]
        transposed = makes > reads and axis != -1
        if groups > 1 and (transposed or x.shape[axis] != groups * size):
            self._refused(x, weight)
            return
        if groups > 1 and size == 1:
            self._depthwise(x, weight, bias, out, axis=axis, groups=groups)
            return
        if (passed := self._past_weights(x, weight, sides, axis)) is not None:
            self.multiplied(out.numel() // width, (width, size), [])
            self._set(out, passed)
            return
        own = self._own_units(weight, sides)
        if own is not None and own.shape[reads] > 1 and id(x) in self.origins and groups == 1:
            self._met_by(x, own.flatten(), axis)
        read = self._channels(self.numbers_of(x), groups * size, axis)
        # As many samples side by side, each with weights of its own.
        read = self.ties.merge(read.reshape(groups, size), [0], self.over()).flatten().expand(size)
        self._read_with(weight, own, read, reads, self.not_blank(x, axis))
        made = self._made_with(weight, own, makes)
        labels = [(made, (0,)), (read, (1,))]
        each = out.numel() // width * math.prod(weight.shape[max(sides) + 1 :])
        self.multiplied(each // groups or 1, (width, size), labels)
        if made is None:
            if bias is not None and (some := self.numbers_of(bias)) is not None:
                self.ties.fix(some, f"{self.where()} adds it to what cannot be cut")
            return
        if groups > 1:
            apart = self.ties.merge(made.reshape(groups, -1), [0], self.over())
            made = apart.expand(groups, width // groups).flatten()
        if bias is not None:
            self._carried(bias, made)
        shape = [1] * out.ndim
        shape[axis] = width
        self._set(out, made.reshape(shape))

    def _past_weights(
        self, x: Tensor, weight: Tensor, sides: tuple[int, int], axis: int
    ) -> Tensor | None:
        """Numbers along axes that weights do not mix, as the channels of tasks that they weigh.

        None where there are none, or where what the weights make or read is cut instead of them.
        """
        numbers = self.numbers_of(x)
        if numbers is None or not {*varying(numbers)} - {axis % x.ndim}:
            return None
        if weight.shape[max(sides) + 1 :].numel() > 1 or self.numbers_of(weight) is not None:
            return None  # a kernel mixes places
        self.ties.chose = True
        return self.ties.merge(numbers, [axis % x.ndim]) if self.ties.second else None

    def _met_by(self, x: Tensor, numbers: Tensor, axis: int) -> None:
        """A parameter that is multiplied with a weight takes the units of the weight's inputs."""
        if self.numbers_of(x) is None:
            shape = [-1 if k == axis % x.ndim else 1 for k in range(x.ndim)]
            self.adopt(x, numbers.reshape(shape))
            self._set(x, numbers.reshape(shape))

    def _refused(self, x: Tensor, weight: Tensor) -> None:
        why = self.compiled.get(id(weight), "")
        why = why or f"{self.where()} reads it with weights that are no layer's"
        for tensor in (x, weight):
            if (some := self.numbers_of(tensor)) is not None:
                self.ties.fix(some, why)

    def _depthwise(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, *, axis: int, groups: int
    ) -> None:
        """A convolution by a function of each channel with a kernel of its own, or of all."""
        width = len(weight)
        read = self._channels(self.numbers_of(x), groups, axis)
        made = read.repeat_interleave(width // groups)
        makers = self._sources(weight, 0, made)
        if not makers and unexpanded(weight)[0] > 1:
            self._refused(x, weight)
            return
        if bool(made.any()):
            for origin, k in makers:
                self._part(origin, k, made, "both")
            if bias is not None:
                self._carried(bias, made)
        kernel = weight[0, 0].numel()
        self.multiplied(out.numel() // width * kernel, (width,), [(made, (0,))])
        shape = [1] * out.ndim
        shape[axis] = width
        self._set(out, made.reshape(shape))

    def _own_units(self, weight: Tensor, sides: tuple[int, int]) -> Tensor | None:
        """Numbers that a computed weight has itself, along the axis that makes or that reads."""
        numbers = self.numbers_of(weight)
        if numbers is None:
            return None
        along = varying(numbers)
        if len(along) > 1:
            self.ties.chose = True
        wanted = [side for side in (sides[::-1] if self.ties.second else sides) if side in along]
        if not wanted:
            self.ties.fix(numbers, f"{self.where()} takes weights of its layer from it")
            return None
        return self.ties.merge(numbers, [a for a in along if a != wanted[0]], self.over())

    def _read_with(
        self,
        weight: Tensor,
        own: Tensor | None,
        read: Tensor,
        reads: int,
        given: Tensor | None,
    ) -> None:
        """Units (inputs,) that are read with a weight that is no layer's own, or is computed."""
        known = bool(read.any())
        if own is not None and own.shape[reads] > 1:
            self.ties.tie(read, own.flatten())
            self._beside(read, own.flatten())
            self.contract([read, own.flatten()])
            return
        readers = self._sources(weight, reads, read)
        for origin, k in readers:
            standard = id(origin.source) in self.standardised
            if k in origin.counted and not standard:
                why = f"{self.where()} takes statistics of its weights over what it reads"
                self.ties.fix(read, why)
            elif known or self.known_along(origin.source, k) is not None:
                self._part(origin, k, read, "in", given, norm=standard)
        if known and not readers:
            self._refused_read(read, weight)

    def _refused_read(self, read: Tensor, weight: Tensor) -> None:
        why = self.compiled.get(id(weight), "")
        self.ties.fix(read, why or f"{self.where()} reads it with weights that are no layer's")

    def _made_with(self, weight: Tensor, own: Tensor | None, makes: int) -> Tensor | None:
        """Units (outputs,) that such a weight makes; None where it has none."""
        if own is not None and own.shape[makes] > 1:
            return own.flatten()
        makers = [(o, k) for o, k in self._sources(weight, makes) if k not in o.mixed]
        if not makers:
            return None
        first, k = makers[0]
        made = self._made(first.source, k, first.source.shape[k])[first.places[k].flatten()]
        for origin, k in makers:
            self._part(origin, k, made, "out" if origin is first else "both")
        return made

    def _sources(
        self, weight: Tensor, axis: int, numbers: Tensor | None = None
    ) -> list[tuple[Origin, int]]:
        """The parameters that a weight comes from along an axis, and which axis of each."""
        found = self.origins.get(id(weight), ())
        return [(o, k) for o in found if (k := self._axis_at(o, axis, numbers)) is not None]

    def _axis_at(self, origin: Origin, axis: int, numbers: Tensor | None = None) -> int | None:
        """The axis of a parameter along which units go that are along an axis of a tensor.

        The longest where several are folded into one, as experts and their units; `second`: the
        shortest. Of these the one that goes with `numbers`, where one does.
        """
        found = origin.axes_at(axis)
        if numbers is not None and bool(numbers.any()):
            fit = [k for k in found if _goes_with(origin, k, numbers)]
            found = fit or found
        if len(found) > 1:
            self.ties.chose = True
        found.sort(key=lambda k: origin.source.shape[k], reverse=not self.ties.second)
        return found[0] if found else None

    def _part(
        self,
        origin: Origin,
        axis: int,
        numbers: Tensor,
        side: Any,
        given: Tensor | bool | None = None,
        *,
        norm: bool = False,
    ) -> None:
        """Numbers along an axis of a parameter, of which a tensor has a part; those `given`."""
        places = origin.places[axis].flatten()
        full = torch.zeros(origin.source.shape[axis], dtype=torch.int32)
        known = torch.zeros(len(full), dtype=torch.bool)
        full[places], known[places] = numbers, True if given is None else given
        self.ties.tie(full[places], numbers)  # a place that is there several times
        whole = self.along(origin.source, axis, full, known)
        self.note(Event(origin.path, side, whole, origin.name, axis, norm))
