"""Groups of units that can only go together: which channels of which layers a unit is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.nets.trace import skeleton
from secateurs.prune.bounded import can_fork
from secateurs.prune.chains import NORMS, chains
from secateurs.prune.depgraph import traced
from secateurs.prune.members import Group as Group
from secateurs.prune.members import Member as Member
from secateurs.prune.members import width_of

TRACE_SECONDS = 30.0
TRACE_MIB = 1536


@dataclass(frozen=True)
class Whole:
    """A group that is left whole, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Groups:
    """What can be cut in a network, what is left whole, and how it was found."""

    found: tuple[Group, ...]
    whole: tuple[Whole, ...]
    note: str = ""  # why the graph could not be traced, when only chains of layers are known


def find_groups(model: nn.Module, *, size: int, seconds: float = TRACE_SECONDS) -> Groups:
    """The groups of a network that takes images of (3, size, size), in the order of its layers.

    The dependency graph is torch-pruning's (Fang et al., DepGraph, 2023), traced on shapes alone,
    so that nothing is computed and the model is not touched. Where tracing fails or takes more than
    `seconds` or 1.5 GiB, groups are the chains of layers that stand one after the other in
    nn.Sequential. The outputs of the network are no group. Raises InputError when a layer is used
    in two places, and when the network does not run on such an image.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())
    >>> [(group.name, group.num_units) for group in find_groups(net, size=8).found]
    [('0', 8)]
    """
    bare = skeleton(model)
    _check_shared(bare)
    note, last = "", _last_layer(bare, size)
    try:
        if not can_fork():
            raise RuntimeError("this system cannot set it apart in a process of its own")
        drafts = traced(bare, size, seconds=seconds, mib=TRACE_MIB)
    except (TimeoutError, MemoryError) as error:
        note = f"tracing took {error}"
        drafts = list(chains(bare))
    except RuntimeError as error:  # Whatever goes wrong inside tracing, chains are still safe.
        note = f"tracing failed ({error})"
        drafts = list(chains(bare))
    modules = dict(bare.named_modules())
    order = {path: place for place, path in enumerate(modules)}
    drafts = [_named(draft, order) for draft in _joined(drafts, modules)]
    found: list[Group] = []
    whole: list[Whole] = []
    for draft in drafts:
        if any(member.path == last and member.side == "out" for member in draft.members):
            continue
        reason = _obstacle(draft, modules)
        if reason:
            whole.append(Whole(draft.name, reason))
        else:
            found.append(draft)
    found.sort(key=lambda group: order[group.name])
    return Groups(tuple(found), tuple(whole), note)


def _last_layer(bare: nn.Module, size: int) -> str:
    """The layer that gives the network's output; InputError where a layer runs more than once."""
    ran: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, path=path: ran.append(path))
        for path, module in bare.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    image = torch.empty(1, 3, size, size, dtype=next(bare.parameters()).dtype, device="meta")
    try:
        with torch.no_grad():
            bare(image)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"the network does not run on an image of 3 x {size} x {size} without values, so that "
            f"its layers cannot be followed ({type(error).__name__}: {reason})"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    repeated = next((path for path in ran if ran.count(path) > 1), None)
    if repeated is not None:
        raise InputError(f"layer {repeated} runs more than once: shared layers are not pruned")
    return ran[-1] if ran else ""


def _check_shared(model: nn.Module) -> None:
    seen: dict[int, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if next(module.parameters(recurse=False), None) is None:
            continue
        first = seen.setdefault(id(module), path)
        if first != path:
            raise InputError(f"layer {first} is used again as {path}: shared layers are not pruned")


def _joined(drafts: list[Group], modules: dict[str, nn.Module]) -> list[Group]:
    """Groups on both sides of a grouped convolution as one, whose unit is one of its groups."""
    for path, module in modules.items():
        if not isinstance(module, nn.Conv2d) or module.groups in (1, module.in_channels):
            continue
        reads = [g for g in drafts if any(m.path == path and m.side == "in" for m in g.members)]
        makes = [g for g in drafts if any(m.path == path and m.side == "out" for m in g.members)]
        if len(reads) != 1 or len(makes) != 1 or reads[0] is makes[0]:
            continue
        parts = [
            _coarser(reads[0], path, module.in_channels // module.groups),
            _coarser(makes[0], path, module.out_channels // module.groups),
        ]
        if parts[0] is None or parts[1] is None:
            continue
        own = Member(
            path,
            "both",
            torch.arange(module.out_channels),
            torch.arange(module.out_channels) // (module.out_channels // module.groups),
        )
        members = [*parts[0].members, own, *parts[1].members]
        drafts = [g for g in drafts if g is not reads[0] and g is not makes[0]]
        drafts.append(Group(reads[0].name, module.groups, tuple(members)))
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


def _obstacle(group: Group, modules: dict[str, nn.Module]) -> str:
    """Why a group is left whole, in words; empty when it can be cut."""
    for member in group.members:
        module = modules.get(member.path)
        if module is None:
            return f"the parameter {member.path} goes with it"
        if isinstance(module, nn.MultiheadAttention):
            return f"attention {member.path} reads it"
        if member.side == "both" and not isinstance(module, (*NORMS, nn.Conv2d)):
            return f"{type(module).__name__} {member.path} works over all units at once"
        if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
            return f"convolution {member.path} pads by {module.padding_mode}"
        if isinstance(module, nn.Conv2d) and member.side != "both" and module.groups > 1:
            return f"the grouped convolution {member.path} shares its groups among units"
        if member.side == "out" and len(member.index) != width_of(module):
            return f"only some outputs of {member.path} belong to it"
    if not group.side("in"):
        return "no layer reads it"
    if group.num_units < 2:
        return "it has one unit only"
    return ""
