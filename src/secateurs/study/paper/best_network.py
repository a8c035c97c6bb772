"""Trials with their test accuracy, and the best network as the paper chooses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
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
from secateurs.study.trials.engine import finished_trials
from secateurs.study.trials.store import Store, WeightsWriter, load_weights, save_weights
from secateurs.study.trials.task import Executor
from secateurs.study.trials.trial import SharedInputs, Trial, plan_trials, run_trial, trial_key

Record = dict[str, Any]
Words = Callable[[Sequence[Trial], Sequence[Record]], str]


def tested_trials(
    context: TrialContext,
    store: Store,
    *,
    prefix_cache: PrefixCache,
    executor: Executor | None = None,
    stop: StopFlag,
    progress: Progress = SILENT,
    what: str = "trials of Table 1",
    keep: bool = True,
    left: Words = lambda trials, records: "",
) -> list[Record]:
    """All trials of a context, each with its evaluation on the test images; done ones are read.

    With `keep` the networks that lead on test and on validation stay beside their records. `left`
    says what is left after so many of the trials. Trainings run where the `executor` has them run,
    and tests here.
    """
    plan = plan_trials(context)
    if executor is not None:
        words: dict[str, Any] = {"prefix_cache": prefix_cache, "stop": stop, "progress": progress}
        _train_elsewhere(context, plan, store, executor, keep=keep, what=what, **words)
    shared = SharedInputs(prefix_cache, progress=progress)
    records: list[Record] = []
    with WeightsWriter(store) as writer, progress.task(what, len(plan)) as advance:
        for trial in plan:
            stop.check()
            key = trial_key(context, trial)
            path = _test_file(store, key)
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


def _test_file(store: Store, key: str) -> Path:
    return store.root / "trials" / f"{key}.test.json"


def _train_elsewhere(
    context: TrialContext,
    plan: Sequence[Trial],
    store: Store,
    executor: Executor,
    *,
    keep: bool,
    what: str,
    prefix_cache: PrefixCache,
    stop: StopFlag,
    progress: Progress,
) -> None:
    """Train what has no record yet, and test each network as it comes."""
    wanted = [(context, trial) for trial in plan if store.read(trial_key(context, trial)) is None]
    found: list[Record] = []
    with progress.task(what, len(wanted)) as advance:
        for done in finished_trials(
            wanted,
            store,
            prefix_cache=prefix_cache,
            executor=executor,
            stop=stop,
            progress=progress,
        ):
            advance(1)
            model = done.network()
            if model is None:
                continue  # trained once more, here
            test = evaluate_model(model, context.dataset, "test", context.device).to_json()
            key = done.record["key"]
            write_sealed(_test_file(store, key), test)
            found.append(done.record | {"test": test})
            if keep:
                save_weights(model, store.weights(key))
                _keep_leaders(found, store)


def _keep_leaders(records: list[Record], store: Store) -> None:
    """Delete the weights of trials that lead neither on test nor on validation."""
    led = {best(records, side)["key"] for side in ("test", "val")}
    for record in records:
        if record["key"] not in led:
            store.weights(record["key"]).unlink(missing_ok=True)


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
