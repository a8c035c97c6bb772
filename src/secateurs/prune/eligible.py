"""Which of the groups that could be cut are cut, and which layers keep their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from secateurs.nets.batches import Batch, Run
from secateurs.nets.layers import LAYERS
from secateurs.prune.coupling.groups import Group, Groups, NotPruned
from secateurs.prune.statistics.patches import count_runs, unknown_products

IGNORED = "ignored, as asked for"


def without(groups: Groups, reason: Callable[[Group], str]) -> Groups:
    """The groups for which there is no reason to leave them as they are."""
    reasons = {group.name: why for group in groups.found if (why := reason(group))}
    found = tuple(group for group in groups.found if group.name not in reasons)
    left = tuple(NotPruned(name, why) for name, why in reasons.items())
    others = tuple(group for group in groups.others if not reason(group))
    return replace(groups, found=found, not_pruned=groups.not_pruned + left, others=others)


def ignored(keep_whole: Callable[[str], bool]) -> Callable[[Group], str]:
    """The reason of groups that make the outputs of a layer that stays whole."""

    def reason(group: Group) -> str:
        asked = any(keep_whole(member.path) for member in group.members if member.side != "in")
        return IGNORED if asked else ""

    return reason


def norm_width(group: Group) -> str:
    """The reason of groups over which a norm computes its statistics."""
    norm = next((member.path for member in group.members if member.norm), None)
    return "" if norm is None else f"norm {norm} works over all of it, and norm widths stay"


def unsteady(
    model: nn.Module, groups: Groups, batches: Sequence[Batch], run: Run
) -> Callable[[Group], str]:
    """The reason of groups with layers that run for some samples and not, or less, for others."""
    readers = _readers(groups)
    counts = count_runs(model, readers, batches, run=run)
    wrong = {path for path, found in counts.items() if len(set(found)) > 1 or not found[0]}

    def reason(group: Group) -> str:
        path = next((m.path for m in group.side("in") if m.path in wrong), None)
        return "" if path is None else f"{path} runs for some samples and not for others"

    return reason


def unreadable(model: nn.Module, groups: Groups, batch: Batch, run: Run) -> Callable[[Group], str]:
    """The reason of groups read by a layer of an own class whose product is not known."""
    readers = _readers(groups)
    reasons = unknown_products(model, readers, batch, run=run)
    return lambda group: next((reasons[m.path] for m in group.side("in") if m.path in reasons), "")


def _readers(groups: Groups) -> list[str]:
    every = (*groups.found, *groups.others)
    return list(dict.fromkeys(m.path for group in every for m in group.side("in")))


def tied_layers(model: nn.Module, groups: Sequence[Group]) -> set[str]:
    """Layers whose weights are used elsewhere too, so that they cannot be refitted for one use."""
    owners: dict[int, set[str]] = {}
    for path, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), set()).add(path)
    for group in groups:
        for member in group.members:
            if not member.is_layer:
                tensor = getattr(model.get_submodule(member.path), member.tensor)
                owners.setdefault(id(tensor), set()).add(f"{member.path}.{member.tensor}")
    return {
        path
        for path, module in model.named_modules()
        if isinstance(module, LAYERS)
        and any(len(owners[id(p)]) > 1 for p in module.parameters(recurse=False))
    }
