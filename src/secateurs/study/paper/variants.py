"""Where the paper's text and its program say different things, both: resizing, dropout, formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from secateurs.fit.cache import PrefixCache
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.paper.best_network import tested_trials
from secateurs.study.paper.protocol import PaperPlan
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.setup.trial_context import Dataset, TrialContext, open_dataset
from secateurs.study.sweep.statistics import summarise
from secateurs.study.trials.store import Store
from secateurs.study.trials.task import Executor

Record = dict[str, Any]


def both_resizes(model: nn.Module, data: str, context: TrialContext, cache: Path) -> Record:
    """A network on test images resized as the program does, and as the text says."""
    rows: list[Record] = []
    for resize in ("crop", "straight"):
        dataset: Dataset = context.dataset
        if resize != context.config.resize:
            dataset = open_dataset(data, replace(context.config, resize=resize), cache=cache)
        test = evaluate_model(model, dataset, "test", context.device).to_json()
        rows.append({"resize": resize, "test": test})
    return {"rows": rows}


def both_dropouts(
    plan: PaperPlan,
    context: TrialContext,
    store: Store,
    records: Sequence[Record],
    depth: int,
    *,
    prefix_cache: PrefixCache,
    executor: Executor | None = None,
    stop: StopFlag,
    progress: Progress = SILENT,
) -> tuple[list[Record], list[Record]]:
    """Test accuracy at a depth with dropout in the first epoch alone, and in every one.

    With it the trials that were trained for the second.
    """
    always: list[Record] = []
    ways = [("first-epoch", [r for r in records if r["pretrained"] and r["depth"] == depth])]
    if not plan.first_epoch_dropout:
        ways = [("on", ways[0][1])]
    else:
        config = plan.always_dropping(depth)
        always = tested_trials(
            replace(context, config=config, depths=(depth,)),
            store,
            prefix_cache=prefix_cache,
            executor=executor,
            stop=stop,
            progress=progress,
            what="trials with dropout in every epoch",
            keep=False,
        )
        ways.append(("on", always))
    rows = [
        {"dropout": name, "depth": depth, **_spread([r["test"]["accuracy"] for r in found])}
        for name, found in ways
    ]
    return rows, always


def _spread(values: Sequence[float]) -> Record:
    found = summarise(values)
    return {"num_runs": len(values), "mean": found.mean, "low": found.low, "high": found.high}


def overall_accuracy(confusion: Sequence[Sequence[int]]) -> float:
    """The text's formula, (tp + tn) / (tp + fp + fn + tn) of each class against the rest, averaged.

    A wrong answer is one false positive and one false negative among all classes, so that with k
    classes it is 1 - 2 / k * (1 - accuracy).

    >>> overall_accuracy([[1, 1], [0, 2]])
    0.75
    """
    total = sum(map(sum, confusion))
    wrong = total - sum(row[k] for k, row in enumerate(confusion))
    return 1 - 2 * wrong / (len(confusion) * total)
