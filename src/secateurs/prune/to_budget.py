"""A whole network pruned to a budget: groups, checks, survey, allocation, cut, recovery.

This is the whole flow, for any network and any batches. What differs between its clients comes in
`Hooks`: how a network runs on a batch, what is measured of it, and how it is trained on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.limits import check_fields
from secateurs.nets.attention import open_attention
from secateurs.nets.batches import Batch, Run, forward, samples
from secateurs.nets.layers import LAYERS, width_of
from secateurs.progress import SILENT, Progress
from secateurs.prune.allocation.bisection import first_within, last_within, thinned
from secateurs.prune.allocation.budget import Kept, Price, Step, Widths, descent
from secateurs.prune.allocation.importance import Loss
from secateurs.prune.allocation.merge_costs import Steps, with_merging
from secateurs.prune.allocation.survey import Survey, survey
from secateurs.prune.compensation.batch_norm import outputs_of, settle_norms
from secateurs.prune.coupling.groups import Groups, find_groups
from secateurs.prune.eligible import ignored, norm_width, unreadable, unsteady, without
from secateurs.prune.network import Pruned, Score, StartValidation, prune_groups
from secateurs.prune.statistics.parts import in_parts, samples_at_once
from secateurs.prune.surgery.narrow import PARITY_LIMIT, checked, difference, gone_channels, narrow
from secateurs.prune.verification import Outcome, cut_and_check
from secateurs.stopping import StopFlag

CHECKED_SAMPLES = 4
CHECKED_LARGE = 2  # of samples of which fewer than `LARGE` run at once: checks are in float64
LARGE = 16


@dataclass(frozen=True)
class Budget:
    """What a pruned network may cost, as fractions of the unpruned one, and what it may lose.

    `params` and `macs` 0..1; `size_mb` is the size of the weights in float32 (10**6 bytes);
    `latency` 0..1 of the time measured on this device at
    `latency_batch` samples; `max_loss` points (hundredths) of the evaluation before any recovery.
    The smallest network within `max_loss` is taken when nothing else is given. `round_to` keeps the
    channels of every group a multiple of it, and at least `fewest` stay. Units that merge are
    grouped from `starts` random starts, and validation decides between them.
    """

    params: float | None = None
    macs: float | None = None
    latency: float | None = None
    max_loss: float | None = None
    size_mb: float | None = None
    latency_batch: int = 64
    round_to: int = 8
    fewest: int = 8
    starts: int = 5

    def __post_init__(self) -> None:
        check_fields(self)
        if self.params is self.macs is self.latency is self.max_loss is self.size_mb is None:
            raise InputError("budget: give params, macs, latency, max_loss or size_mb")

    def params_of(self, num_parameters: float) -> float | None:
        """The fraction of so many parameters that may stay; None for no limit."""
        if self.size_mb is None:
            return self.params
        allowed = min(1.0, self.size_mb * 1e6 / (4 * num_parameters))
        return allowed if self.params is None else min(allowed, self.params)


@dataclass(frozen=True)
class Hooks:
    """What a client of `prune_to_budget` knows and the flow does not.

    `run` runs a network on a batch; `steps` opens one into (path, module) that run one after the
    other, where that is known. `evaluate` scores a network, higher is better: `max_loss` needs it.
    `loss(network, batch)`, of one sample, decides between groups in the place of the change of the
    outputs. `score` orders the starts of merging by a network's outputs on the held-out batches.
    `latency(unpruned, pruned)` measures the pruned network's share of the time. `train(pruned,
    unpruned)` returns the pruned network, of which it also gets the survivors, trained on.
    `keep_whole(path)` says that the outputs of a layer stay; `ratios` are shares (0..1) of the
    units to remove of groups by name (with `*` as in file names), whatever the budget.
    `norm_widths` says whether units may go over which a layer, RMS or group norm computes its
    statistics, which changes these.
    """

    run: Run = forward
    steps: Steps = lambda model: []
    evaluate: Callable[[nn.Module], float] | None = None
    loss: Loss | None = None
    score: Score | None = None
    latency: Callable[[nn.Module, nn.Module], float] | None = None
    train: Callable[[Pruned, nn.Module], nn.Module] | None = None
    keep_whole: Callable[[str], bool] = lambda path: False
    ratios: Mapping[str, float] = field(default_factory=dict[str, float])
    norm_widths: bool = False


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
    `seconds` is what survey and cut took, without recovery;
    `cost` is what is left of the unpruned network's, as fractions, before recovery; `channels` are
    the outputs that each convolution and linear layer still has, by path.
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
    cost: Price
    channels: dict[str, list[int]]
    seconds: float


@dataclass(frozen=True)
class Surveyed:
    """A network whose groups are found, checked and measured: all that budgets have in common.

    `model` is the unpruned network with its attention opened, `unpruned` its outputs (rows, values)
    on the `held_out` batches, `few` some samples for checks, `at_once` how many of them run at
    once. `seconds` is what the survey took.
    """

    model: nn.Module
    calibration: Sequence[Batch]
    held_out: Sequence[Batch]
    hooks: Hooks
    groups: Groups
    survey: Survey
    widths: Widths
    unpruned: Tensor
    few: Batch
    copies: int
    seed: int
    at_once: int | None
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
    surveyed = survey_network(
        model,
        calibration,
        held_out,
        hooks,
        name=name,
        copies=copies,
        seed=seed,
        stop=stop,
        progress=progress,
    )
    return prune_surveyed(surveyed, budget, stop=stop, progress=progress)


def survey_network(
    model: nn.Module,
    calibration: Sequence[Batch],
    held_out: Sequence[Batch],
    hooks: Hooks,
    *,
    name: str = "the network",
    copies: int = 1,
    seed: int = 0,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> Surveyed:
    """Find, check and measure the groups of a network, once for any number of budgets.

    Takes what `prune_to_budget` takes. Raises InputError when nothing can be pruned.
    """
    started = time.perf_counter()
    stop = stop or StopFlag()
    model = open_attention(model).eval()
    few = samples(calibration[0], slice(0, CHECKED_SAMPLES))
    at_once = samples_at_once(model, few, hooks.run)
    if at_once is not None and at_once < LARGE:
        few = samples(few, slice(0, CHECKED_LARGE))
    with progress.task("finding groups", 3) as advance:
        groups = find_groups(model, few, run=hooks.run)
        advance(1)
        unpruned = outputs_of(model, in_parts(held_out, at_once), run=hooks.run)
        advance(1)
        groups = without(groups, ignored(hooks.keep_whole))
        if not hooks.norm_widths:
            groups = without(groups, norm_width)
        if groups.on_values:
            groups = without(groups, unsteady(model, groups, [*calibration, *held_out], hooks.run))
        groups = without(groups, unreadable(model, groups, few, hooks.run))
        groups = checked(model, groups, few, run=hooks.run)
        advance(1)
    if not groups.found:
        raise InputError(
            f"{name}: nothing can be pruned"
            + (f" ({groups.note})" if groups.note else "")
            + "".join(f"; {left.name}: {left.reason}" for left in groups.not_pruned[:3])
        )
    stop.check()
    seen = survey(
        model,
        groups.found,
        calibration,
        run=hooks.run,
        copies=copies,
        seed=seed,
        loss=hooks.loss,
        at_once=at_once,
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
    return Surveyed(
        model=model,
        calibration=calibration,
        held_out=held_out,
        hooks=hooks,
        groups=groups,
        survey=seen,
        widths=widths,
        unpruned=unpruned,
        few=few,
        copies=copies,
        seed=seed,
        at_once=at_once,
        seconds=time.perf_counter() - started,
    )


def prune_surveyed(
    surveyed: Surveyed,
    budget: Budget,
    *,
    hooks: Hooks | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> PrunedToBudget:
    """Prune a network that was surveyed to one budget, and train it on.

    `hooks` are those of the survey unless given: what trains and what measures may differ from
    budget to budget. Raises InputError when the budget cannot be met.
    """
    started = time.perf_counter()
    stop, hooks = stop or StopFlag(), hooks or surveyed.hooks
    model, groups, seen, few = surveyed.model, surveyed.groups, surveyed.survey, surveyed.few
    calibration, held_out = surveyed.calibration, surveyed.held_out
    unpruned, widths = surveyed.unpruned, surveyed.widths
    parts = in_parts(held_out, surveyed.at_once)

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
            copies=surveyed.copies,
            seed=surveyed.seed,
            at_once=surveyed.at_once,
            **final,
        )

    def candidate(kept: Kept) -> nn.Module:
        pruned = prune(kept)
        settle_norms(
            pruned.model, unpruned, parts, calibration, implied=pruned.implied, run=hooks.run
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
        parts,
        calibration,
        predicted=chosen.loss if hooks.loss is None else None,
        run=hooks.run,
    )
    cost = _check_reached(result.model, widths, budget)
    parity = difference(model, groups.found, result.survivors, few, run=hooks.run)
    assert parity <= PARITY_LIMIT, f"removed and zeroed differ: {parity}"
    seconds = surveyed.seconds + time.perf_counter() - started
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
        cost=cost,
        channels=_channels(model, groups, result.survivors),
        seconds=seconds,
    )


def _fixed(groups: Groups, ratios: Mapping[str, float]) -> Kept:
    """The units kept of groups for which a share to remove is given."""
    fixed: Kept = {}
    for pattern, share in ratios.items():
        if not 0 <= share < 1:
            raise InputError(f"ratios: {pattern!r}: expected 0..1, below 1, got {share:g}")
        named = [group for group in groups.found if fnmatchcase(group.name, pattern)]
        if not named:
            names = ", ".join(group.name for group in groups.found[:5])
            raise InputError(f"ratios: no group is named {pattern!r}; there are {names}")
        for group in named:
            fixed[group.name] = max(1, round(group.num_units * (1 - share)))
    return fixed


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
        params = budget.params_of(self.widths.total.parameters)
        limited = params is not None or budget.macs is not None
        fixed = _fixed(self.groups, self.hooks.ratios)
        down = partial(
            descent,
            self.widths,
            {n: e for n, e in self.seen.eliminations.items() if n not in fixed},
            round_to=budget.round_to,
            fewest=budget.fewest,
        )
        trajectory = down(params=params, macs=budget.macs, start=fixed)
        if budget.latency is not None:
            # Onwards by multiply-accumulates, which take the time, until the clock agrees.
            first = len(trajectory) - 1 if limited else 0
            if limited:
                trajectory += down(start=trajectory[-1].kept, by="macs")[1:]
            else:
                trajectory = down(by="macs", start=fixed)
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
        with self.progress.task("searching within the loss", len(steps).bit_length()) as advance:
            return last_within(steps, is_good, lambda: advance(1))

    def _is_fast(self, step: Step) -> bool:
        assert self.budget.latency is not None
        if self.hooks.latency is None:
            raise InputError("budget: latency needs a measurement of the time")
        survivors = {
            name: self.seen.eliminations[name].survivors(keep) for name, keep in step.kept.items()
        }
        pruned = narrow(self.model, self.groups.found, survivors)
        share = self.hooks.latency(self.model, pruned)
        self.tried.append(Tried(step, latency=share))
        return share <= self.budget.latency


def _check_reached(model: nn.Module, widths: Widths, budget: Budget) -> Price:
    """What a pruned network costs, as fractions; InputError when that is more than the budget."""
    real = widths.fraction(widths.count(model))
    for word, limit, part in (
        ("macs", budget.macs, real.macs),
        ("params", budget.params_of(widths.total.parameters), real.parameters),
    ):
        if limit is not None and part > limit:
            raise InputError(
                f"budget: {word} {limit:g} was asked for, the pruned network has {part:.3g}"
            )
    return real


def _channels(
    model: nn.Module, groups: Groups, survivors: dict[str, Tensor]
) -> dict[str, list[int]]:
    """The output channels that each convolution and linear layer still has, by path."""
    found: dict[str, list[int]] = {}
    for path, gone in gone_channels(groups.found, survivors, reads=False).items():
        layer = model.get_submodule(path)
        if isinstance(layer, LAYERS):
            stays = torch.ones(width_of(layer), dtype=torch.bool)
            stays[gone] = False
            found[path] = stays.nonzero().flatten().tolist()
    return found
