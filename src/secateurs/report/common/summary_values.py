"""The parts of a study's results that several figures and sentences need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secateurs.report.common.words import proper

Record = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """Evaluations of the chosen model before and after pruning, on one side of the split."""

    side: str  # "test", or "validation" when the test images were not evaluated
    before: Record
    after: Record | None


def outcome(results: Record) -> Outcome | None:
    """The evaluations to show: on the test images if there are any, else on validation."""
    chosen, pruned = results["chosen"], results["pruned"]
    for key, side in (("test", "test"), ("val", "validation")):
        if chosen and chosen[key]:
            return Outcome(side, chosen[key], pruned[key] if pruned else None)
    return None


def num_right(evaluation: Record) -> int:
    """How many images were answered correctly: the confusion matrix's diagonal."""
    return sum(row[index] for index, row in enumerate(evaluation["confusion"]))


def is_scratch(row: Record) -> bool:
    """Whether a trial or a row of the sweep is the baseline: random weights, nothing frozen."""
    return not row["pretrained"] and row["depth"] == 0


def scratch_row(results: Record) -> Record | None:
    """The sweep's row of the baseline from random weights, if it was run."""
    return next((row for row in results["sweep"] if is_scratch(row)), None)


def depth_rows(results: Record) -> list[Record]:
    """The sweep's rows without the baseline, shallowest first."""
    rows = [row for row in results["sweep"] if not is_scratch(row)]
    return sorted(rows, key=lambda row: row["depth"])


def random_frozen(results: Record, row: Record) -> list[str]:
    """The layers that a row of the sweep freezes although they have random weights."""
    if not row["pretrained"]:
        return []
    if row.get("random_frozen") is not None:
        return row["random_frozen"]
    # Not recorded by an older version: right where what was loaded are the first layers.
    weights = results["weights"]
    return weights["fresh"][: max(0, row["depth"] - len(weights["loaded"]))]


def chosen_trial(results: Record) -> Record | None:
    """The record of the trial that was chosen."""
    chosen = results["chosen"]
    if not chosen:
        return None
    return next((trial for trial in results["trials"] if trial["key"] == chosen["key"]), None)


def chosen_row(results: Record) -> Record | None:
    """The sweep's row that the chosen trial belongs to."""
    trial = chosen_trial(results)
    if trial is None:
        return None
    same = (trial["depth"], trial["pretrained"])
    rows = results["sweep"]
    return next((row for row in rows if (row["depth"], row["pretrained"]) == same), None)


def trial_name(trial: Record) -> str:
    """How a trial is called in legends and tables.

    >>> trial_name({"depth": 5, "run": 0, "pretrained": True})
    'depth 5, run 1'
    """
    start = "scratch" if is_scratch(trial) else f"depth {trial['depth']}"
    return f"{start}, run {trial['run'] + 1}"


def latency_name(row: Record) -> str:
    """What one latency measurement ran on, without its batch size.

    >>> latency_name({"runtime": "onnxruntime", "device": "cpu"})
    'ONNX Runtime, cpu'
    """
    return f"{proper(row['runtime'])}, {row['device']}"


def headline_latency(results: Record) -> Record | None:
    """The measurement for the first screen: the smallest batch, ONNX Runtime if it was run."""
    cost = results["cost"]
    rows: list[Record] = (cost and cost["latency"]) or []
    return min(rows, key=lambda row: (row["batch"], row["runtime"] != "onnxruntime"), default=None)


# Within 3%, two medians of a quick measurement are the same number.
SAME_TIME = 0.97


def is_faster(row: Record) -> bool | None:
    """Whether a latency measurement says that pruning made it faster; None when it cannot say.

    The rule of the sentence on cost: a median below `SAME_TIME` in which most rounds agree.

    >>> times = {"before_ms": {"median": 10.0}, "after_ms": {"median": 9.0}}
    >>> is_faster(times), is_faster(times | {"ratio_p75": 1.02})
    (True, False)
    """
    before, after = row["before_ms"]["median"], (row["after_ms"] or {}).get("median")
    if not before or after is None:
        return None
    return after / before <= SAME_TIME and (row.get("ratio_p75") or 0) < 1
