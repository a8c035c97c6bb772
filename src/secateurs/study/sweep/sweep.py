"""The sweep over depths: every trial that is missing, the summary, the choice on validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from secateurs.fit.cache import PrefixCache
from secateurs.nets.backbones import layers
from secateurs.progress import SILENT, Progress, duration
from secateurs.stopping import StopFlag
from secateurs.study.setup.trial_context import TrialContext
from secateurs.study.sweep.comparison import Comparison, Recommendation, compare_depths, recommend
from secateurs.study.sweep.statistics import summarise
from secateurs.study.trials.engine import Finished, finished_trials
from secateurs.study.trials.store import Store, WeightsWriter, load_weights
from secateurs.study.trials.task import Executor
from secateurs.study.trials.trial import SharedInputs, Trial, plan_trials, run_trial, trial_key

Record = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """The chosen trial's record, why it was chosen, and the recommendation it follows."""

    record: Record
    reason: str
    advice: Recommendation

    @property
    def trial(self) -> Trial:
        """The chosen trial."""
        return Trial(self.record["depth"], self.record["run"], self.record["pretrained"])


def _score(record: Record) -> tuple[float, float]:
    # Diverged trials rank below everything; among equals the lower validation loss leads.
    if record["val_accuracy"] is None:
        return (-1.0, 0.0)
    return (record["val_accuracy"], -record["val_loss"])


