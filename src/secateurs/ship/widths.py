"""The widths of a network's layers, and networks without values that have other widths."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateurs.nets.attention import BiasedAttention
from secateurs.nets.layers import (
    CONVOLUTIONS,
    LAYERS,
    TRANSPOSED,
    groups_of,
    inputs_of,
    kernel_of,
    width_of,
)
from secateurs.prune.surgery.resized import put_tensors
from secateurs.prune.surgery.width_attributes import channels_of, set_channels


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers of a model, by name, also those that are not saved."""
    named = [*model.named_parameters(remove_duplicate=False)]
    return dict([*named, *model.named_buffers(remove_duplicate=False)])


def widths_of(module: nn.Module) -> dict[str, int]:
    """The "in" and "out" widths of a layer, "groups" of a grouped convolution; {} without any.

    >>> widths_of(nn.Conv2d(8, 8, 3, groups=8))
    {'in': 8, 'out': 8, 'groups': 8}
    """
    if isinstance(module, LAYERS):
        width = {"in": inputs_of(module), "out": width_of(module)}
        return width | ({"groups": groups_of(module)} if groups_of(module) > 1 else {})
    if isinstance(module, BiasedAttention):
        heads = len(next(module.parameters(recurse=False)))
        return {"in": heads, "out": heads}
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) and len(module.normalized_shape) > 1:
        return {}
    channels = channels_of(module)
    return {} if channels is None else {"in": channels, "out": channels}


def with_widths(stock: nn.Module, widths: Mapping[str, Mapping[str, int]]) -> nn.Module:
    """A copy of a network without values in which some layers have other widths.

    The widths must be those of the layers' kinds, and no larger than they are.
    """
    model = copy.deepcopy(stock)
    for path, width in widths.items():
        _resize(model.get_submodule(path), width)
    return model


def with_shapes(stock: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """A copy of a network without values in which some tensors have other shapes."""
    model = copy.deepcopy(stock)

    def made(key: str, old: Tensor) -> Tensor | None:
        return blank(old, shapes[key]) if key in shapes else None

    put_tensors(model, made)
    return model


def blank(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor of this shape without values."""
    return torch.empty(shape, dtype=like.dtype, device="meta")


def _resize(module: nn.Module, width: Mapping[str, int]) -> None:
    num_in, num_out, groups = width["in"], width["out"], width.get("groups", 1)
    if isinstance(module, nn.Linear):
        module.in_features, module.out_features = num_in, num_out
        weight: tuple[int, ...] = (num_out, num_in)
    elif isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)):
        module.in_channels, module.out_channels, module.groups = num_in, num_out, groups
        first = (num_in, num_out // groups)
        if not isinstance(module, TRANSPOSED):
            first = (num_out, num_in // groups)
        weight = (*first, *kernel_of(module))
    elif isinstance(module, BiasedAttention):
        weight = ()
        for name, old in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(blank(old, (num_out, *old.shape[1:]))))
    else:
        weight = (num_out,)
        set_channels(module, num_out)
    for name in ("weight", "bias", "running_mean", "running_var"):
        old = getattr(module, name, None)
        if isinstance(old, Tensor) and weight and old.ndim:
            shape = weight if name == "weight" and old.ndim == len(weight) else (num_out,)
            new = blank(old, shape)
            setattr(module, name, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)
