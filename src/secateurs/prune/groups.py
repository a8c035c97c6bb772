"""Groups of units that can only go together: which channels of which layers a unit is."""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.trace import skeleton
from secateurs.prune.removal import ELEMENTWISE

Side = Literal["out", "in", "both"]
TRACE_SECONDS = 30.0
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class Member:
    """A layer's share in a group: channel `index[k]` of it belongs to unit `unit[k]`.

    Side "out" is a layer that makes the units, "in" one that reads them, "both" one that passes
    them on channel by channel (batch norm, a depthwise or grouped convolution).
    """

    path: str
    side: Side
    index: Tensor  # (channels,) int64, ascending
    unit: Tensor  # (channels,) int64


@dataclass(frozen=True)
class Group:
    """Units that are removed together wherever they appear, named after the first layer's path."""

    name: str
    num_units: int
    members: tuple[Member, ...]

    def side(self, side: Side) -> tuple[Member, ...]:
        """The members of one side."""
        return tuple(member for member in self.members if member.side == side)


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
    `seconds`, groups are the chains of layers that stand one after the other in nn.Sequential. The
    outputs of the network are no group. Raises InputError when a layer is used in two places.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())
    >>> [(group.name, group.num_units) for group in find_groups(net, size=8).found]
    [('0', 8)]
    """
    bare = skeleton(model)
    _check_shared(bare)
    note = ""
    try:
        with time_limit(seconds):
            drafts, last = _traced(bare, size)
    except InputError:
        raise
    except TimeoutError:
        note = f"tracing took more than {seconds:g} s"
        drafts, last = list(_chains(bare)), ""
    except Exception as error:  # Whatever goes wrong inside tracing, chains are still safe.
        note = f"tracing failed ({type(error).__name__}: {error})"
        drafts, last = list(_chains(bare)), ""
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


@contextmanager
def time_limit(seconds: float) -> Generator[None]:
    """Raise TimeoutError in this thread after so many seconds, wherever Python code then is.

    >>> with time_limit(60):
    ...     done = True
    """
    thread = ctypes.c_ulong(threading.get_ident())
    ended = threading.Lock()
    over = False

    def interrupt() -> None:
        with ended:
            if not over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(TimeoutError))

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with ended:
            over = True
        timer.cancel()


def _check_shared(model: nn.Module) -> None:
    seen: dict[int, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if next(module.parameters(recurse=False), None) is None:
            continue
        first = seen.setdefault(id(module), path)
        if first != path:
            raise InputError(f"layer {first} is used again as {path}: shared layers are not pruned")


def _traced(bare: nn.Module, size: int) -> tuple[list[Group], str]:
    """All groups as torch-pruning finds them, and the path of the layer that gives the output."""
    import torch_pruning

    for parameter in bare.parameters():
        parameter.requires_grad_(True)
    paths = {id(module): path for path, module in bare.named_modules()}
    paths |= {id(parameter): name for name, parameter in bare.named_parameters()}
    ran: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, path=path: ran.append(path))
        for path, module in bare.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    dtype = next(bare.parameters()).dtype
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        graph: Any = torch_pruning.DependencyGraph().build_dependency(
            bare, (torch.empty(1, 3, size, size, dtype=dtype, device="meta"),), verbose=False
        )
        for hook in hooks:
            hook.remove()
        repeated = next((path for path in ran if ran.count(path) > 1), None)
        if repeated is not None:
            raise InputError(f"layer {repeated} runs more than once: shared layers are not pruned")
        drafts: list[Group] = []
        for items in graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]):
            drafts.append(_draft(items, graph, paths))
    return drafts, ran[-1]


def _draft(items: Any, graph: Any, paths: dict[int, str]) -> Group:
    members: list[Member] = []
    units = 0
    for item in items:
        dependency, index = item.dep, item.idxs
        target = dependency.target.module
        path = paths.get(id(target))
        if path is None:  # one of the graph's own nodes: an addition, a concatenation
            continue
        unit = torch.tensor(item.root_idxs, dtype=torch.int64)
        place = torch.tensor(index, dtype=torch.int64)
        order = place.argsort()
        side: Side = "both"
        depthwise = isinstance(target, nn.Conv2d) and target.groups == target.in_channels > 1
        if isinstance(target, nn.Conv2d | nn.Linear) and not depthwise:
            side = "in" if graph.is_in_channel_pruning_fn(dependency.handler) else "out"
        members.append(Member(path, side, place[order], unit[order]))
        units = max(units, int(unit.max()) + 1)
    return Group(members[0].path, units, tuple(_unique(members)))


def _unique(members: Iterable[Member]) -> list[Member]:
    """Members by layer and side, once each."""
    seen: dict[tuple[str, str], Member] = {}
    for member in members:
        seen.setdefault((member.path, member.side), member)
    return list(seen.values())


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
        if member.side == "out" and len(member.index) != _width(module):
            return f"only some outputs of {member.path} belong to it"
    if not group.side("in"):
        return "no layer reads it"
    if group.num_units < 2:
        return "it has one unit only"
    return ""


def _width(module: nn.Module) -> int:
    if isinstance(module, nn.Conv2d):
        return module.out_channels
    assert isinstance(module, nn.Linear)
    return module.out_features


def _chains(model: nn.Module) -> Generator[Group]:
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
    width = _width(module)
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
