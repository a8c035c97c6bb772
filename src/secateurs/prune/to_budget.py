"""A whole network pruned to a budget: groups, checks, survey, allocation, cut, recovery.

This is the whole flow, for any network and any batches. What differs between its clients comes in
`Hooks`: how a network runs on a batch, what is measured of it, and how it is trained on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.limits import check_fields
from secateurs.nets.attention import open_attention
from secateurs.nets.batches import Batch, Run, forward, samples
from secateurs.progress import SILENT, Progress
from secateurs.prune.allocation.budget import Kept, Step, Widths, descent
from secateurs.prune.allocation.merge_costs import Steps, with_merging
from secateurs.prune.allocation.search import first_within, last_within, thinned
from secateurs.prune.allocation.survey import Survey, survey
from secateurs.prune.compensation.batch_norm import outputs_of, settle_norms
from secateurs.prune.coupling.groups import Groups, find_groups
from secateurs.prune.network import Pruned, Score, StartValidation, prune_groups
from secateurs.prune.surgery.narrow import PARITY_LIMIT, checked, difference, gone_channels, narrow
from secateurs.prune.verification import Outcome, cut_and_check
from secateurs.stopping import StopFlag

CHECKED_SAMPLES = 4


@dataclass(frozen=True)
class Budget:
    """What a pruned network may cost, as fractions of the unpruned one, and what it may lose.

    `params` and `macs` 0..1; `latency` 0..1 of the time measured on this device at
    `latency_batch` samples; `max_loss` points (hundredths) of the evaluation before any recovery.
    The smallest network within `max_loss` is taken when nothing else is given. `round_to` keeps the
    channels of every group a multiple of it, and at least `fewest` stay. Units that merge are
    grouped from `starts` random starts, and validation decides between them.
    """

    params: float | None = None
    macs: float | None = None
    latency: float | None = None
    max_loss: float | None = None
    latency_batch: int = 64
    round_to: int = 8
    fewest: int = 8
    starts: int = 5

    def __post_init__(self) -> None:
        check_fields(self)
        if self.params is self.macs is self.latency is self.max_loss is None:
            raise InputError("budget: give params, macs, latency or max_loss")


@dataclass(frozen=True)
class Hooks:
    """What a client of `prune_to_budget` knows and the flow does not.

    `run` runs a network on a batch; `steps` opens one into (path, module) that run one after the
    other, where that is known. `evaluate` scores a network, higher is better: `max_loss` needs it.
    `score` orders the starts of merging by a network's outputs on the held-out batches.
    `latency(unpruned, pruned)` measures the pruned network's share of the time. `train(pruned,
    unpruned)` returns the pruned network, of which it also gets the survivors, trained on.
    """

    run: Run = forward
    steps: Steps = lambda model: []
    evaluate: Callable[[nn.Module], float] | None = None
    score: Score | None = None
    latency: Callable[[nn.Module, nn.Module], float] | None = None
    train: Callable[[Pruned, nn.Module], nn.Module] | None = None


@dataclass(frozen=True)
class Tried:
    """A step that was measured: its evaluation or its share of the time."""

    step: Step
    evaluation: float | None = None
    latency: float | None = None


@dataclass(frozen=True)
class PrunedToBudget:
    """A network pruned as a whole, and what was measured on the way.

    `model` is the network after recovery, `before_recovery` before (the same where there was none);
    `channels` are the outputs that each convolution and linear layer still has, by path.
    """

    model: nn.Module
    before_recovery: nn.Module
    groups: Groups
    survey: Survey
    trajectory: list[Step]
    chosen: Step
    tried: list[Tried]
    result: Pruned
    outcome: Outcome
    parity: float
    channels: dict[str, list[int]]
    seconds: float


def prune_to_budget(
    model: nn.Module,
    calibration: Sequence[Batch],
    held_out: Sequence[Batch],
    budget: Budget,
    hooks: Hooks,
    *,
    name: str = "the network",
    copies: int = 1,
    seed: int = 0,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> PrunedToBudget:
    """Prune every group of a network that can be pruned, to the budget, and train it on.

    Units are taken where they cost the least loss for what they save, measured on the `calibration`
    batches (`copies` views of the same samples, view by view). The `held_out` batches, which no
    refit sees, decide between batch norm statistics, between starts of what is merged, and whether
    the cut came as predicted. The model given is not changed. Raises InputError when nothing can be
    pruned or the budget cannot be met.
    """
    started = time.perf_counter()
    stop = stop or StopFlag()
    model = open_attention(model).eval()
    few = samples(calibration[0], slice(0, CHECKED_SAMPLES))
    groups = _groups(model, few, hooks.run, name, progress)
    stop.check()
    seen = survey(
        model,
        groups.found,
        calibration,
        run=hooks.run,
        copies=copies,
        seed=seed,
        progress=progress,
    )
    stop.check()
    seen = with_merging(
        model,
        groups.found,
        seen,
        calibration,
        run=hooks.run,
        steps=hooks.steps,
        copies=copies,
        progress=progress,
    )
    widths = Widths(model, groups.found, few, run=hooks.run)
    stop.check()
    unpruned = outputs_of(model, held_out, run=hooks.run)

    def prune(kept: Kept, merging: bool = True, refitting: bool = True, **final: Any) -> Pruned:
        stop.check()
        return prune_groups(
            model,
            groups.found,
            seen,
            kept,
            calibration,
            run=hooks.run,
            steps=hooks.steps,
            merging=merging,
            refitting=refitting,
            copies=copies,
            seed=seed,
            **final,
        )

    def candidate(kept: Kept) -> nn.Module:
        pruned = prune(kept)
        settle_norms(
            pruned.model, unpruned, held_out, calibration, implied=pruned.implied, run=hooks.run
        )
        return pruned.model

    validation = None
    if hooks.score is not None:
        validation = StartValidation(held_out, hooks.score, budget.starts)
    choice = _Choice(model, groups, widths, seen, budget, hooks, candidate, progress)
    trajectory, chosen = choice.choose()
    result, outcome = cut_and_check(
        partial(prune, chosen.kept, validation=validation, progress=progress),
        unpruned,
        held_out,
        calibration,
        predicted=chosen.loss,
        run=hooks.run,
    )
    _check_reached(result.model, widths, budget)
    parity = difference(model, groups.found, result.survivors, few, run=hooks.run)
    assert parity <= PARITY_LIMIT, f"removed and zeroed differ: {parity}"
    seconds = time.perf_counter() - started
    trained = result.model if hooks.train is None else hooks.train(result, model)
    return PrunedToBudget(
        model=trained,
        before_recovery=result.model,
        groups=groups,
        survey=seen,
        trajectory=trajectory,
        chosen=chosen,
        tried=choice.tried,
        result=result,
        outcome=outcome,
        parity=parity,
        channels=_channels(model, groups, result.survivors),
        seconds=seconds,
    )


def _groups(model: nn.Module, few: Batch, run: Run, name: str, progress: Progress) -> Groups:
    """The groups that can be pruned, each checked on a few samples."""
    with progress.task("finding groups", 2) as advance:
        groups = find_groups(model, few, run=run)
        advance(1)
        groups = checked(model, groups, few, run=run)
        advance(1)
    if not groups.found:
        raise InputError(
            f"{name}: nothing can be pruned"
            + (f" ({groups.note})" if groups.note else "")
            + "".join(f"; {left.name}: {left.reason}" for left in groups.not_pruned[:3])
        )
    return groups


@dataclass
class _Choice:
    """The search for the step that meets a budget, and what was measured on the way."""

    model: nn.Module
    groups: Groups
    widths: Widths
    seen: Survey
    budget: Budget
    hooks: Hooks
    candidate: Callable[[Kept], nn.Module]
    progress: Progress

    def __post_init__(self) -> None:
        self.tried: list[Tried] = []

    def choose(self) -> tuple[list[Step], Step]:
        """The trajectory from the unpruned network down, and the step that meets the budget."""
        budget = self.budget
        limited = budget.params is not None or budget.macs is not None
        down = partial(
            descent,
            self.widths,
            self.seen.eliminations,
            round_to=budget.round_to,
            fewest=budget.fewest,
        )
        trajectory = down(params=budget.params, macs=budget.macs)
        if budget.latency is not None:
            # Onwards by multiply-accumulates, which take the time, until the clock agrees.
            first = len(trajectory) - 1 if limited else 0
            if limited:
                trajectory += down(start=trajectory[-1].kept, by="macs")[1:]
            else:
                trajectory = down(by="macs")
            return trajectory, self._within_latency(trajectory, first)
        if limited:
            return trajectory, trajectory[-1]
        return trajectory, self._within_loss(trajectory)

    def _within_latency(self, trajectory: list[Step], first: int) -> Step:
        steps = trajectory[first:]
        with self.progress.task("measuring latency", len(steps).bit_length()) as advance:
            found = first_within(steps, self._is_fast, lambda: advance(1))
        if found is None:
            raise InputError(
                f"latency: the smallest network still takes {self.tried[-1].latency:.2f} of the "
                f"time at batch {self.budget.latency_batch} on this device"
            )
        return found

    def _within_loss(self, trajectory: list[Step]) -> Step:
        evaluate = self.hooks.evaluate
        assert self.budget.max_loss is not None
        if evaluate is None:
            raise InputError("budget: max_loss needs an evaluation of the network")
        floor = evaluate(self.model) - self.budget.max_loss / 100

        def is_good(step: Step) -> bool:
            reached = evaluate(self.candidate(step.kept))
            self.tried.append(Tried(step, evaluation=reached))
            return reached >= floor - 1e-12

        steps = thinned(trajectory)
        with self.progress.task("how far the loss allows", len(steps).bit_length()) as advance:
            return last_within(steps, is_good, lambda: advance(1))

    def _is_fast(self, step: Step) -> bool:
        assert self.hooks.latency is not None and self.budget.latency is not None
        survivors = {
            name: self.seen.eliminations[name].survivors(keep) for name, keep in step.kept.items()
        }
        pruned = narrow(self.model, self.groups.found, survivors)
        share = self.hooks.latency(self.model, pruned)
        self.tried.append(Tried(step, latency=share))
        return share <= self.budget.latency


def _check_reached(model: nn.Module, widths: Widths, budget: Budget) -> None:
    """Raise InputError when a pruned network costs more than the budget, as reports count."""
    real = widths.fraction(widths.count(model))
    for word, limit, part in (
        ("macs", budget.macs, real.macs),
        ("params", budget.params, real.parameters),
    ):
        if limit is not None and part > limit:
            raise InputError(
                f"budget: {word} {limit:g} was asked for, the pruned network has {part:.3g}"
            )


def _channels(
    model: nn.Module, groups: Groups, survivors: dict[str, Tensor]
) -> dict[str, list[int]]:
    """The output channels that each convolution and linear layer still has, by path."""
    found: dict[str, list[int]] = {}
    for path, gone in gone_channels(groups.found, survivors, reads=False).items():
        layer = model.get_submodule(path)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            stays = torch.ones(len(layer.weight), dtype=torch.bool)
            stays[gone] = False
            found[path] = stays.nonzero().flatten().tolist()
    return found