def run_sweep(
    context: TrialContext,
    store: Store,
    *,
    prefix_cache: PrefixCache,
    executor: Executor | None = None,
    stop: StopFlag,
    progress: Progress = SILENT,
    on_trial: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Run the trials that have no file yet; return the records of all, in the planned order.

    They run in this process, or where the `executor` has them run. Several drivers may do so in one
    directory: each takes trials that no other is at, and waits for those in the end. The network
    that leads its depth on validation is kept beside its record until the choice is made. Raises
    StopRequested between two steps when asked to; what was done is kept.
    """
    (records,) = run_sweeps(
        [context],
        store,
        prefix_cache=prefix_cache,
        executor=executor,
        stop=stop,
        progress=progress,
        on_trial=lambda context, record: on_trial(record),
    )
    return records


def run_sweeps(
    contexts: Sequence[TrialContext],
    store: Store,
    *,
    prefix_cache: PrefixCache,
    executor: Executor | None = None,
    stop: StopFlag,
    progress: Progress = SILENT,
    on_trial: Callable[[TrialContext, Record], None] = lambda context, record: None,
) -> list[list[Record]]:
    """Several sweeps at once, see `run_sweep`: an executor has the trials of all to choose from."""
    plan = [(context, trial) for context in contexts for trial in plan_trials(context)]
    owner = [n for n, context in enumerate(contexts) for _ in plan_trials(context)]
    records: dict[int, Record] = {}
    leaders: dict[tuple[int, int], int] = {}  # the place in the plan of the best run of a depth
    known = {at for at, (c, trial) in enumerate(plan) if store.record(trial_key(c, trial)).exists()}
    with (
        WeightsWriter(store) as writer,
        progress.task("trials", len(plan), done=len(known)) as advance,
    ):
        for done in finished_trials(
            plan,
            store,
            prefix_cache=prefix_cache,
            executor=executor,
            stop=stop,
            progress=progress,
        ):
            context, trial = plan[done.index]
            if done.fresh:
                on_trial(context, done.record)
                mine = {
                    plan[at][1]: found for at, found in records.items() if plan[at][0] is context
                }
                left = [] if executor else plan_trials(context)
                progress.note(_done_words(trial, done.record, left, mine))
            records[done.index] = done.record
            if done.index not in known:
                advance(1)
            if trial.pretrained:
                place = (owner[done.index], trial.depth)
                _keep_leader(done, place, records, leaders, writer)
    return [
        [records[at] for at in range(len(plan)) if owner[at] == n] for n in range(len(contexts))
    ]


def _keep_leader(
    done: Finished,
    place: tuple[int, int],
    records: dict[int, Record],
    leaders: dict[tuple[int, int], int],
    writer: WeightsWriter,
) -> None:
    """Keep the network of a run that leads its depth, in place of the one that led before."""
    before = leaders.get(place)
    if before is not None:
        leader = records[before]
        # Among equals the first one of the plan leads, whichever ended first.
        if (_score(done.record), -done.index) < (_score(leader), -before):
            return
        writer.remove(leader["key"])
    leaders[place] = done.index
    model = done.network()
    if model is not None:
        writer.save(model, done.record["key"])


def _done_words(
    trial: Trial, record: Record, plan: list[Trial], records: dict[Trial, Record]
) -> str:
    """A trial in one line, with the time that those left will take if they are like those done.

    Without a `plan` that time is not said.
    """
    done = {**records, trial: record}
    seconds: dict[tuple[bool, int], list[float]] = {}
    for other, found in done.items():
        kind = (other.pretrained, other.depth)
        seconds.setdefault(kind, []).append(found["timing"]["seconds"])
    means = {kind: sum(values) / len(values) for kind, values in seconds.items()}
    usual = sum(means.values()) / len(means)
    left = sum(
        means.get((other.pretrained, other.depth), usual) for other in plan if other not in done
    )
    accuracy = record["val_accuracy"]
    reached = "diverged" if accuracy is None else f"{accuracy:.1%} on validation"
    text = f"{trial.name}: {reached}, {record['timing']['seconds']:.0f} s"
    return f"{text}; about {duration(left)} left" if left else text


def summarise_sweep(
    records: list[Record],
    *,
    num_images: int,
    random_frozen: Mapping[int, Sequence[str]] | None = None,
) -> list[Record]:
    """One row a depth (and one for scratch): mean, spread and interval of validation accuracy.

    Depths carry their difference to the best one as well, see `compare`; `num_images` is the number
    of validation images, `random_frozen` the layers that a depth freezes with random weights.
    """
    accuracies = _accuracies(records)
    compared = compare_depths(accuracies, num_images=num_images) if accuracies else ()
    against = {row.depth: row for row in compared}
    rows: list[Record] = []
    kinds = {(record["pretrained"], record["depth"]) for record in records}
    for pretrained, depth in sorted(kinds, key=lambda kind: (not kind[0], kind[1])):
        group = [r for r in records if (r["pretrained"], r["depth"]) == (pretrained, depth)]
        good = [r["val_accuracy"] for r in group if r["val_accuracy"] is not None]
        row: Record = {"depth": depth, "pretrained": pretrained, "num_runs": len(group)}
        row["random_frozen"] = list((random_frozen or {}).get(depth, ()) if pretrained else ())
        row["num_diverged"] = len(group) - len(good)
        names = ("mean", "std", "low", "high")
        summary = asdict(summarise(good)) if good else dict.fromkeys(names)
        row |= {f"val_accuracy_{name}": summary[name] for name in names}
        other = against.get(depth) if pretrained else None
        row["to_best"] = None if other is None else _to_best(other)
        row["timing"] = {"seconds_per_trial": _seconds(group)}
        rows.append(row)
    return rows


def _accuracies(records: list[Record]) -> dict[int, dict[int, float]]:
    """Validation accuracy by depth and run, of pretrained trials that ended well."""
    found: dict[int, dict[int, float]] = {}
    for record in records:
        if record["pretrained"] and record["val_accuracy"] is not None:
            found.setdefault(record["depth"], {})[record["run"]] = record["val_accuracy"]
    return found


def _seconds(group: list[Record]) -> float:
    return sum(record["timing"]["seconds"] for record in group) / len(group)


def _to_best(row: Comparison) -> Record:
    plain = asdict(row)
    names = ("difference", "low", "high", "p_value", "indistinguishable", "is_best")
    return {name: plain[name] for name in names}


def layers_frozen_at_random(context: TrialContext) -> dict[int, tuple[str, ...]]:
    """By depth, the frozen layers for which no pretrained weights were loaded."""
    names = [
        layer.alias
        for layer in layers(context.new_model(seed=0, pretrained=False), context.config.backbone)
    ]
    loaded = set(context.weights.loaded)
    return {
        depth: tuple(name for name in names[:depth] if name not in loaded)
        for depth in context.depths
    }


def choose(
    records: list[Record],
    *,
    num_images: int,
    random_frozen: Mapping[int, Sequence[str]] | None = None,
) -> Choice:
    """Choose a depth by the rules of `compare`, and its best run on validation.

    The test images have no say. Raises InputError when no pretrained trial ended well.
    """
    accuracies = _accuracies(records)
    seconds = {
        depth: _seconds([r for r in records if r["pretrained"] and r["depth"] == depth])
        for depth in accuracies
    }
    advice = recommend(
        accuracies, seconds, num_images=num_images, random_frozen=random_frozen or {}
    )
    runs = [
        r
        for r in records
        if r["pretrained"] and r["depth"] == advice.depth and r["val_accuracy"] is not None
    ]
    record = max(runs, key=_score)
    reason = (
        f"{advice.sentences[0]} Run {record['run'] + 1} is its best on validation "
        f"({record['val_accuracy']:.1%}). The test images were not used for the choice."
    )
    return Choice(record, reason, advice)


def chosen_model(
    context: TrialContext,
    store: Store,
    choice: Choice,
    *,
    prefix_cache: PrefixCache,
    stop: StopFlag,
    progress: Progress = SILENT,
) -> torch.nn.Module:
    """The chosen trial's network; trained again, to the same numbers, if its weights are gone."""
    key = choice.record["key"]
    if store.has_weights(key):
        model = context.new_model(seed=0, pretrained=False)
        load_weights(model, store.weights(key))
        return model.eval()
    progress.note("the chosen network's weights are gone: training it once more")
    shared = SharedInputs(prefix_cache, progress=progress)
    _, model = run_trial(context, choice.trial, shared, store, stop=stop, progress=progress)
    return model


def discard_weights(store: Store) -> None:
    """Delete the networks kept for the choice."""
    for path in (store.root / "trials").glob("*.weights.safetensors"):
        path.unlink(missing_ok=True)
