"""Groups that need no graph: layers that stand one after the other in nn.Sequential."""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import nn

from secateurs.prune.members import Group, Member, width_of
from secateurs.prune.removal import ELEMENTWISE

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


def chains(model: nn.Module) -> Generator[Group]:
    """Pairs of layers, one after the other in nn.Sequential with harmless modules between."""
    for top, container in model.named_modules():
        parent = container if _plain(container) else None
        if parent is None or (top and _plain(model.get_submodule(top.rpartition(".")[0]))):
            continue
        steps = list(_flat(container, top))
        for place, (path, module) in enumerate(steps):
            group = _pair(path, module, steps[place + 1 :])
            if group is not None:
                yield group


def _plain(module: nn.Module) -> bool:
    return type(module).forward is nn.Sequential.forward


def _flat(module: nn.Module, path: str) -> Generator[tuple[str, nn.Module]]:
    if not _plain(module):
        yield path, module
        return
    for name, child in module.named_children():
        yield from _flat(child, f"{path}.{name}" if path else name)


def _pair(path: str, module: nn.Module, after: list[tuple[str, nn.Module]]) -> Group | None:
    if not isinstance(module, nn.Conv2d | nn.Linear):
        return None
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        return None
    width = width_of(module)
    every = torch.arange(width)
    members = [Member(path, "out", every, every)]
    for other, follower in after:
        if isinstance(follower, nn.Conv2d) and isinstance(module, nn.Conv2d):
            depthwise = follower.groups == follower.in_channels == follower.out_channels
            if depthwise and follower.groups > 1:
                members.append(Member(other, "both", every, every))
                continue
            members.append(Member(other, "in", every, every))
            return Group(path, width, tuple(members))
        if isinstance(follower, nn.Linear) and isinstance(module, nn.Linear):
            members.append(Member(other, "in", every, every))
            return Group(path, width, tuple(members))
        if isinstance(follower, NORMS):
            members.append(Member(other, "both", every, every))
        elif not isinstance(follower, (*ELEMENTWISE, *POOLS)):
            return None
    return None
