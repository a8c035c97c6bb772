"""How many units of each group stay: the step of the trajectory that meets a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial

from torch import nn

from secateurs.errors import InputError
from secateurs.progress import Progress
from secateurs.prune.allocation.bisection import first_within, last_within, thinned
from secateurs.prune.allocation.budget import Kept, Step, Widths, descent
from secateurs.prune.allocation.survey import Survey
from secateurs.prune.coupling.groups import Groups
from secateurs.prune.request import Budget, Hooks, Tried
from secateurs.prune.surgery.narrow import narrow


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
class WidthSearch:
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
