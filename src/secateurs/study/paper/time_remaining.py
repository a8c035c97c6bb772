"""How long a run of the paper still takes, from what its trials took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secateurs.progress import duration
from secateurs.study.paper.protocol import PaperPlan
from secateurs.study.trials.trial import Trial

Record = dict[str, Any]


def trials_remaining(plan: Sequence[Trial], records: Sequence[Record]) -> float:
    """Seconds that the trials after those of `records` take, each like those of its depth.

    A depth not seen yet takes the mean of those that were.
    """
    means = _means(records)
    usual = sum(means.values()) / len(means)
    todo = plan[len(records) :]
    return sum(means.get((trial.pretrained, trial.depth), usual) for trial in todo)


def parts_remaining(plan: PaperPlan, records: Sequence[Record], *, films: bool) -> float:
    """Seconds that all takes which follows Table 1, roughly.

    The search and the other reading of dropout train at the depth that leads so far.
    """
    means = _means(records)
    pretrained = [value for (kind, _), value in means.items() if kind] or list(means.values())
    leading = max(records, key=lambda r: (r["pretrained"], r["val_accuracy"] or 0.0))
    trial = means[leading["pretrained"], leading["depth"]]
    # What the frozen layers take on one view of each image, had by some run in full.
    runs = {record["run"] for record in records}
    opening = [sum(r["timing"]["frozen_seconds"] for r in records if r["run"] == k) for k in runs]
    view = max(opening) / plan.epochs
    seconds = plan.runs * trial if plan.first_epoch_dropout else 0.0
    if plan.noisy_activations:
        seconds += len(plan.angles_deg) * len(plan.norm_stds) * view
    if plan.search:
        searched = plan.search_plan()
        seconds += len(searched.lrs) * trial * max(searched.epochs) / plan.epochs
    if films:
        seconds += plan.runs * sum(pretrained)
    return seconds


def remaining_words(
    plan: PaperPlan, trials: Sequence[Trial], records: Sequence[Record], *, films: bool
) -> str:
    """Both in words.

    >>> timing = {"seconds": 60.0, "frozen_seconds": 0.0}
    >>> done = [{"depth": 7, "run": 0, "pretrained": True, "timing": timing}]
    >>> done[0]["val_accuracy"] = 0.5
    >>> remaining_words(PaperPlan(runs=1), [Trial(7, 0)] * 3, done, films=True)
    'about 2 min left for Table 1, about 10 min for the rest'
    """
    rest = f"about {duration(parts_remaining(plan, records, films=films))} for the rest"
    table = trials_remaining(trials, records)
    return f"about {duration(table)} left for Table 1, {rest}" if table else f"{rest} left"


def _means(records: Sequence[Record]) -> dict[tuple[bool, int], float]:
    seconds: dict[tuple[bool, int], list[float]] = {}
    for record in records:
        kind = (record["pretrained"], record["depth"])
        seconds.setdefault(kind, []).append(record["timing"]["seconds"])
    return {kind: sum(values) / len(values) for kind, values in seconds.items()}
