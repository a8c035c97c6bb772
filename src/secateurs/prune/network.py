"""A whole network pruned: every group cut to its number of units, every reader refitted."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from secateurs.nets.trace import eval_mode
from secateurs.progress import SILENT, Progress
from secateurs.prune.allocation.elimination import shrinkage
from secateurs.prune.allocation.merge_costs import Steps, mergeable
from secateurs.prune.allocation.survey import Survey, reader_paths
from secateurs.prune.compensation.batch_norm import NORMS
from secateurs.prune.compensation.cholesky import factorise
from secateurs.prune.compensation.merging import Incoming, merge
from secateurs.prune.compensation.modes import Outgoing, refit
from secateurs.prune.coupling.groups import Group
from secateurs.prune.layer import parameters
from secateurs.prune.selection.rules import SelectOptions, exactly, select
from secateurs.prune.statistics.patches import Run, visit_rows
from secateurs.prune.surgery.narrow import gone_channels, narrow
from secateurs.prune.surgery.removal import find_consumer, remove_units

MEMORY = 2**30  # bytes of activations that are held between layers
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
TALL = 2  # samples for each input from which on the ridge needs no leave-one-out


@dataclass(frozen=True)
class StartValidation:
    """Images that decide between several starts of the merging: batches and (images,) labels."""

    batches: Sequence[Tensor]
    labels: Tensor
    starts: int = 5


@dataclass(frozen=True)
class Pruned:
    """A pruned network and the units of each group that it still has.

    Of a merged group the survivors are the members nearest to their groups' directions. `tried`
    are the accuracies of the starts that a judge saw. `implied` is by path of a batch norm the
    variance (channels,) of the refitted layer's outputs before it, relative to what it was (see
    `settle_norms`).
    """

    model: nn.Module
    survivors: dict[str, Tensor]
    merged: tuple[str, ...]
    tried: tuple[float, ...] = ()
    implied: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


def cut(
    model: nn.Module,
    groups: Sequence[Group],
    seen: Survey,
    kept: Mapping[str, int],
    batches: Sequence[Tensor],
    *,
    run: Run = lambda model, batch: model(batch),
    steps: Steps = lambda model: [],
    merging: bool = True,
    refitting: bool = True,
    survivors: Mapping[str, Tensor] | None = None,
    copies: int = 1,
    seed: int = 0,
    judge: StartValidation | None = None,
    progress: Progress = SILENT,
) -> Pruned:
    """Cut every group to `kept` units and refit the layers that read them, from input to output.

    Each reader is refitted by least squares to what it gave in the network given, on what it now
    receives; linear layers in a chain are merged (see `merge`) where `merging`. `survivors` name
    the units themselves. `steps(model)` opens a network into (path, module) that run one after the
    other, so that nothing runs twice. The batches are `copies` views of the same images, view by
    view. Groups to merge are found from a random start; with a `judge` from several, and the
    network that is right most often on its images is taken (then the smaller cross-entropy). The
    model given is not changed.
    """
    touched = [group for group in groups if kept.get(group.name, group.num_units) < group.num_units]
    chosen = {g.name: seen.eliminations[g.name].survivors(kept[g.name]) for g in touched}
    chosen |= {name: units for name, units in (survivors or {}).items() if name in chosen}
    merged = mergeable(model, touched, seen) if merging and refitting else {}
    plain = [group for group in touched if group.name not in merged]
    work = narrow(model, plain, {group.name: chosen[group.name] for group in plain})
    if not refitting or not touched:
        return Pruned(work, chosen, ())
    gone = gone_channels(plain, {g.name: chosen[g.name] for g in plain}, reads=False)
    merging_at = {reader: name for name, reader in merged.items()}
    paths = _running_order(work, reader_paths(work, touched), batches, run)
    fork = next((k for k, path in enumerate(paths) if path in merging_at), len(paths))
    starts = judge.starts if judge is not None else 1
    stand = _RefitState(work, batches, run, steps, copies, seed)
    with progress.task("refitting", fork + starts * (len(paths) - fork)) as advance:

        def go_on(stand: _RefitState, paths: Sequence[str], start: int = 0) -> dict[str, Tensor]:
            found: dict[str, Tensor] = {}
            for path in paths:
                if path in merging_at:
                    name = merging_at[path]
                    found[name] = _merge(stand, name, path, kept[name], seen, start)
                else:
                    _refit(stand, path, gone.get(path), seen)
                advance(1)
            return found

        go_on(stand, paths[:fork])
        if judge is None or fork == len(paths):
            chosen |= go_on(stand, paths[fork:])
            return Pruned(stand.model, chosen, tuple(merged), implied=stand.implied)
        rest = partial(go_on, paths=paths[fork:])
        best, units, tried = _best_start(stand, judge, merging_at[paths[fork]], rest)
    return Pruned(best.model, chosen | units, tuple(merged), tried, best.implied)


def _best_start(
    stand: _RefitState,
    judge: StartValidation,
    first: str,
    finish: Callable[..., dict[str, Tensor]],
) -> tuple[_RefitState, dict[str, Tensor], tuple[float, ...]]:
    """The network that a judge prefers, its merged units, and the accuracy from each start.

    `finish(stand, start=k)` does what is left, from the merging of the layer `first` on. What runs
    before that layer is the same from every start, and runs once.
    """
    held = stand.reach(first, _PrefixOutputs(judge.batches))
    stand.reach(first, stand.held)
    best: tuple[tuple[float, float], _RefitState, dict[str, Tensor]] | None = None
    tried: list[float] = []
    for start in range(judge.starts):
        own = stand.fork()
        units = finish(own, start=start)
        score = _judged(own, held, judge.labels)
        tried.append(score[0])
        if best is None or score > best[0]:
            best = score, own, units
    assert best is not None
    return best[1], best[2], tuple(tried)


def _judged(stand: _RefitState, held: _PrefixOutputs, labels: Tensor) -> tuple[float, float]:
    """Accuracy (0..1) and, the larger the better, minus the cross-entropy."""
    model = stand.rest(held)
    parts: list[Tensor] = []
    with torch.no_grad(), eval_mode(model):
        for batch in held.batches:
            logits = model(batch.clone()) if held.done else stand.run(model, batch)
            assert isinstance(logits, Tensor)
            parts.append(logits)
    logits = torch.cat(parts).float().cpu()
    entropy = float(nn.functional.cross_entropy(logits, labels))
    return float((logits.argmax(1) == labels).double().mean()), -entropy


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


class _PrefixOutputs:
    """Batches as far as they have run: the outputs of the first `done` steps of a network."""

    def __init__(self, batches: Sequence[Tensor], done: int = 0) -> None:
        self.batches, self.done = list(batches), done
        self.borrowed = True  # by others as well: a step may work in place

    def move_on(self, steps: Sequence[nn.Module]) -> None:
        """Run on to the end of `steps`, or as far as the outputs fit `MEMORY`."""
        images = sum(len(batch) for batch in self.batches)
        while self.done < len(steps):
            step = steps[self.done]
            with torch.no_grad(), eval_mode(step):
                first = step(self.batches[0][:1].clone())
                if first.numel() * first.element_size() * images > MEMORY:
                    return
                self.batches = [
                    step(batch.clone() if self.borrowed else batch) for batch in self.batches
                ]
            self.done, self.borrowed = self.done + 1, False


class _RefitState:
    """The network under the knife, and how far its images have run.

    What is cut or refitted comes after the steps whose outputs are `held`, so that they need not be
    computed again.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Tensor],
        run: Run,
        steps: Steps,
        copies: int,
        seed: int,
    ) -> None:
        self.model, self.run, self.steps = model, run, steps
        self.copies, self.seed = copies, seed
        self.held = _PrefixOutputs(batches)
        self.implied: dict[str, Tensor] = {}

    def fork(self) -> _RefitState:
        """The same stand for another attempt, its network a copy."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        other.held = _PrefixOutputs(self.held.batches, self.held.done)
        other.implied = dict(self.implied)
        return other

    def rest(self, held: _PrefixOutputs) -> nn.Module:
        """What is still to run for images that are `held`."""
        if not held.done:
            return self.model
        return nn.Sequential(*(module for _, module in self.steps(self.model)[held.done :]))

    def reach(self, path: str, held: _PrefixOutputs) -> _PrefixOutputs:
        """Run images on to the step that `path` is in, as far as memory allows."""
        place = self._place(path)
        if place is not None:
            held.move_on([module for _, module in self.steps(self.model)[:place]])
        return held

    def rows(
        self, path: str, positions: int, *, drawn_as: str, outputs: bool
    ) -> tuple[Tensor, int]:
        """What a layer receives or gives at some positions of every image.

        (copies * images, inputs or outputs), and how many rows an image has: its positions in all
        its views, one after the other.
        """
        found: list[Tensor] = []

        def visit(_: str, rows: Tensor, given: Tensor, images: int) -> None:
            seen = given if outputs else rows
            found.append(seen.view(-1, images, seen.shape[-1]))

        place = self._place(path)
        if place is None:  # one step: the model itself
            visit_rows(
                self.model,
                {path: positions},
                self.held.batches,
                visit,
                run=self.run,
                seed=self.seed,
                drawn_as={path: drawn_as},
            )
        else:
            held, steps = self.reach(path, self.held), self.steps(self.model)
            rest = nn.Sequential(*(module for _, module in steps[held.done : place + 1]))
            name = steps[place][0]
            inner = f"{place - held.done}" + path[len(name) :]
            visit_rows(
                rest,
                {inner: positions},
                held.batches,
                visit,
                run=lambda part, batch: part(batch.clone()),  # a step may work in place
                seed=self.seed,
                drawn_as={inner: drawn_as},
            )
        whole = torch.cat(found, 1)
        return whole.flatten(0, 1), len(whole) * self.copies

    def _place(self, path: str) -> int | None:
        """The step that a layer is in."""
        names = [name for name, _ in self.steps(self.model)]
        return next(
            (k for k, name in enumerate(names) if path == name or path.startswith(f"{name}.")),
            None,
        )


def _refit(stand: _RefitState, path: str, gone: Tensor | None, seen: Survey) -> None:
    """Write refitted weights into a reader of the narrowed network, and its offset.

    `gone` are the outputs that it has lost.
    """
    layer = stand.model.get_submodule(path)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    rows, copies = stand.rows(path, seen.positions[path], drawn_as=path, outputs=False)
    target = seen.targets[path].to(rows).flatten(0, 1)
    if gone is not None:
        stays = torch.ones(target.shape[1], dtype=torch.bool)
        stays[gone] = False
        target = target[:, stays.to(target.device)]
    bias = 0 if layer.bias is None else layer.bias.detach()
    anchor = layer.weight.detach().flatten(1)
    if len(rows) < TALL * rows.shape[1]:
        new = refit(rows, anchor, target - bias, RIDGES, copies=copies)
    else:
        new = _tall(rows, anchor, target - bias, len(rows) // stand.copies)
    norm = seen.norms.get(path)
    if norm is not None:
        stand.implied[norm] = _spread(rows @ new.weight.to(rows).T, target)
    with torch.no_grad():
        if layer.bias is not None:
            layer.weight.copy_(new.weight.view_as(layer.weight))
            layer.bias.add_(new.bias.to(layer.bias))
        elif norm is not None:
            statistics = stand.model.get_submodule(norm)
            assert isinstance(statistics, NORMS) and statistics.running_mean is not None
            layer.weight.copy_(new.weight.view_as(layer.weight))
            statistics.running_mean.sub_(new.bias.to(statistics.running_mean))
        else:
            layer.weight.copy_(new.weight.view_as(layer.weight))


def _spread(outputs: Tensor, target: Tensor) -> Tensor:
    """Variance (outputs,) of refitted outputs relative to the target's; 1 where that has none."""
    after, before = outputs.double().var(0), target.double().var(0)
    return torch.where(before > 0, after / before, torch.ones_like(before))


