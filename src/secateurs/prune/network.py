"""A whole network pruned: every group cut to its number of units, every reader refitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateurs.nets.trace import eval_mode
from secateurs.progress import SILENT, Progress
from secateurs.prune.compensation import Outgoing, refit
from secateurs.prune.groups import Group
from secateurs.prune.merged import mergeable
from secateurs.prune.merging import Incoming, merge
from secateurs.prune.narrow import gone_channels, narrow
from secateurs.prune.patches import Run, visit_rows
from secateurs.prune.pipeline import parameters
from secateurs.prune.removal import find_consumer, remove_units
from secateurs.prune.rules import SelectOptions, select
from secateurs.prune.surgeon import shrinkage
from secateurs.prune.survey import Survey, reader_paths

Steps = Callable[[nn.Module], Sequence[tuple[str, nn.Module]]]
MEMORY = 2**30  # bytes of activations that are held between layers
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
TALL = 2  # samples for each input from which on the ridge needs no leave-one-out
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Pruned:
    """A pruned network and the units of each group that it still has.

    Of a merged group the survivors are the members nearest to their groups' directions.
    """

    model: nn.Module
    survivors: dict[str, Tensor]
    merged: tuple[str, ...]


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
    progress: Progress = SILENT,
) -> Pruned:
    """Cut every group to `kept` units and refit the layers that read them, from input to output.

    Each reader is refitted by least squares to what it gave in the network given, on what it now
    receives; linear layers in a chain are merged (see `merge`) where `merging`. `survivors` name
    the units themselves. `steps(model)` opens a network into (path, module) that run one after the
    other, so that nothing runs twice. The batches are `copies` views of the same images, view by
    view. The model given is not changed.
    """
    touched = [group for group in groups if kept.get(group.name, group.num_units) < group.num_units]
    chosen = {g.name: seen.eliminations[g.name].survivors(kept[g.name]) for g in touched}
    chosen |= {name: units for name, units in (survivors or {}).items() if name in chosen}
    merged = mergeable(model, touched) if merging and refitting else {}
    plain = [group for group in touched if group.name not in merged]
    work = narrow(model, plain, {group.name: chosen[group.name] for group in plain})
    if not refitting or not touched:
        return Pruned(work, chosen, ())
    gone = gone_channels(plain, {g.name: chosen[g.name] for g in plain}, reads=False)
    merging_at = {reader: name for name, reader in merged.items()}
    paths = _running_order(work, reader_paths(work, touched), batches, run)
    stand = _Stand(work, batches, run, steps, copies, seed)
    with progress.task("refitting", len(paths)) as advance:
        for path in paths:
            if path in merging_at:
                name = merging_at[path]
                chosen[name] = _merge(stand, name, path, kept[name], seen)
            else:
                _refit(stand, path, gone.get(path), seen)
            advance(1)
    return Pruned(stand.model, chosen, tuple(merged))


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


class _Stand:
    """The network under the knife, and how far its images have run.

    `held` are the outputs of the first `done` steps for every batch: what is cut or refitted comes
    after them, so that they need not be computed again. They move on as long as they fit `MEMORY`.
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
        self.held, self.done = list(batches), 0

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

        steps = self.steps(self.model)
        place = next(
            (k for k, (name, _) in enumerate(steps) if path == name or path.startswith(f"{name}.")),
            None,
        )
        if place is None:  # one step: the model itself
            visit_rows(
                self.model,
                {path: positions},
                self.held,
                visit,
                run=self.run,
                seed=self.seed,
                drawn_as={path: drawn_as},
            )
        else:
            self._move_on([module for _, module in steps[:place]])
            rest = nn.Sequential(*(module for _, module in steps[self.done : place + 1]))
            name = steps[place][0]
            inner = f"{place - self.done}" + path[len(name) :]
            visit_rows(
                rest,
                {inner: positions},
                self.held,
                visit,
                run=lambda part, batch: part(batch.clone()),  # a step may work in place
                seed=self.seed,
                drawn_as={inner: drawn_as},
            )
        whole = torch.cat(found, 1)
        return whole.flatten(0, 1), len(whole) * self.copies

    def _move_on(self, steps: Sequence[nn.Module]) -> None:
        images = sum(len(batch) for batch in self.held)
        while self.done < len(steps):
            step = steps[self.done]
            with torch.no_grad(), eval_mode(step):
                first = step(self.held[0][:1].clone())
                if first.numel() * first.element_size() * images > MEMORY:
                    return
                # Clones, because a step may work in place.
                self.held = [step(batch if self.done else batch.clone()) for batch in self.held]
            self.done += 1


def _refit(stand: _Stand, path: str, gone: Tensor | None, seen: Survey) -> None:
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


def _tall(rows: Tensor, anchor: Tensor, target: Tensor, num_samples: int) -> Outgoing:
    """The same where samples are many: the ridge is what shrinkage of the covariance asks for."""
    x_mean, y_mean = rows.mean(0), target.mean(0)
    missing = target - y_mean - (rows - x_mean) @ anchor.T
    x = rows - x_mean
    gram, cross = (x.T @ x).double() / len(x), (x.T @ missing).double() / len(x)
    trace, squares = float(gram.trace()), float(gram.square().sum())
    part = shrinkage(trace, squares, num_samples, len(gram))
    gram.diagonal().add_(part * trace / len(gram))
    change = torch.cholesky_solve(cross, torch.linalg.cholesky(gram)).T
    weight = anchor.double() + change
    return Outgoing(weight, y_mean.double() - weight @ x_mean.double(), part)


def _merge(stand: _Stand, name: str, reader: str, keep: int, seen: Survey) -> Tensor:
    """Merge the units of the linear layer `name` into `keep`; return the survivors."""
    work = stand.model
    layer, consumer = work.get_submodule(name), find_consumer(work, name)
    assert isinstance(layer, nn.Linear)
    before, copies = stand.rows(name, seen.positions[reader], drawn_as=reader, outputs=True)
    with eval_mode(work):
        after = consumer.after(before)
        weight_in, bias = parameters(layer)
        weight, outer = parameters(consumer.layer)
        selection = select(after, weight_in, weight, SelectOptions(rule="cluster", keep=keep))
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
