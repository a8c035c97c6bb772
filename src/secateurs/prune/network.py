"""A whole network pruned: every group cut to its number of units, every reader refitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.batches import Batch, Run, copied_batch, forward, samples
from secateurs.nets.layers import BATCH_NORMS, LAYERS, matrix, write_matrix
from secateurs.nets.trace import eval_mode
from secateurs.progress import SILENT, Progress
from secateurs.prune.allocation.elimination import shrinkage
from secateurs.prune.allocation.merge_costs import mergeable
from secateurs.prune.allocation.survey import Survey, reader_paths
from secateurs.prune.compensation.cholesky import factorise
from secateurs.prune.compensation.merging import Incoming, merge
from secateurs.prune.compensation.outgoing_weights import Outgoing, refit
from secateurs.prune.coupling.groups import Group
from secateurs.prune.eligible import tied_layers
from secateurs.prune.layer import parameters
from secateurs.prune.refit_state import MEMORY, RefitState
from secateurs.prune.selection.rules import SelectOptions, exactly, select
from secateurs.prune.statistics.gram import gram_of
from secateurs.prune.statistics.patches import visit_rows
from secateurs.prune.statistics.replay import Replay
from secateurs.prune.surgery.narrow import gone_channels, narrow
from secateurs.prune.surgery.removal import find_consumer, remove_units

RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
TALL = 2  # samples for each input from which on the ridge needs no leave-one-out


Score = Callable[[list[object]], tuple[float, ...]]


@dataclass(frozen=True)
class StartValidation:
    """Batches that decide between several starts of the merging.

    `score` gets a network's outputs, one entry per batch, and returns numbers of which larger ones
    are better, the first ones first, as accuracy and then minus the cross-entropy.
    """

    batches: Sequence[Batch]
    score: Score
    starts: int = 5


@dataclass(frozen=True)
class Pruned:
    """A pruned network and the units of each group that it still has.

    Of a merged group the survivors are the members nearest to their groups' directions. `tried`
    are the first scores of the starts that validation saw. `implied` is by path of a batch norm the
    variance (channels,) of the refitted layer's outputs before it, relative to what it was (see
    `settle_norms`).
    """

    model: nn.Module
    survivors: dict[str, Tensor]
    merged: tuple[str, ...]
    tried: tuple[float, ...] = ()
    implied: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


def prune_groups(
    model: nn.Module,
    groups: Sequence[Group],
    seen: Survey,
    kept: Mapping[str, int],
    batches: Sequence[Batch],
    *,
    run: Run = forward,
    merging: bool = True,
    refitting: bool = True,
    survivors: Mapping[str, Tensor] | None = None,
    copies: int = 1,
    seed: int = 0,
    at_once: int | None = None,
    validation: StartValidation | None = None,
    progress: Progress = SILENT,
) -> Pruned:
    """Cut every group to `kept` units and refit the layers that read them, from input to output.

    Each reader is refitted by least squares to what it gave in the network given, on what it now
    receives; linear layers in a chain are merged (see `merge`) where `merging`. `survivors` name
    the units themselves. The batches are `copies` views of the same samples, view by view. Groups
    to merge are found from a random start; with a `validation` from several, and the network with
    the best score is taken. No more than `at_once` samples run at once. The model given is not
    changed.
    """
    touched = [group for group in groups if kept.get(group.name, group.num_units) < group.num_units]
    chosen = {g.name: seen.eliminations[g.name].survivors(kept[g.name]) for g in touched}
    chosen |= {name: units for name, units in (survivors or {}).items() if name in chosen}
    tied = tied_layers(model, groups)
    merged = mergeable(model, touched, seen) if merging and refitting else {}
    not_refitted = tied | seen.routed
    merged = {n: reader for n, reader in merged.items() if not {n, reader} & not_refitted}
    plain = [group for group in touched if group.name not in merged]
    work = narrow(model, plain, {group.name: chosen[group.name] for group in plain})
    if not refitting or not touched:
        return Pruned(work, chosen, ())
    gone = gone_channels(plain, {g.name: chosen[g.name] for g in plain}, reads=False)
    merging_at = {reader: name for name, reader in merged.items()}
    readers = [path for path in reader_paths(work, touched) if path not in not_refitted]
    paths = _running_order(work, readers, batches, run, seen.repeats) if readers else []
    fork = next((k for k, path in enumerate(paths) if path in merging_at), len(paths))
    starts = validation.starts if validation is not None else 1
    state = RefitState(work, batches, run, copies, seed, seen.repeats, at_once)
    with progress.task("refitting", fork + starts * (len(paths) - fork)) as advance:

        def refit_layers(
            state: RefitState, paths: Sequence[str], start: int = 0
        ) -> dict[str, Tensor]:
            found: dict[str, Tensor] = {}
            for path in paths:
                if path in merging_at:
                    name = merging_at[path]
                    found[name] = _merge(state, name, path, kept[name], gone.get(path), seen, start)
                else:
                    _refit(state, path, gone.get(path), seen)
                advance(1)
            return found

        refit_layers(state, paths[:fork])
        if validation is None or fork == len(paths):
            chosen |= refit_layers(state, paths[fork:])
            return Pruned(state.model, chosen, tuple(merged), implied=state.implied)
        rest = partial(refit_layers, paths=paths[fork:])
        best, units, tried = _best_start(state, validation, merging_at[paths[fork]], rest)
    return Pruned(best.model, chosen | units, tuple(merged), tried, best.implied)


def _best_start(
    state: RefitState,
    validation: StartValidation,
    first: str,
    finish: Callable[..., dict[str, Tensor]],
) -> tuple[RefitState, dict[str, Tensor], tuple[float, ...]]:
    """The network that validation prefers, its merged units, and the first score from each start.

    `finish(state, start=k)` does what is left, from the merging of the layer `first` on. What runs
    before that layer is the same from every start, and runs once.
    """
    state.rows(first, 1, drawn_as=first, outputs=True)
    replay = Replay(validation.batches, state.replay.own_run, memory=MEMORY)
    best: tuple[tuple[float, ...], RefitState, dict[str, Tensor]] | None = None
    tried: list[float] = []
    for start in range(validation.starts):
        own = state.fork()
        units = finish(own, start=start)
        replay.reach(own.model, first)
        with torch.no_grad(), eval_mode(own.model):
            outputs = [replay.run(own.model, copied_batch(part)) for part in replay.batches]
        score = validation.score(outputs)
        tried.append(score[0])
        if best is None or score > best[0]:
            best = score, own, units
    assert best is not None
    return best[1], best[2], tuple(tried)


def _running_order(
    model: nn.Module,
    paths: Sequence[str],
    batches: Sequence[Batch],
    run: Run,
    repeats: Mapping[str, int],
) -> list[str]:
    """The layers in the order in which they run, for the last time."""

    def order_on(batch: Batch) -> list[str]:
        order: list[str] = []
        visit_rows(
            model,
            dict.fromkeys(paths, 1),
            [batch],
            lambda path, *_: order.append(path),
            run=run,
            repeats=repeats,
        )
        return order

    try:
        return order_on(samples(batches[0], slice(0, 1)))
    except InputError:  # as an expert that gets none of the first sample's rows
        return order_on(batches[0])


def _refit(state: RefitState, path: str, gone: Tensor | None, seen: Survey) -> None:
    """Write refitted weights into a reader of the narrowed network, and its offset.

    `gone` are the outputs that it has lost.
    """
    layer = state.model.get_submodule(path)
    assert isinstance(layer, LAYERS)
    rows, copies = state.rows(path, seen.positions[path], drawn_as=path, outputs=False)
    target = _target(seen, path, rows, gone)
    if len(target) != len(rows):  # rows that were chosen by values
        return
    bias = 0 if layer.bias is None else layer.bias.detach().to(rows)
    anchor = matrix(layer).detach().to(rows)  # of half precision in float32
    norm = seen.norms.get(path)
    offset = layer.bias is not None or norm is not None  # something that can take one
    if len(rows) >= TALL * rows.shape[1]:
        num_samples = len(rows) // state.copies
        new = _tall(rows, anchor, target - bias, num_samples, offset=offset)
    elif offset:
        new = refit(rows, anchor, target - bias, RIDGES, copies=copies)
    else:  # with as many rows of the other sign all means are 0
        both = torch.cat([rows, -rows]), torch.cat([target, -target])
        new = refit(both[0], anchor, both[1], RIDGES, copies=2 * copies)
    if norm is not None:
        state.implied[norm] = _spread(rows @ new.weight.to(rows).T, target)
    write_matrix(layer, new.weight)
    with torch.no_grad():
        if layer.bias is not None:
            layer.bias.add_(new.bias.to(layer.bias))
        elif norm is not None:
            statistics = state.model.get_submodule(norm)
            assert isinstance(statistics, BATCH_NORMS) and statistics.running_mean is not None
            statistics.running_mean.sub_(new.bias.to(statistics.running_mean))


def _target(seen: Survey, path: str, like: Tensor, gone: Tensor | None) -> Tensor:
    """What a reader gave (samples, outputs), without the outputs that it has lost."""
    target = seen.targets[path].to(like).flatten(0, 1)
    if gone is None:
        return target
    stays = torch.ones(target.shape[1], dtype=torch.bool)
    stays[gone] = False
    return target[:, stays.to(target.device)]


def _spread(outputs: Tensor, target: Tensor) -> Tensor:
    """Variance (outputs,) of refitted outputs relative to the target's; 1 where that has none."""
    after, before = outputs.double().var(0), target.double().var(0)
    return torch.where(before > 0, after / before, torch.ones_like(before))


