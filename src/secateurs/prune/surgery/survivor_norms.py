"""Norms over the channels that stay: what a narrower norm is compared with.

A norm over all channels of a layer gives other statistics when some of them are gone. With units
zeroed it has to compute them over the survivors too, or nothing could be compared.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from secateurs.nets.layers import channel_axis, inputs_of
from secateurs.prune.coupling.custom_layers import PassThrough
from secateurs.prune.coupling.own_norms import bare_copy, known_rule
from secateurs.prune.coupling.standardised import narrowed, standardised_weight


def norm_over_survivors(model: nn.Module, path: str, tensor: str, gone: Tensor) -> nn.Module:
    """Let the norm of a module work over the channels that are not `gone`, see `over_survivors`.

    With a `tensor` it is this parameter of the module that the norm has. Returns the module whose
    `forward` is set.
    """
    owner = model.get_submodule(path)
    layer, weight = model.get_submodule(path.partition(".parametrizations.")[0]), tensor
    if ".parametrizations." in path:
        weight = f"parametrizations.{path.partition('.parametrizations.')[2]}.{tensor}"
    if tensor and standardised_weight(layer) == weight:
        _over_few_inputs(layer, weight, gone)
        return layer
    rule = known_rule(owner) if tensor else None
    if rule is not None and rule.norm:
        _narrow_forward(owner, gone, rule)
        return owner
    wrapped = model if tensor else owner
    over_survivors(wrapped, gone, getattr(owner, tensor) if tensor else None)
    return wrapped


def _over_few_inputs(layer: nn.Module, weight: str, gone: Tensor) -> None:
    """Let a layer that standardises its weights run without the inputs that are `gone`."""
    stays = _staying(inputs_of(layer), gone)
    small = narrowed(layer, weight, stays)
    axis = channel_axis(layer)
    layer.forward = lambda x: small(x.index_select(axis, stays.to(x.device)))


def _narrow_forward(module: nn.Module, gone: Tensor, rule: PassThrough) -> None:
    """Let a module that is a norm of its own run without the channels that are `gone`."""
    small = bare_copy(module)
    size = max(getattr(module, name).shape[axis] for name, axis in rule.tensors.items())
    stays = _staying(size, gone)
    for name, axis in rule.tensors.items():
        old = getattr(module, name)
        left = old.detach().index_select(axis, stays.to(old.device))
        setattr(small, name, nn.Parameter(left) if isinstance(old, nn.Parameter) else left)

    def narrowed(x: Tensor) -> Tensor:
        places = stays.to(x.device)
        cut = x.index_select(rule.axis, places)
        try:
            found = small(cut)
        except Exception:  # it says its width itself
            _tell_width(small, size, len(stays))
            found = small(cut)
        return torch.zeros_like(x).index_copy(rule.axis, places, found)

    module.forward = narrowed


def _tell_width(module: nn.Module, before: int, now: int) -> None:
    """Put another width in the place of one, in a module's own numbers and tuples of them."""
    for name, value in [*vars(module).items()]:
        if type(value) is int and value == before:
            setattr(module, name, now)
        elif isinstance(value, tuple | list) and before in value:
            setattr(module, name, type(value)([now if one == before else one for one in value]))


def _staying(size: int, gone: Tensor) -> Tensor:
    """The places of so many channels that are not `gone`."""
    stays = torch.ones(size, dtype=torch.bool)
    stays[gone] = False
    return stays.nonzero().flatten()


def over_survivors(module: nn.Module, gone: Tensor, weight: Tensor | None = None) -> None:
    """Let a norm work over the channels that are not `gone`, which come out as zeros.

    With a `weight` these are the norms that `module` computes by a function with this parameter.
    Sets `forward` on the module itself; delete that attribute to undo it.
    """
    forward = module.forward

    def narrowed(*args: Any, **kwargs: Any) -> Any:
        with _Survivors(gone, weight):
            return forward(*args, **kwargs)

    module.forward = narrowed


class _Survivors(TorchFunctionMode):
    """Layer, RMS and group norms (one group) over some channels only."""

    def __init__(self, gone: Tensor, weight: Tensor | None) -> None:
        super().__init__()
        self.gone, self.weight = gone, weight

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.weight is not None and not any(
            value is self.weight for value in (*args, *kwargs.values())
        ):
            return func(*args, **kwargs)
        if func in (F.layer_norm, F.rms_norm, torch.layer_norm, torch.rms_norm):
            return self._narrowed(func, -len(args[1]), args[0], args[1], args[2:], kwargs)
        if func in (F.group_norm, torch.group_norm):
            return self._narrowed(func, 1, args[0], args[1], args[2:], kwargs)
        return func(*args, **kwargs)

    def _narrowed(
        self, func: Any, axis: int, x: Tensor, size: Any, rest: Any, kwargs: dict[str, Any]
    ) -> Tensor:
        stays = _staying(x.shape[axis], self.gone).to(x.device)

        def cut(value: Any) -> Any:
            return value[stays] if isinstance(value, Tensor) else value

        size = size if axis == 1 else [len(stays), *size[1:]]
        small = x.index_select(axis, stays)
        found = func(
            small, size, *map(cut, rest), **{name: cut(value) for name, value in kwargs.items()}
        )
        return torch.zeros_like(x).index_copy(axis, stays, found)
