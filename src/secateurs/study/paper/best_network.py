"""Trials with their test accuracy, and the best network as the paper chooses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from secateurs.fit.cache import PrefixCache
from secateurs.progress import SILENT, Progress
from secateurs.shape import fits
from secateurs.stopping import StopFlag
from secateurs.study.records.checksummed import read_sealed, write_sealed
from secateurs.study.records.kinds import EVALUATION
from secateurs.study.saved.evaluation import evaluate_model
from secateurs.study.setup.trial_context import TrialContext
from secateurs.study.trials.store import Store, WeightsWriter, load_weights
from secateurs.study.trials.trial import SharedInputs, Trial, plan_trials, run_trial, trial_key

Record = dict[str, Any]
Words = Callable[[Sequence[Trial], Sequence[Record]], str]


def tested_trials(
    context: TrialContext,
    store: Store,
    *,
    prefix_cache: PrefixCache,
    stop: StopFlag,
    progress: Progress = SILENT,
    what: str = "trials of Table 1",
    keep: bool = True,
    left: Words = lambda trials, records: "",
) -> list[Record]:
    """All trials of a context, each with its evaluation on the test images; done ones are read.

    With `keep` the networks that lead on test and on validation stay beside their records. `left`
    says what is left after so many of the trials.
    """
    plan = plan_trials(context)
    shared = SharedInputs(prefix_cache, progress=progress)
    records: list[Record] = []
    with WeightsWriter(store) as writer, progress.task(what, len(plan)) as advance:
        for trial in plan:
            stop.check()
            key = trial_key(context, trial)
            path = store.root / "trials" / f"{key}.test.json"
            record, test = store.read(key), read_sealed(path)
            if not fits(test, EVALUATION):
                test = None
            fresh = record is None or test is None
            model: nn.Module | None = None
            if record is None or test is None:
                record, model = run_trial(
                    context, trial, shared, store, stop=stop, progress=progress
                )
                test = evaluate_model(model, context.dataset, "test", context.device).to_json()
                write_sealed(path, test)
            records.append(record | {"test": test})
            if keep:
                led = {best(records, side)["key"] for side in ("test", "val")}
                if model is not None and key in led:
                    writer.save(model, key)
                for other in {row["key"] for row in records} - led:
                    writer.remove(other)
            if fresh:
                progress.note(
                    f"{trial.name}: {test['accuracy']:.1%} on test, "
                    f"{record['timing']['seconds']:.0f} s; {left(plan, records)}".rstrip("; ")
                )
            advance(1)
    return records


def best(records: Sequence[Record], side: str) -> Record:
    """The pretrained trial that is best on "test" or "val"; among equals the first.

    One that diverged counts only when all did, and scratch only when nothing else is there.
    """

    def score(record: Record) -> tuple[bool, bool, float]:
        known = record["val_accuracy"] is not None
        value = record["test"]["accuracy"] if side == "test" else record["val_accuracy"]
        return record["pretrained"], known, value if known else 0.0

    return max(records, key=score)


def network_of(
    context: TrialContext,
    store: Store,
    record: Record,
    *,
    prefix_cache: PrefixCache,
    stop: StopFlag,
    progress: Progress = SILENT,
) -> nn.Module:
    """A trial's network; trained again, to the same numbers, if its weights are gone."""
    if store.has_weights(record["key"]):
        model = context.new_model(seed=0, pretrained=False)
        load_weights(model, store.weights(record["key"]))
        return model.eval()
    progress.note("the best network's weights are gone: training it once more")
    trial = Trial(record["depth"], record["run"], record["pretrained"])
    shared = SharedInputs(prefix_cache, progress=progress)
    return run_trial(context, trial, shared, store, stop=stop, progress=progress)[1]