def _tall(
    rows: Tensor, anchor: Tensor, target: Tensor, num_samples: int, *, offset: bool = True
) -> Outgoing:
    """The same where samples are many: the ridge is what shrinkage of the covariance asks for."""
    x_mean, y_mean = (
        part.mean(0, dtype=torch.float64) if offset else part.new_zeros(part.shape[1]).double()
        for part in (rows, target)
    )
    x = rows - x_mean.to(rows)
    missing = target - y_mean.to(target) - x @ anchor.T
    gram, cross = gram_of(x).double() / len(x), (x.T @ missing).double() / len(x)
    trace, squares = float(gram.trace()), float(gram.square().sum())
    part = shrinkage(trace, squares, num_samples, len(gram))
    gram.diagonal().add_(part * trace / len(gram))
    change = torch.cholesky_solve(cross, factorise(gram, what="Gram matrix")).T
    weight = anchor.double() + change
    return Outgoing(weight, y_mean - weight @ x_mean, part)


def _merge(
    state: RefitState,
    name: str,
    reader: str,
    keep: int,
    gone: Tensor | None,
    seen: Survey,
    start: int,
) -> Tensor:
    """Merge the units of the linear layer `name` into `keep`; return the survivors.

    `gone` are the outputs that the reader has lost.
    """
    work = state.model
    layer, consumer = work.get_submodule(name), find_consumer(work, name)
    assert isinstance(layer, nn.Linear)
    before, copies = state.rows(name, seen.positions[reader], drawn_as=reader, outputs=True)
    with eval_mode(work):
        after = consumer.after(before)
        weight_in, bias = parameters(layer)
        weight, outer = parameters(consumer.layer)
        options = SelectOptions(rule="cluster", keep=keep, seed=start)
        selection = exactly(after, options, lambda: select(after, weight_in, weight, options))
        incoming, outgoing = merge(
            before,
            consumer.after,
            Incoming(weight_in, bias),
            weight,
            outer,
            selection,
            target=_target(seen, reader, before, gone),
            copies=copies,
        )
    state.model = remove_units(
        work,
        name,
        selection.survivors,
        weight=outgoing.weight,
        bias=outgoing.bias,
        incoming_weight=incoming.weight,
        incoming_bias=incoming.bias,
    )
    return selection.survivors
