"""A whole network pruned: every group cut to its number of units, every reader refitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateurs.nets.trace import eval_mode
from secateurs.progress import SILENT, Progress
from secateurs.prune.compensation import refit
from secateurs.prune.groups import Group
from secateurs.prune.merging import Incoming, merge
from secateurs.prune.narrow import gone_channels, narrow
from secateurs.prune.patches import Run, visit_rows
from secateurs.prune.removal import find_consumer, prunable_layers, remove_units
from secateurs.prune.rules import SelectOptions, select
from secateurs.prune.survey import Survey, reader_paths

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Pruned:
    """A pruned network and the units of each group that it still has.

    Of a merged group the survivors are the members nearest to their groups' directions.
    """

    model: nn.Module
    survivors: dict[str, Tensor]
    merged: tuple[str, ...]


def mergeable(model: nn.Module, groups: Sequence[Group]) -> dict[str, str]:
    """Groups whose units can be merged, and the layer that reads them: a linear layer's, read by
    one linear layer with elementwise modules between."""
    chained = set(prunable_layers(model))
    return {
        group.name: find_consumer(model, group.name).path
        for group in groups
        if group.name in chained and len(group.members) == 2
    }


def cut(
    model: nn.Module,
    groups: Sequence[Group],
    seen: Survey,
    kept: Mapping[str, int],
    batches: Sequence[Tensor],
    *,
    run: Run = lambda model, batch: model(batch),
    merging: bool = True,
    refitting: bool = True,
    survivors: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Pruned:
    """Cut every group to `kept` units and refit the layers that read them, from input to output.

    Each reader is refitted by least squares to what it gave in the network given, on what it now
    receives; linear layers in a chain are merged (see `merge`) where `merging`. `survivors` name
    the units themselves. The model given is not changed.
    """
    touched = [group for group in groups if kept.get(group.name, group.num_units) < group.num_units]
    chosen = {g.name: seen.eliminations[g.name].survivors(kept[g.name]) for g in touched}
    chosen |= {name: units for name, units in (survivors or {}).items() if name in chosen}
    merged = mergeable(model, touched) if merging and refitting else {}
    plain = [group for group in touched if group.name not in merged]
    work = narrow(model, plain, {group.name: chosen[group.name] for group in plain})
    if not refitting:
        return Pruned(work, chosen, ())
    gone = gone_channels(plain, {g.name: chosen[g.name] for g in plain}, reads=True)
    merging_at = {reader: name for name, reader in merged.items()}
    paths = _running_order(work, reader_paths(work, touched), batches, run)
    with progress.task("refitting", len(paths)) as advance:
        for path in paths:
            if path in merging_at:
                name = merging_at[path]
                work, chosen[name] = _merge(
                    work, name, path, kept[name], seen, batches, run=run, seed=seed
                )
            else:
                anchor = model.get_submodule(path)
                _refit(work, path, anchor, gone[path], seen, batches, run=run, seed=seed)
            advance(1)
    return Pruned(work, chosen, tuple(merged))


def _running_order(
    model: nn.Module, paths: Sequence[str], batches: Sequence[Tensor], run: Run
) -> list[str]:
    """The layers in the order in which they run."""
    order: list[str] = []
    visit_rows(
        model,
        dict.fromkeys(paths, 1),
        [batches[0][:1]],
        lambda path, *_: order.append(path),
        run=run,
    )
    return order


def _collected(
    work: nn.Module, path: str, seen: Survey, batches: Sequence[Tensor], run: Run, seed: int
) -> tuple[Tensor, int]:
    """Rows that a layer receives (positions * images, inputs), and how many positions."""
    found: list[Tensor] = []

    def visit(_: str, rows: Tensor, __: Tensor, images: int) -> None:
        found.append(rows.view(-1, images, rows.shape[-1]))

    visit_rows(work, {path: seen.positions[path]}, batches, visit, run=run, seed=seed)
    rows = torch.cat(found, 1)
    return rows.flatten(0, 1), len(rows)


def _refit(
    work: nn.Module,
    path: str,
    original: nn.Module,
    gone: Tensor,
    seen: Survey,
    batches: Sequence[Tensor],
    *,
    run: Run,
    seed: int,
) -> None:
    """Write refitted weights into a reader of the narrowed network, and its offset."""
    layer = work.get_submodule(path)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    rows, positions = _collected(work, path, seen, batches, run, seed)
    target = seen.targets[path].to(rows).flatten(0, 1)
    bias = 0 if layer.bias is None else layer.bias.detach()
    new = refit(rows, layer.weight.detach().flatten(1), target - bias, RIDGES, copies=positions)
    norm = seen.norms.get(path)
    with torch.no_grad():
        if layer.bias is not None:
            layer.weight.copy_(new.weight.view_as(layer.weight))
            layer.bias.add_(new.bias.to(layer.bias))
        elif norm is not None:
            statistics = work.get_submodule(norm)
            assert isinstance(statistics, NORMS) and statistics.running_mean is not None
            layer.weight.copy_(new.weight.view_as(layer.weight))
            statistics.running_mean.sub_(new.bias.to(statistics.running_mean))
        else:
            layer.weight.copy_(new.weight.view_as(layer.weight))


def _merge(
    work: nn.Module,
    name: str,
    reader: str,
    keep: int,
    seen: Survey,
    batches: Sequence[Tensor],
    *,
    run: Run,
    seed: int,
) -> tuple[nn.Module, Tensor]:
    """Merge the units of the linear layer `name` into `keep`; return the network and survivors."""
    layer, consumer = work.get_submodule(name), find_consumer(work, name)
    assert isinstance(layer, nn.Linear)
    positions = {name: seen.positions[reader]}
    found: list[Tensor] = []
    visit_rows(
        work,
        positions,
        batches,
        lambda _, __, out, images: found.append(out.view(-1, images, out.shape[-1])),
        run=run,
        seed=seed,
        drawn_as={name: reader},
    )
    before = torch.cat(found, 1)
    copies = len(before)
    before = before.flatten(0, 1)
    with eval_mode(work):
        after = consumer.after(before)
        weight = consumer.layer.weight.detach()
        selection = select(
            after, layer.weight.detach(), weight, SelectOptions(rule="cluster", keep=keep)
        )
        bias = None if layer.bias is None else layer.bias.detach()
        outer = None if consumer.layer.bias is None else consumer.layer.bias.detach()
        incoming, outgoing = merge(
            before,
            consumer.after,
            Incoming(layer.weight.detach(), bias),
            weight,
            outer,
            selection,
            target=seen.targets[reader].to(before).flatten(0, 1),
            copies=copies,
        )
    result = remove_units(
        work,
        name,
        selection.survivors,
        weight=outgoing.weight,
        bias=outgoing.bias,
        incoming_weight=incoming.weight,
        incoming_bias=incoming.bias,
    )
    return result, selection.survivors


def recalibrate(
    model: nn.Module, batches: Sequence[Tensor], *, run: Run = lambda model, batch: model(batch)
) -> None:
    """Measure the statistics of every batch norm again, on training images, in place.

    Dropout stays off. Nothing happens in a network without batch norm.
    """
    norms = [m for m in model.modules() if isinstance(m, NORMS) and m.track_running_stats]
    if not norms:
        return
    momentum = [norm.momentum for norm in norms]
    with torch.no_grad(), eval_mode(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        for batch in batches:
            run(model, batch)
        for norm, value in zip(norms, momentum, strict=True):
            norm.momentum = value
