"""A whole network pruned to a budget: groups, checks, survey, allocation, cut, recovery.

This is the whole flow, for any network and any batches. What differs between its clients comes in
`Hooks`: how a network runs on a batch, what is measured of it, and how it is trained on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.memory import give_memory_back
from secateurs.nets.attention import open_attention
from secateurs.nets.batches import Batch, samples
from secateurs.nets.layers import LAYERS, width_of
from secateurs.progress import SILENT, Progress
from secateurs.prune.allocation.budget import Kept, Price, Step, Widths
from secateurs.prune.allocation.merge_costs import with_merging
from secateurs.prune.allocation.survey import Survey, survey
from secateurs.prune.compensation.batch_norm import Change, change_of, outputs_of, settle_norms
from secateurs.prune.coupling.groups import Groups, find_groups
from secateurs.prune.eligible import ignored, norm_width, unreadable, unsteady, without
from secateurs.prune.network import Pruned, StartValidation, prune_groups
from secateurs.prune.reconstruction.options import Reconstruction, ReconstructionOptions
from secateurs.prune.reconstruction.reconstruct import reconstruct
from secateurs.prune.request import Budget as Budget
from secateurs.prune.request import Hooks as Hooks
from secateurs.prune.request import Tried as Tried
from secateurs.prune.statistics.parts import in_parts, samples_at_once
from secateurs.prune.surgery.checked_groups import checked
from secateurs.prune.surgery.narrow import PARITY_LIMIT, difference, gone_channels
from secateurs.prune.verification import Outcome, cut_and_check
from secateurs.prune.width_search import WidthSearch
from secateurs.stopping import StopFlag

CHECKED_SAMPLES = 4
CHECKED_LARGE = 2  # of samples of which fewer than `LARGE` run at once: checks are in float64
LARGE = 16


@dataclass(frozen=True)
class PrunedToBudget:
    """A network pruned as a whole, and what was measured on the way.

    `model` is the network after recovery, `before_recovery` before (the same where there was none);
    `seconds` is what survey and cut took, without recovery;
    `cost` is what is left of the unpruned network's, as fractions, before recovery; `channels` are
    the outputs that each convolution and linear layer still has, by path. `outcome` is that of the
    cut; `reconstruction` what was tuned after it, None where nothing was asked for.
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
    reconstruction: Reconstruction | None
    seconds: float

    @property
    def change(self) -> Change:
        """How far the outputs are from the unpruned network's, before recovery."""
        tuned = self.reconstruction
        if tuned is not None and tuned.used and tuned.change is not None:
            return tuned.change
        return self.outcome.change


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
    reconstruction: ReconstructionOptions | None = None,
    copies: int = 1,
    seed: int = 0,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> PrunedToBudget:
    """Prune every group of a network that can be pruned, to the budget, and train it on.

    Units are taken where they cost the least loss for what they save, measured on the `calibration`
    batches (`copies` views of the same samples, view by view). The `held_out` batches, which no
    refit sees, decide between batch norm statistics, between starts of what is merged, whether the
    cut came as predicted, and whether the `reconstruction` of blocks is used. The model given is
    not changed. Raises InputError when nothing can be pruned or the budget cannot be met.
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
    return prune_surveyed(
        surveyed, budget, reconstruction=reconstruction, stop=stop, progress=progress
    )


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
            every = in_parts([*calibration, *held_out], at_once)
            groups = without(groups, unsteady(model, groups, every, hooks.run))
        groups = without(groups, unreadable(model, groups, few, hooks.run))
        groups = checked(model, groups, few, run=hooks.run)
        advance(1)
    if not groups.found:
        raise InputError(
            f"{name}: nothing can be pruned"
            + (f" ({groups.note})" if groups.note else "")
            + ("" if groups.not_pruned or groups.note else " (no layer that runs feeds another)")
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
    reconstruction: ReconstructionOptions | None = None,
    stop: StopFlag | None = None,
    progress: Progress = SILENT,
) -> PrunedToBudget:
    """Prune a network that was surveyed to one budget, and train it on.

    `hooks` are those of the survey unless given: what trains and what measures may differ from
    budget to budget. With `reconstruction` the blocks of the pruned network are tuned afterwards,
    see `reconstruct`. Raises InputError when the budget cannot be met.
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
    choice = WidthSearch(model, groups, widths, seen, budget, hooks, candidate, progress)
    trajectory, chosen = choice.choose()
    result, outcome = cut_and_check(
        partial(prune, chosen.kept, validation=validation, progress=progress),
        unpruned,
        parts,
        calibration,
        predicted=chosen.loss if hooks.loss is None else None,
        run=hooks.run,
    )
    give_memory_back()
    cost = _check_reached(result.model, widths, budget)
    parity = difference(model, groups.found, result.survivors, few, run=hooks.run)
    assert parity <= PARITY_LIMIT, f"removed and zeroed differ: {parity}"
    tuned = None
    if reconstruction is not None:
        result, tuned = _reconstructed(
            surveyed, result, outcome, reconstruction, hooks=hooks, stop=stop, progress=progress
        )
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
        reconstruction=tuned,
        seconds=seconds,
    )


def _reconstructed(
    surveyed: Surveyed,
    result: Pruned,
    outcome: Outcome,
    options: ReconstructionOptions,
    *,
    hooks: Hooks,
    stop: StopFlag,
    progress: Progress,
) -> tuple[Pruned, Reconstruction]:
    """The pruned network with its blocks tuned, unless that moves its outputs further away."""
    model, found = reconstruct(
        result.model,
        surveyed.model,
        surveyed.groups.found,
        result.survivors,
        surveyed.calibration if hooks.views is None else hooks.views(),
        surveyed.held_out,
        merged=result.merged,
        run=hooks.run,
        options=options,
        seed=surveyed.seed,
        stop=stop,
        progress=progress,
    )
    parts = in_parts(surveyed.held_out, surveyed.at_once)
    change = change_of(outputs_of(model, parts, run=hooks.run), surveyed.unpruned)
    found = replace(found, change=change)
    if change.squared < outcome.change.squared:
        return replace(result, model=model), replace(found, used=True)
    return result, found


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
