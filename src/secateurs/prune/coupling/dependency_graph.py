"""The dependency graph of torch-pruning, built in a process that is held to time and memory."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from secateurs.extras import require
from secateurs.limited_process import bounded, can_fork
from secateurs.nets.batches import Batch, Run
from secateurs.nets.layers import LAYERS, groups_of, inputs_of, width_of
from secateurs.prune.coupling.members import Group, Member, Side


def groups_by_graph(
    bare: nn.Module, sample: Batch, run: Run, last: str, *, seconds: float, mib: int
) -> list[Group]:
    """All groups of a network without values (see `skeleton`), as torch-pruning finds them.

    Those with outputs of the `last` layer are not among them. The library walks every way through
    some networks (Swin, MaxViT), without end and in ever more memory: so it works in a child
    process that may take `seconds` and `mib` MiB. Raises TimeoutError, MemoryError, RuntimeError
    for whatever goes wrong within, and InputError when torch-pruning is not installed.
    """
    require("graph", 'groups by="graph"')
    import torch_pruning  # noqa: F401  # pyright: ignore[reportUnusedImport] (before the child)

    if not can_fork():
        raise RuntimeError("this system cannot set it apart in a process of its own")
    plain = bounded(lambda: _plain_groups(bare, sample, run), seconds=seconds, mib=mib)
    drafts = [
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
    modules = dict(bare.named_modules())
    order = {path: place for place, path in enumerate(modules)}
    return [
        _named(draft, order)
        for draft in _joined(drafts, modules)
        if not any(member.path == last and member.side == "out" for member in draft.members)
        and any(member.path in modules and member.side == "out" for member in draft.members)
    ]


def _plain_groups(bare: nn.Module, sample: Batch, run: Run) -> list[Any]:
    """(units, [(path, side, channels, their units)]) for each group."""
    import torch_pruning

    for parameter in bare.parameters():
        parameter.requires_grad_(True)
    paths = {id(module): path for path, module in bare.named_modules()}
    paths |= {id(parameter): name for name, parameter in bare.named_parameters()}
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        graph: Any = torch_pruning.DependencyGraph().build_dependency(
            bare, sample, forward_fn=cast(Any, run), verbose=False
        )
        every = graph.get_all_groups(root_module_types=[*LAYERS])
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
        layer = isinstance(target, LAYERS)
        depthwise = layer and groups_of(target) == inputs_of(target) > 1
        if layer and not depthwise:
            side = "in" if graph.is_in_channel_pruning_fn(dependency.handler) else "out"
        index, unit = [place[k] for k in order], [item.root_idxs[k] for k in order]
        found.setdefault((path, side), (path, side, index, unit))
        units = max(units, max(unit) + 1)
    return units, list(found.values())


def _joined(drafts: list[Group], modules: dict[str, nn.Module]) -> list[Group]:
    """Groups on both sides of a grouped convolution as one, whose unit is one of its groups."""
    for path, module in modules.items():
        if not isinstance(module, LAYERS) or groups_of(module) in (1, inputs_of(module)):
            continue
        groups, outputs = groups_of(module), width_of(module)
        reads = [g for g in drafts if any(m.path == path and m.side == "in" for m in g.members)]
        makes = [g for g in drafts if any(m.path == path and m.side == "out" for m in g.members)]
        if len(reads) != 1 or len(makes) != 1 or reads[0] is makes[0]:
            continue
        parts = [
            _coarser(reads[0], path, inputs_of(module) // groups),
            _coarser(makes[0], path, outputs // groups),
        ]
        if parts[0] is None or parts[1] is None:
            continue
        own = Member(
            path,
            "both",
            torch.arange(outputs),
            torch.arange(outputs) // (outputs // groups),
        )
        members = [*parts[0].members, own, *parts[1].members]
        drafts = [g for g in drafts if g is not reads[0] and g is not makes[0]]
        drafts.append(Group(reads[0].name, groups, tuple(members)))
    return drafts


def _coarser(group: Group, path: str, width: int) -> Group | None:
    """The group with `width` channels of the layer at `path` for a unit; None where it has more."""
    mine = next(member for member in group.members if member.path == path)
    unit = torch.full((group.num_units,), -1, dtype=torch.int64)
    unit[mine.unit] = mine.index // width
    if (unit < 0).any():
        return None
    members = tuple(
        replace(member, unit=unit[member.unit]) for member in group.members if member.path != path
    )
    return Group(group.name, int(unit.max()) + 1, members)


def _named(group: Group, order: dict[str, int]) -> Group:
    makers = [member.path for member in group.members if member.side == "out"]
    return replace(group, name=min(makers, key=order.__getitem__)) if makers else group
