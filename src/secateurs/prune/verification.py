"""Whether a cut came as predicted, and what is taken instead where it did not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from secateurs.nets.batches import Batch, Run, forward
from secateurs.prune.compensation.batch_norm import Change, NormChoice, settle_norms
from secateurs.prune.network import Pruned

ALARM = 3.0  # measured change, as a multiple of the predicted one
NOTICEABLE = 0.1  # of the variance of the outputs: smaller changes are no alarm
Weights = Literal["refitted", "refitted, not merged", "as they were"]


@dataclass(frozen=True)
class Outcome:
    """How far a cut moved the outputs of a network, on samples that no refit has seen.

    `predicted` is the change (mean squared, summed over the outputs) that the cut was planned with
    (None where it was planned with a loss of another kind, which raises no alarm),
    `change` the measured one, `norms` which batch norm statistics were taken. `alarm` says that the
    change is noticeable and more than `ALARM` times what was predicted; then other ways to set the
    weights were tried, `tried` has them all and `weights` is the one with the least change.
    """

    predicted: float | None
    change: Change
    norms: NormChoice
    weights: Weights
    alarm: bool
    tried: dict[Weights, float]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as under `outcome` in pruning.json."""
        return {
            "predicted": self.predicted,
            "measured": self.change.squared,
            "relative": self.change.relative,
            "alarm": self.alarm,
            "weights": self.weights,
            "tried": self.tried,
            "norms": self.norms.chosen,
            "norms_tried": {name: change.squared for name, change in self.norms.tried.items()},
        }


def alarming(change: Change, predicted: float | None) -> bool:
    """Whether a change is noticeable and far above the predicted one.

    >>> alarming(Change(squared=3.4, relative=0.5), 0.38)
    True
    """
    return change.relative > NOTICEABLE and change.squared > ALARM * (predicted or 0.0)


def cut_and_check(
    cut_with: Callable[[bool, bool], Pruned],
    whole: Tensor,
    held_out: Sequence[Batch],
    calibration: Sequence[Batch],
    *,
    predicted: float | None,
    run: Run = forward,
) -> tuple[Pruned, Outcome]:
    """Cut, settle the batch norm statistics, and compare the change with the predicted one.

    `cut_with(merging, refitting)` cuts; `whole` are the unpruned network's outputs on the
    `held_out` batches, `calibration` the batches that statistics may be measured on. On an alarm
    the cut is made again without merging and without any refit, and the one that moves the outputs
    least is returned. Where nothing was predicted that is done for every noticeable change.
    """

    def attempt(merging: bool, refitting: bool) -> tuple[Pruned, NormChoice]:
        pruned = cut_with(merging, refitting)
        norms = settle_norms(
            pruned.model, whole, held_out, calibration, implied=pruned.implied, run=run
        )
        return pruned, norms

    def change(norms: NormChoice) -> Change:
        return norms.tried[norms.chosen]

    weights: Weights = "refitted"
    pruned, norms = attempt(True, True)
    tried: dict[Weights, float] = {weights: change(norms).squared}
    alarm = alarming(change(norms), predicted)
    if alarm:
        others: list[tuple[Weights, bool, bool]] = [("as they were", False, False)]
        if pruned.merged:
            others.insert(0, ("refitted, not merged", False, True))
        for name, merging, refitting in others:
            other, settled = attempt(merging, refitting)
            tried[name] = change(settled).squared
            if change(settled).squared < change(norms).squared:
                pruned, norms, weights = other, settled, name
    alarm = predicted is not None and alarming(change(norms), predicted)
    return pruned, Outcome(predicted, change(norms), norms, weights, alarm, tried)
