"""What products, bilinear layers, embeddings and recurrent layers do with numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateurs.prune.coupling.layers import LayerRules
from secateurs.prune.coupling.union_find import varying

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


class OtherLayerRules(LayerRules):
    """Rules of products with parameters, bilinear layers, embeddings and recurrent layers."""

    def _do_matmul(self, name: str, __: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        a, b = args[:2]
        if min(a.ndim, b.ndim) >= 2:
            if any(id(tensor) in self.origins for tensor in (a, b)):
                self._product_origins(a, b, out)
                if self._side_by_side(a, b, out):
                    return
            if self.numbers_of(b) is None and id(b) in self.origins:
                sides = (b.ndim - 1, b.ndim - 2)
                self._weights(a, b, None, out, sides=sides, axis=-1)
                return
            if self.numbers_of(a) is None and id(a) in self.origins:
                sides = (a.ndim - 2, a.ndim - 1)
                self._weights(b, a, None, out, sides=sides, axis=-2)
                return
        if any(self.numbers_of(tensor) is not None for tensor in (a, b)):
            super()._do_matmul(name, __, args, kw, out)

    def _side_by_side(self, a: Tensor, b: Tensor, out: Tensor) -> bool:
        """Products side by side, one for each unit, with a parameter that has a part for each."""
        for x, weight in ((a, b), (b, a)):
            numbers = self.numbers_of(x)
            if numbers is None or x.ndim != weight.ndim or self.numbers_of(weight) is not None:
                continue
            along = varying(numbers)
            if along and all(k < x.ndim - 2 and weight.shape[k] == x.shape[k] for k in along):
                taken = self._taken(weight, numbers)
                if taken is None:
                    return False
                self._matrices(a.shape, self.numbers_of(a), b.shape, self.numbers_of(b))
                self._set(out, numbers)
                return True
        return False

    _do_bmm = _do_mm = _do_matmul

    def _do_addmm(self, name: str, func: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        bias, a, b = args[:3]
        if self.numbers_of(b) is None and id(b) in self.origins:
            self._weights(a, b, bias, out, sides=(1, 0), axis=-1)
        elif any(self.numbers_of(tensor) is not None for tensor in args[:3]):
            super()._do_addmm(name, func, args, kw, out)

    def _do_bilinear(self, _: str, __: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        weight = args[2]
        bias = args[3] if len(args) > 3 else None
        (origin,) = self.origins[id(weight)]
        for x, axis in ((args[0], 1), (args[1], 2)):
            read = self._channels(self.numbers_of(x), weight.shape[axis], -1)
            if bool(read.any()) or self.known_along(origin.source, axis) is not None:
                self._part(origin, axis, read, "in")
        made = self._made(weight, 0, len(weight))
        self._part(origin, 0, made, "out")
        if bias is not None:
            self._carried(bias, made)
        self._set(out, made.reshape([1] * (out.ndim - 1) + [-1]))

    def _do_embedding(self, _: str, __: Any, args: list[Any], kw: Any, out: Any) -> None:
        weight = args[0]
        (origin,) = self.origins[id(weight)]
        made = self._made(weight, 1, weight.shape[1])
        self._part(origin, 1, made, "out")
        for tensor in tree_leaves(out)[:1]:
            self._set(tensor, made.reshape([1] * (tensor.ndim - 1) + [-1]))

    _do_embedding_bag = _do__embedding_bag = _do_embedding

    def _do_lstm(self, name: str, _: Any, args: list[Any], kw: Any, out: Any) -> None:
        """All layers and directions of a recurrent module have the same units: it has one width."""
        packed = isinstance(args[3], list | tuple)  # with the sizes of its batches first
        x, given, weights = (args[0], args[2], args[3]) if packed else (args[0], args[1], args[2])
        rest = args[4:] if packed else args[3:]
        has_biases, num_layers, _dropout, _train, bidirectional = rest[:5]
        module = self.here()
        if not isinstance(module, nn.RNNBase):
            raise NotImplementedError(name)
        gates, directions = GATES[name], 2 if bidirectional else 1
        if module.proj_size:
            self._projected(x, weights, given, directions, 5 if has_biases else 3)
            return
        units = self._made(weights[1], 1, module.hidden_size)
        read = self._channels(self.numbers_of(x), weights[0].shape[1], -1)
        each = 4 if has_biases else 2
        steps = x.numel() // x.shape[-1]
        for layer in range(num_layers):
            for direction in range(directions):
                made = units.repeat(gates)
                own = weights[(layer * directions + direction) * each :][:each]
                for place, tensor in enumerate(own):
                    (origin,) = self.origins[id(tensor)]
                    self._part(origin, 0, made, "out")
                    if tensor.ndim == 2:
                        labels = [(made, (0,)), (units if place else read, (1,))]
                        self.multiplied(steps, tensor.shape, labels)
                    if place == 1:
                        self._part(origin, 1, units, "in")
                    elif place == 0 and bool(read.any()):
                        self._part(origin, 1, read, "in")
            read = units.repeat(directions)
        for state in given if isinstance(given, list | tuple) else [given]:
            if (numbers := self.numbers_of(state)) is not None:
                start = self._channels(numbers, len(units), -1)
                self.ties.tie(start, units)
                self._beside(start, units)
        outputs, *states = tree_leaves(out)
        self._set(outputs, read.reshape([1] * (outputs.ndim - 1) + [-1]))
        for state in states:
            self._set(state, units.reshape([1] * (state.ndim - 1) + [-1]))

    def _projected(
        self, x: Tensor, weights: Sequence[Tensor], given: Any, directions: int, each: int
    ) -> None:
        """A recurrent module that projects its units, which stay: what it reads can go."""
        if any(self.numbers_of(state) is not None for state in tree_leaves(given)):
            raise NotImplementedError("a state with units")
        read = self._channels(self.numbers_of(x), weights[0].shape[1], -1)
        for direction in range(directions):
            (origin,) = self.origins[id(weights[direction * each])]
            if bool(read.any()):
                self._part(origin, 1, read, "in")
            labels = [(read, (1,))]
            self.multiplied(x.numel() // x.shape[-1], weights[direction * each].shape, labels)

    _do_gru = _do_rnn_tanh = _do_rnn_relu = _do_lstm
