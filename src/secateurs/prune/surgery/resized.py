"""A fresh network brought to the shapes of a pruned one: its tensors first, then its records."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from secateurs.prune.surgery.width_attributes import set_widths

Made = Callable[[str, Tensor], Tensor | None]


def put_tensors(model: nn.Module, made: Made) -> None:
    """Put other tensors in the place of a network's parameters and buffers, in place.

    `made` gets a tensor's name and the tensor, and gives the one that takes its place, None for
    one that stays. Tensors that were shared stay shared. Layers and norms whose tensors have
    another shape than before are told their widths.

    >>> import torch
    >>> layer = nn.Linear(4, 3)
    >>> put_tensors(layer, lambda name, tensor: tensor.detach()[:2])
    >>> layer.out_features
    2
    """
    shared: dict[int, tuple[Tensor, Tensor]] = {}  # the old one too: an identity stays its own
    for prefix, module in model.named_modules(remove_duplicate=False):
        changed = False
        parameters = list(module.named_parameters(recurse=False))
        for name, old in [*parameters, *module.named_buffers(recurse=False)]:
            new = made(f"{prefix}.{name}" if prefix else name, old)
            if new is None:
                continue
            changed |= new.shape != old.shape
            if id(old) not in shared:
                grad = old.requires_grad and new.is_floating_point()
                parameter = isinstance(old, nn.Parameter)
                taken = nn.Parameter(new, requires_grad=grad) if parameter else new
                shared[id(old)] = old, taken
            setattr(module, name, shared[id(old)][1])
        if changed:
            set_widths(module)