def _tall(rows: Tensor, anchor: Tensor, target: Tensor, num_samples: int) -> Outgoing:
    """The same where samples are many: the ridge is what shrinkage of the covariance asks for."""
    x_mean, y_mean = (part.mean(0, dtype=torch.float64) for part in (rows, target))
    x = rows - x_mean.to(rows)
    missing = target - y_mean.to(target) - x @ anchor.T
    gram, cross = (x.T @ x).double() / len(x), (x.T @ missing).double() / len(x)
    trace, squares = float(gram.trace()), float(gram.square().sum())
    part = shrinkage(trace, squares, num_samples, len(gram))
    gram.diagonal().add_(part * trace / len(gram))
    change = torch.cholesky_solve(cross, factorise(gram, what="Gram matrix")).T
    weight = anchor.double() + change
    return Outgoing(weight, y_mean - weight @ x_mean, part)


def _merge(
    stand: _RefitState, name: str, reader: str, keep: int, seen: Survey, start: int
) -> Tensor:
    """Merge the units of the linear layer `name` into `keep`; return the survivors."""
    work = stand.model
    layer, consumer = work.get_submodule(name), find_consumer(work, name)
    assert isinstance(layer, nn.Linear)
    before, copies = stand.rows(name, seen.positions[reader], drawn_as=reader, outputs=True)
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
            target=seen.targets[reader].to(before).flatten(0, 1),
            copies=copies,
        )
    stand.model = remove_units(
        work,
        name,
        selection.survivors,
        weight=outgoing.weight,
        bias=outgoing.bias,
        incoming_weight=incoming.weight,
        incoming_bias=incoming.bias,
    )
    return selection.survivors
