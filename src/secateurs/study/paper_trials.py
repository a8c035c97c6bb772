"""Table 1: every trial with its test accuracy, and the best network as the paper chooses it."""

from __future__ import annotations

from typing import Any

from torch import nn

from secateurs.files import read_json, write_json
from secateurs.fit.cache import PrefixCache
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.bench import Bench
from secateurs.study.models import evaluate_model
from secateurs.study.trials import (
    SharedInputs,
    Store,
    Trial,
    load_weights,
    plan_trials,
    run_trial,
    save_weights,
    trial_key,
)

Record = dict[str, Any]


def tested_trials(
    bench: Bench,
    store: Store,
    *,
    prefix_cache: PrefixCache,
    stop: StopFlag,
    progress: Progress = SILENT,
) -> list[Record]:
    """All trials of the plan, each with its evaluation on the test images; done ones are read.

    The networks that lead on test and on validation are kept beside their records.
    """
    plan = plan_trials(bench)
    shared = SharedInputs(prefix_cache, progress=progress)
    records: list[Record] = []
    with progress.task("trials of Table 1", len(plan)) as advance:
        for trial in plan:
            stop.check()
            key = trial_key(bench, trial)
            path = store.root / "trials" / f"{key}.test.json"
            record = store.read(key)
            if record is None or not path.exists():
                record, model = run_trial(bench, trial, shared, store, stop=stop, progress=progress)
                test = evaluate_model(model, bench.dataset, "test", bench.device).to_json()
                write_json(path, test)
                save_weights(model, store.weights(key))
                progress.note(
                    f"{trial.name}: {test['accuracy']:.1%} on test, "
                    f"{record['timing']['seconds']:.0f} s"
                )
            records.append(record | {"test": read_json(path)})
            _keep_leaders(records, store)
            advance(1)
    return records


def _keep_leaders(records: list[Record], store: Store) -> None:
    """Delete the weights of trials that lead neither on test nor on validation."""
    led = {best(records, side)["key"] for side in ("test", "val")} if _able(records) else set()
    for record in records:
        if record["key"] not in led:
            store.weights(record["key"]).unlink(missing_ok=True)


def _able(records: list[Record]) -> list[Record]:
    return [r for r in records if r["pretrained"] and r["val_accuracy"] is not None]


def best(records: list[Record], side: str) -> Record:
    """The pretrained trial that is best on "test" or "val"; among equals the first."""

    def score(record: Record) -> float:
        return record["test"]["accuracy"] if side == "test" else record["val_accuracy"]

    return max(_able(records) or records, key=score)


def network_of(
    bench: Bench,
    store: Store,
    record: Record,
    *,
    prefix_cache: PrefixCache,
    stop: StopFlag,
    progress: Progress = SILENT,
) -> nn.Module:
    """A trial's network; trained again, to the same numbers, if its weights are gone."""
    path = store.weights(record["key"])
    if path.exists():
        model = bench.new_model(seed=0, pretrained=False)
        load_weights(model, path)
        return model.eval()
    trial = Trial(record["depth"], record["run"], record["pretrained"])
    shared = SharedInputs(prefix_cache, progress=progress)
    return run_trial(bench, trial, shared, store, stop=stop, progress=progress)[1]
