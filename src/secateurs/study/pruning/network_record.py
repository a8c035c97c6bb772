"""What pruning.json keeps of a network pruned as a whole, and the sentence of an alarm."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from secateurs.prune.allocation.budget import Kept, Step
from secateurs.prune.allocation.survey import Survey
from secateurs.prune.coupling.groups import Group
from secateurs.prune.network import Pruned
from secateurs.prune.to_budget import PrunedToBudget, Tried
from secateurs.prune.verification import Outcome
from secateurs.study.pruning.recovery import Recovered


def alarm_sentence(outcome: Outcome) -> str:
    """What a reader has to know of a cut that changed the outputs more than predicted."""
    return (
        f"pruning changed the outputs on validation images by {outcome.change.squared:.3g} (mean "
        f"squared; {outcome.change.relative:.0%} of their variance); the prediction was "
        f"{outcome.predicted:.3g}; prune less, or use more epochs of recovery"
    )


def group_rows(
    groups: tuple[Group, ...], seen: Survey, kept: Kept, result: Pruned, outcome: Outcome
) -> list[dict[str, Any]]:
    """One row per group: its size, how many units are kept, how, and the loss predicted."""
    return [
        {
            "name": group.name,
            "num_units": group.num_units,
            "num_kept": len(result.survivors.get(group.name, range(group.num_units))),
            "how": _how(group, kept, result, outcome),
            "loss": seen.eliminations[group.name].loss_of(kept[group.name]),
            "layers": [{"path": member.path, "side": member.side} for member in group.members],
        }
        for group in groups
    ]


def _how(group: Group, kept: Kept, result: Pruned, outcome: Outcome) -> str:
    if kept[group.name] == group.num_units:
        return "whole"
    if outcome.weights == "as they were":
        return "drop"
    return "merge" if group.name in result.merged else "least_squares"


def step_row(step: Step, whole: Step) -> dict[str, Any]:
    """A step's cost as fractions of the unpruned network's, and its predicted loss."""
    return {
        "macs": step.price.macs / max(whole.price.macs, 1.0),
        "params": step.price.parameters / whole.price.parameters,
        "loss": step.loss,
    }


def network_record(pruned: PrunedToBudget, recovered: Recovered | None) -> dict[str, Any]:
    """What pruning.json keeps of a network pruned as a whole."""
    whole = pruned.trajectory[0]
    return {
        "groups": group_rows(
            pruned.groups.found, pruned.survey, pruned.chosen.kept, pruned.result, pruned.outcome
        ),
        "not_pruned": [asdict(left) for left in pruned.groups.not_pruned],
        "note": pruned.groups.note,
        "trajectory": [step_row(step, whole) for step in pruned.trajectory],
        "chosen": step_row(pruned.chosen, whole),
        "tried": [_tried_row(tried, whole) for tried in pruned.tried],
        "starts": list(pruned.result.tried),
        "outcome": pruned.outcome.to_json(),
        "reconstruction": None
        if pruned.reconstruction is None
        else pruned.reconstruction.to_json(),
        "parity": pruned.parity,
        "seconds": pruned.seconds,
        "recovery": None if recovered is None else recovered.to_json(),
    }


def _tried_row(tried: Tried, whole: Step) -> dict[str, Any]:
    if tried.latency is not None:
        return {"kept": tried.step.kept, "latency": tried.latency}
    return {**step_row(tried.step, whole), "val_accuracy": tried.evaluation}
