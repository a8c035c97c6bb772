"""What units of linear layers cost when they are merged, not removed: often far less.

Elimination asks what the units that stay can rebuild. A merged unit is the mean of a group, with
less of the noise that each member has of its own, so that few of them carry what many single units
do. A budget that does not know it takes units elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from secateurs.nets.batches import Batch, Run, forward
from secateurs.nets.trace import eval_mode
from secateurs.progress import SILENT, Progress
from secateurs.prune.allocation.elimination import Elimination, projected
from secateurs.prune.allocation.survey import Survey
from secateurs.prune.compensation.merging import merged_outputs
from secateurs.prune.compensation.ridge import left_out, left_out_error
from secateurs.prune.coupling.groups import Group
from secateurs.prune.selection.cluster import cluster_members, prepare
from secateurs.prune.statistics.patches import visit_rows
from secateurs.prune.surgery.removal import find_consumer, prunable_layers

SIZES = (8, 16, 32, 64, 128, 256, 512)
Steps = Callable[[nn.Module], Sequence[tuple[str, nn.Module]]]
ROUNDS = 10  # of k-means: an estimate needs no more


def mergeable(model: nn.Module, groups: Sequence[Group], seen: Survey) -> dict[str, str]:
    """Groups whose units can be merged, and the layer that reads them.

    A linear layer's units, read by one linear layer with elementwise modules between, once for an
    image, which has a bias, since the means of what is merged go there: a model keeps the
    parameters that it has. Only there is it known what merging costs (see `with_merging`), and in a
    transformer, whose layers read every place of a sample, looking for groups takes hours.
    """
    chained = set(prunable_layers(model))
    readers = {
        group.name: find_consumer(model, group.name).path
        for group in groups
        if group.name in chained and len(group.members) == 2
    }
    return {
        name: reader
        for name, reader in readers.items()
        if reader in seen.targets
        and len(seen.targets[reader]) == 1
        and getattr(model.get_submodule(reader), "bias", None) is not None
    }


def with_merging(
    model: nn.Module,
    groups: Sequence[Group],
    seen: Survey,
    batches: Sequence[Batch],
    *,
    run: Run = forward,
    steps: Steps = lambda model: [],
    copies: int = 1,
    sizes: Sequence[int] = SIZES,
    progress: Progress = SILENT,
) -> Survey:
    """The survey with the loss of every group that can be merged no higher than merging makes it.

    Of a number of merged units in `sizes` the loss is what the refit's leave-one-out errors make of
    the network's answers, where `steps(model)` opens it into (path, module) that run one after the
    other; elsewhere the errors of the reader's outputs, each by its importance, which counts too
    much where many outputs err each in their own way. Between two sizes it is interpolated in the
    logarithm of both, from the last on towards none at all units. The batches are those of the
    survey.
    """
    able = {n: r for n, r in mergeable(model, groups, seen).items() if n in seen.eliminations}
    found: dict[str, Elimination] = {}
    with progress.task("scoring merged units", len(able)) as advance:
        for name, reader in able.items():
            before = _seen_outputs(seen, name, next(model.parameters()).dtype)
            if before is None:
                before = _outputs(model, name, batches, run)
            rest = _rest(model, steps, reader)
            losses = _losses(model, name, reader, before, seen, rest, copies, sizes)
            found[name] = lowered(seen.eliminations[name], losses)
            advance(1)
    return replace(seen, eliminations={**seen.eliminations, **found})


def lowered(elimination: Elimination, losses: Mapping[int, float]) -> Elimination:
    """An elimination whose loss is at most that of merging to so many units, `losses` by number.

    >>> one = Elimination(torch.arange(5), torch.tensor([0.0, 2.0, 4.0, 9.0]))
    >>> [round(loss, 3) for loss in lowered(one, {2: 3.0}).loss.tolist()]
    [0.0, 2.0, 3.0, 9.0]
    """
    if not losses:
        return elimination
    units = len(elimination.order)
    sizes = sorted(losses)
    keep = np.arange(units - 1, 0, -1)  # units that stay when one, two, ... are gone
    least = np.minimum.accumulate([max(losses[size], 1e-30) for size in sizes])
    curve = np.exp(np.interp(np.log(keep), np.log(sizes), np.log(least)))
    beyond = keep > sizes[-1]
    curve[beyond] = least[-1] * (units - keep[beyond]) / (units - sizes[-1])
    curve[keep < sizes[0]] = np.inf
    loss = torch.minimum(elimination.loss, torch.from_numpy(curve))
    return replace(elimination, loss=loss)


def _seen_outputs(seen: Survey, name: str, dtype: torch.dtype) -> Tensor | None:
    """What a linear layer gave when the network was looked at, where it is a reader itself.

    Deviations in bfloat16, which an estimate can do with; saves a run of all samples.
    """
    if name not in seen.targets or len(seen.targets[name]) != 1:
        return None
    return seen.targets[name].to(dtype)[0]


def _outputs(model: nn.Module, name: str, batches: Sequence[Batch], run: Run) -> Tensor:
    """What a linear layer gives for every sample, (samples, units)."""
    found: list[Tensor] = []

    def visit(_: str, rows: Tensor, outputs: Tensor, images: int) -> None:
        found.append(outputs)

    visit_rows(model, {name: 1}, batches, visit, run=run)
    return torch.cat(found)


def _rest(model: nn.Module, steps: Steps, reader: str) -> nn.Module | None:
    """What runs after a layer, None where that is not known."""
    opened = steps(model)
    names = [name for name, _ in opened]
    if reader not in names:
        return None
    return nn.Sequential(*(module for _, module in opened[names.index(reader) + 1 :]))


def _losses(
    model: nn.Module,
    name: str,
    reader: str,
    before: Tensor,
    seen: Survey,
    rest: nn.Module | None,
    copies: int,
    sizes: Sequence[int],
) -> dict[int, float]:
    layer = model.get_submodule(reader)
    assert isinstance(layer, nn.Linear)
    after: Callable[[Tensor], Tensor] = find_consumer(model, name).after
    target = seen.targets[reader].to(before).flatten(0, 1)
    if len(target) != len(before):  # several positions a sample: not a plain classifier
        return {}
    weight = layer.weight.detach()
    losses: dict[int, float] = {}
    with torch.no_grad(), eval_mode(model):
        activations = after(before)
        answers = None if rest is None else rest(target.clone())  # a step may work in place
        scaled = projected(target.T.mul(seen.importance[reader].sqrt()[:, None]).T)
        few = [size for size in sizes if size < activations.shape[1] // 2]
        members = prepare(activations, weight=weight, num_groups=sum(few))
        if not len(members.units):  # all dead or constant: nothing to merge
            return {}
        for size in few:
            selection = cluster_members(members, keep=size, rounds=ROUNDS)
            merged = merged_outputs(before, after, selection)
            if rest is None:
                losses[size] = left_out_error(merged, scaled, copies=copies)
            else:
                away = rest(left_out(merged, target, copies=copies).to(target)) - answers
                losses[size] = float(away.square().sum(1).mean())
    return losses
