"""Groups of units that can only go together: which channels of which layers a unit is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from secateurs.nets.attention import BiasedAttention
from secateurs.nets.batches import Batch, Run, forward
from secateurs.nets.layers import CONVOLUTIONS, LAYERS, TRANSPOSED, groups_of
from secateurs.nets.runnable import runnable
from secateurs.prune.coupling.assembly import groups_by_flow
from secateurs.prune.coupling.dependency_graph import groups_by_graph
from secateurs.prune.coupling.members import Group as Group
from secateurs.prune.coupling.members import Member as Member
from secateurs.prune.coupling.members import NotPruned as NotPruned

By = Literal["flow", "graph"]
TRACE_SECONDS = 30.0
TRACE_MIB = 1536
CARRIERS = (  # channel by channel
    nn.modules.batchnorm._NormBase,  # pyright: ignore[reportPrivateUsage]
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.PReLU,
    *CONVOLUTIONS,
    *TRANSPOSED,
    BiasedAttention,
)


@dataclass(frozen=True)
class Groups:
    """What can be cut in a network, what is not pruned, and how it was found.

    `others` go along other axes of some tensors, as the channels of all heads alike in the place of
    whole heads: those of them can be cut that share no channel with what is cut.
    """

    found: tuple[Group, ...]
    not_pruned: tuple[NotPruned, ...]
    note: str = ""  # why torch-pruning found none, where it was asked
    on_values: bool = False  # the network's way depends on values
    others: tuple[Group, ...] = ()


def find_groups(
    model: nn.Module,
    example: Batch,
    *,
    run: Run = forward,
    by: By = "flow",
    seconds: float = TRACE_SECONDS,
) -> Groups:
    """The groups of a network in the order of its layers; it runs on the first sample of `example`.

    Units are followed through a run on shapes alone (see `flow`), or on values where the network
    asks for them (see `runnable`); the model is not touched. By "graph" the groups are
    torch-pruning's (Fang et al., DepGraph, 2023), built in a process that may take `seconds` and
    1.5 GiB; where it fails nothing is found and the note says why. The outputs of the network are
    no group. Raises InputError when the network does not run on the sample.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())
    >>> [(group.name, group.num_units) for group in find_groups(net, torch.empty(1, 3, 8, 8)).found]
    [('0', 8)]
    """
    bare, sample = runnable(model, example, run)
    note = ""
    drafts: list[Group] = []
    others: list[Group] = []
    not_pruned: list[NotPruned] = []
    on_values = not any(parameter.is_meta for parameter in bare.parameters())
    if by == "flow":
        more = example if on_values else None
        drafts, not_pruned, chose = groups_by_flow(bare, sample, run, more=more)
        if chose:
            others = groups_by_flow(bare, sample, run, second=True, more=more)[0]
    else:
        try:
            drafts = groups_by_graph(
                bare, sample, run, _last_layer(bare, sample, run), seconds=seconds, mib=TRACE_MIB
            )
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
    found.sort(key=lambda group: order[group.makers[0].path])
    others = [group for group in others if not _obstacle(group, modules)]
    return Groups(tuple(found), tuple(not_pruned), note, on_values, tuple(others))


def _spectral(modules: dict[str, nn.Module], member: Member) -> str:
    """Why weights stay that are divided by their spectral norm; empty for others."""
    layer, within, rest = member.path.partition(".parametrizations.")
    parts = modules[member.path].children() if within else ()
    how = "parametrize.remove_parametrizations"
    if not any(type(part).__name__ == "_SpectralNorm" for part in parts):
        name = member.tensor.removesuffix("_orig")
        if name == member.tensor or not hasattr(modules[layer], f"{name}_u"):
            return ""
        how, rest = "remove_spectral_norm", name
    return (
        f"the {rest} of {layer} is divided by its spectral norm, which depends on all of it: fold "
        f"it with torch.nn.utils.{how}"
    )


def _last_layer(bare: nn.Module, sample: Batch, run: Run) -> str:
    """The layer that runs last, which gives the network's output."""
    ran: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, path=path: ran.append(path))
        for path, module in bare.named_modules()
        if isinstance(module, LAYERS)
    ]
    try:
        with torch.no_grad():
            run(bare, sample)
    finally:
        for hook in hooks:
            hook.remove()
    return ran[-1] if ran else ""


def _obstacle(group: Group, modules: dict[str, nn.Module]) -> str:
    """Why a group is not pruned, in words; empty when it can be cut."""
    for member in group.members:
        module = modules.get(member.path)
        if module is None:
            return f"the parameter {member.path} goes with it"
        if type(module) is nn.MultiheadAttention:
            return f"attention {member.path} reads it"
        if not member.is_layer:
            if why := _spectral(modules, member):
                return why
            # Of a buffer that is saved with no weights the constructor would make a wide one again.
            if member.tensor in module._non_persistent_buffers_set:  # pyright: ignore[reportPrivateUsage]
                return f"{member.path}.{member.tensor} goes with it, which is not saved"
            continue
        if member.side == "both" and not isinstance(module, CARRIERS):
            return f"{type(module).__name__} {member.path} works over all units at once"
        if isinstance(module, LAYERS) and member.side != "both" and groups_of(module) > 1:
            return f"the grouped convolution {member.path} shares its groups among units"
    if not group.at_source and not any(member.side == "in" for member in group.members):
        return "no layer reads it"
    if group.num_units < 2:
        return "it has one unit only"
    return ""
