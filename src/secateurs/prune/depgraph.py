"""The dependency graph of torch-pruning, built in a process that is held to time and memory."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from secateurs.prune.bounded import bounded
from secateurs.prune.members import Group, Member, Side


def traced(bare: nn.Module, size: int, *, seconds: float, mib: int) -> list[Group]:
    """All groups of a network without values (see `skeleton`), as torch-pruning finds them.

    It walks every way through some networks (Swin, MaxViT), without end and in ever more memory:
    so it works in a child process that may take `seconds` and `mib` MiB. Raises TimeoutError,
    MemoryError, and RuntimeError for whatever goes wrong within.
    """
    import torch_pruning  # noqa: F401  # pyright: ignore[reportUnusedImport] (before the child)

    plain = bounded(lambda: _plain_groups(bare, size), seconds=seconds, mib=mib)
    return [
        Group(
            members[0][0],
            units,
            tuple(
                Member(path, side, torch.tensor(index), torch.tensor(unit))
                for path, side, index, unit in members
            ),
        )
        for units, members in plain
    ]


def _plain_groups(bare: nn.Module, size: int) -> list[Any]:
    """(units, [(path, side, channels, their units)]) for each group."""
    import torch_pruning

    for parameter in bare.parameters():
        parameter.requires_grad_(True)
    paths = {id(module): path for path, module in bare.named_modules()}
    paths |= {id(parameter): name for name, parameter in bare.named_parameters()}
    dtype = next(bare.parameters()).dtype
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        graph: Any = torch_pruning.DependencyGraph().build_dependency(
            bare, (torch.empty(1, 3, size, size, dtype=dtype, device="meta"),), verbose=False
        )
        every = graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear])
        return [_members(items, graph, paths) for items in every]


def _members(items: Any, graph: Any, paths: dict[int, str]) -> tuple[int, list[Any]]:
    found: dict[tuple[str, Side], Any] = {}  # a layer and a side of it once
    units = 0
    for item in items:
        dependency, place = item.dep, item.idxs
        target = dependency.target.module
        path = paths.get(id(target))
        if path is None:  # one of the graph's own nodes: an addition, a concatenation
            continue
        order = sorted(range(len(place)), key=place.__getitem__)
        side: Side = "both"
        depthwise = isinstance(target, nn.Conv2d) and target.groups == target.in_channels > 1
        if isinstance(target, nn.Conv2d | nn.Linear) and not depthwise:
            side = "in" if graph.is_in_channel_pruning_fn(dependency.handler) else "out"
        index, unit = [place[k] for k in order], [item.root_idxs[k] for k in order]
        found.setdefault((path, side), (path, side, index, unit))
        units = max(units, max(unit) + 1)
    return units, list(found.values())
