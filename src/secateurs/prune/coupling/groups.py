"""Groups of units that can only go together: which channels of which layers a unit is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.nets.attention import BiasedAttention
from secateurs.nets.batches import Batch, Run, forward, samples, shape_words, without_values
from secateurs.nets.layers import BATCH_NORMS, CONVOLUTIONS, LAYERS, TRANSPOSED, groups_of
from secateurs.nets.trace import skeleton
from secateurs.prune.coupling.assembly import groups_by_flow
from secateurs.prune.coupling.dependency_graph import groups_by_graph
from secateurs.prune.coupling.members import Group as Group
from secateurs.prune.coupling.members import Member as Member
from secateurs.prune.coupling.members import NotPruned as NotPruned

By = Literal["flow", "graph"]
TRACE_SECONDS = 30.0
TRACE_MIB = 1536
CARRIERS = (*BATCH_NORMS, *CONVOLUTIONS, *TRANSPOSED, BiasedAttention)  # channel by channel


@dataclass(frozen=True)
class Groups:
    """What can be cut in a network, what is not pruned, and how it was found."""

    found: tuple[Group, ...]
    not_pruned: tuple[NotPruned, ...]
    note: str = ""  # why torch-pruning found none, where it was asked


def find_groups(
    model: nn.Module,
    example: Batch,
    *,
    run: Run = forward,
    by: By = "flow",
    seconds: float = TRACE_SECONDS,
) -> Groups:
    """The groups of a network in the order of its layers; it runs on the first sample of `example`.

    Units are followed through a run on shapes alone (see `flow`), so that nothing is computed and
    the model is not touched. By "graph" the groups are torch-pruning's (Fang et al., DepGraph,
    2023), built in a process that may take `seconds` and 1.5 GiB; where it fails nothing is found
    and the note says why. The outputs of the network are no group. Raises InputError when a layer
    is used in two places, and when the network does not run on the sample.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())
    >>> [(group.name, group.num_units) for group in find_groups(net, torch.empty(1, 3, 8, 8)).found]
    [('0', 8)]
    """
    bare = skeleton(model)
    _check_shared(bare)
    sample = without_values(samples(example, slice(0, 1)))
    last = _last_layer(bare, sample, run)
    note = ""
    drafts: list[Group] = []
    not_pruned: list[NotPruned] = []
    if by == "flow":
        drafts, not_pruned = groups_by_flow(bare, sample, run)
    else:
        try:
            drafts = groups_by_graph(bare, sample, run, last, seconds=seconds, mib=TRACE_MIB)
        except (TimeoutError, MemoryError) as error:
            note = f"torch-pruning took {error}"
        except RuntimeError as error:
            note = f"torch-pruning failed ({error})"
    modules = dict(bare.named_modules())
    order = {path: place for place, path in enumerate(modules)}
    found: list[Group] = []
    for draft in drafts:
        reason = _obstacle(draft, modules)
        if reason:
            not_pruned.append(NotPruned(draft.name, reason))
        else:
            found.append(draft)
    found.sort(key=lambda group: order[group.side("out")[0].path])
    return Groups(tuple(found), tuple(not_pruned), note)


def _last_layer(bare: nn.Module, sample: Batch, run: Run) -> str:
    """The layer that gives the network's output; InputError where a layer runs more than once."""
    ran: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, path=path: ran.append(path))
        for path, module in bare.named_modules()
        if isinstance(module, LAYERS)
    ]
    try:
        with torch.no_grad():
            run(bare, sample)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(
            f"the network does not run on a sample of {shape_words(sample)} without values, so "
            f"that its layers cannot be followed ({type(error).__name__}: {reason})"
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


def _obstacle(group: Group, modules: dict[str, nn.Module]) -> str:
    """Why a group is not pruned, in words; empty when it can be cut."""
    for member in group.members:
        module = modules.get(member.path)
        if module is None:
            return f"the parameter {member.path} goes with it"
        if isinstance(module, nn.MultiheadAttention):
            return f"attention {member.path} reads it"
        if member.side == "both" and not isinstance(module, CARRIERS):
            return f"{type(module).__name__} {member.path} works over all units at once"
        if isinstance(module, LAYERS) and member.side != "both" and groups_of(module) > 1:
            return f"the grouped convolution {member.path} shares its groups among units"
    if not group.side("in"):
        return "no layer reads it"
    if group.num_units < 2:
        return "it has one unit only"
    return ""
