"""What norms and parametric activations do with numbers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateurs.prune.coupling.numbering import Event, owns
from secateurs.prune.coupling.other_layers import OtherLayerRules
from secateurs.prune.coupling.union_find import varying

LAYER_NORMS = (nn.LayerNorm, nn.RMSNorm)


class NormRules(OtherLayerRules):
    """Rules of norms, on those of layers."""

    def _do_batch_norm(self, _: str, __: Any, args: list[Any], kw: Any, out: Any) -> None:
        x = args[0]
        numbers = self.numbers_of(x)
        assert numbers is not None
        passed = self._channels(numbers, x.shape[1], 1)
        self._normed(passed, args[1:5])
        self._set(tree_leaves(out)[0], passed.reshape([1, -1, *[1] * (x.ndim - 2)]))

    def _normed(self, passed: Tensor, tensors: list[Any], *, over_all: bool = False) -> None:
        """Numbers (channels,) that the module, or the parameters given, norm channel by channel."""
        module = self.here()
        own = [t for t in tensors if isinstance(t, Tensor)]
        if module is not None and owns(module, own):
            numbers = self.along(module, 0, passed)
            self.note(Event(self.stack[-1], "both", numbers, norm=over_all))
            return
        for tensor in own:
            if id(tensor) not in self.origins:
                self.ties.fix(passed, f"{self.where()} norms it with what is no layer's")
            else:
                self.adopt(tensor, passed, norm=over_all and tensor is own[0])

    def _do_instance_norm(self, _: str, __: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        x = args[0]
        numbers = self.numbers_of(x)
        assert numbers is not None
        passed = self._channels(numbers, x.shape[1], 1)
        self._normed(passed, args[1:5])
        self._set(out, passed.reshape([1, -1, *[1] * (x.ndim - 2)]))

    def _do_layer_norm(self, _: str, __: Any, args: list[Any], kw: Any, out: Any) -> None:
        x, shape = args[:2]
        numbers = self.numbers_of(x)
        assert numbers is not None
        axes = range(numbers.ndim - len(shape), numbers.ndim)
        result = tree_leaves(out)[0]
        # A norm that is no module is known by its parameter.
        module = isinstance(self.here(), LAYER_NORMS)
        known = module or (len(shape) == 1 and any(id(t) in self.origins for t in args[2:3]))
        if not known or varying(numbers) != [axes[0]]:
            self._set(result, self.ties.merge(numbers, axes, self.over()))
            return
        self._normed(self._channels(numbers, x.shape[axes[0]], axes[0]), args[2:4], over_all=True)
        self._set(result, numbers)

    _do_native_layer_norm = _do_rms_norm = _do__fused_rms_norm = _do_layer_norm

    def _do_group_norm(self, name: str, _: Any, args: list[Any], kw: Any, out: Any) -> None:
        x = args[0]
        numbers = self.numbers_of(x)
        assert numbers is not None
        result = tree_leaves(out)[0]
        module = self.here()
        if not isinstance(module, nn.GroupNorm):
            self._set(result, self.ties.merge(numbers, range(1, numbers.ndim), self.over()))
            return
        passed = self._channels(numbers, x.shape[1], 1)
        groups = module.num_groups
        if groups > 1:  # all channels that are normed together
            apart = self.ties.merge(passed.reshape(groups, -1), [1], self.over())
            passed = apart.expand(groups, len(passed) // groups).flatten()
        self._normed(passed, [module.weight, module.bias], over_all=groups == 1)
        self._set(result, passed.reshape([1, -1, *[1] * (x.ndim - 2)]))

    _do_native_group_norm = _do_group_norm

    def _do_prelu(self, name: str, func: Any, args: list[Any], kw: Any, out: Tensor) -> None:
        x, slopes = args[:2]
        numbers = self.numbers_of(x)
        assert numbers is not None
        if slopes.numel() > 1:
            axis = 1 if x.ndim > 1 else 0
            numbers = self._channels(numbers, x.shape[axis], axis)
            self._normed(numbers, [slopes])
            numbers = numbers.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        self._set(out, numbers)
