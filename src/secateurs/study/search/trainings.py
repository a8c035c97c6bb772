"""The trainings of a search: those without a record run, every one in a row of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from secateurs.fit.cache import PrefixCache
from secateurs.fit.metrics import wilson_interval
from secateurs.progress import Progress, duration
from secateurs.stopping import StopFlag
from secateurs.study.search.space import Values, value_words
from secateurs.study.setup.trial_context import TrialContext
from secateurs.study.sweep.statistics import summarise
from secateurs.study.trials.engine import Wanted, finished_trials
from secateurs.study.trials.package import Packer
from secateurs.study.trials.store import Store
from secateurs.study.trials.task import Executor
from secateurs.study.trials.trial import SharedInputs, Trial

Record = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A configuration to train: its number in the search, what it sets, and for how long."""

    number: int
    values: Values
    epochs: int


def context_of(context: TrialContext, job: Job) -> tuple[TrialContext, int]:
    """The context with a job's configuration, and its number of frozen layers."""
    fields: dict[str, Any] = {k: v for k, v in job.values.items() if k != "depth"}
    config = replace(context.config, epochs=job.epochs, **fields)
    depth = job.values.get("depth", context.depths[0])
    assert isinstance(depth, int)
    return replace(context, config=config), depth


class Trainer:
    """What trains the jobs of one search: shared inputs, files, and the time that is left.

    `planned` are trainings of one run as (epochs, how many); `advance` is called once a training.
    """

    def __init__(
        self,
        context: TrialContext,
        store: Store,
        *,
        planned: Sequence[tuple[int, int]],
        prefix_cache: PrefixCache,
        executor: Executor | None = None,
        stop: StopFlag,
        progress: Progress,
        advance: Callable[[int], None],
    ) -> None:
        self.context, self.store = context, store
        self.stop, self.progress, self.advance = stop, progress, advance
        self.executor, self._cache = executor, prefix_cache
        self._packer = Packer(context.cache / "contents")
        self._shared = SharedInputs(prefix_cache, progress=progress)
        runs = context.config.runs
        self._left = runs * sum(number for _, number in planned)
        self._epochs_left = runs * sum(epochs * number for epochs, number in planned)
        self._epochs_run, self._seconds, self._opening = 0, 0.0, math.inf

    def train(self, jobs: Sequence[Job]) -> list[Record]:
        """A row a job, in order, over all its runs; what has a record is not trained again.

        Several drivers may do so in one directory: each takes trainings that no other is at, and
        waits for those in the end. Raises StopRequested between two steps when asked to.
        """
        entries = [(job, run) for job in jobs for run in range(self.context.config.runs)]
        entries.sort(key=self._order)
        records: dict[tuple[int, int], Record] = {}
        for done in finished_trials(
            [self._wanted(job, run) for job, run in entries],
            self.store,
            prefix_cache=self._cache,
            executor=self.executor,
            packer=self._packer,
            shared=self._shared,
            stop=self.stop,
            progress=self.progress,
        ):
            job, run = entries[done.index]
            records[job.number, run] = done.record
            self._count(job, done.record)
            if done.fresh:
                self.progress.note(self._words(job, run, done.record))
            self.advance(1)
        return [
            row_of(
                job,
                [records[job.number, run] for run in range(self.context.config.runs)],
                num_images=len(self.context.dataset.sides["val"]),
            )
            for job in jobs
        ]

    def _order(self, entry: tuple[Job, int]) -> tuple[int, int]:
        # Jobs that share a frozen prefix in a row: a depth's outputs are extended to the next, and
        # without a bank of views each run has its own.
        job, run = entry
        depth = job.values.get("depth")
        return (run if self.context.config.views is None else 0, int(depth or 0))

    def _wanted(self, job: Job, run: int) -> Wanted:
        context, depth = context_of(self.context, job)
        return context, Trial(depth, run)

    def _count(self, job: Job, record: Record) -> None:
        opening = record["timing"]["frozen_seconds"]
        self._left -= 1
        self._epochs_left -= job.epochs
        self._epochs_run += max(1, record["epochs_run"])
        self._seconds += record["timing"]["seconds"] - opening
        # The least of them: of a training that found its frozen layers' outputs in place.
        self._opening = min(self._opening, opening)

    def _words(self, job: Job, run: int, record: Record) -> str:
        """A training in one line, with the time those left take at the pace of those done."""
        name = value_words(job.values)
        if self.context.config.runs > 1:
            name += f", run {run + 1}"
        reached = "diverged"
        if not diverged(record):
            reached = f"{record['val_accuracy']:.1%} at epoch {record['best_epoch'] + 1}"
        text = f"{name}: {reached}, {record['timing']['seconds']:.0f} s"
        left = self._epochs_left * self._seconds / self._epochs_run + self._left * self._opening
        return f"{text}; about {duration(left)} left" if self._left > 0 else text


def diverged(record: Record) -> bool:
    """Whether a training ended with a loss that was not finite, or never had a finite one."""
    return record["stopped"] == "diverged" or record["val_accuracy"] is None


def spread(accuracies: Sequence[float], *, num_images: int) -> Record:
    """Mean of runs with deviation and 95% interval: Student's t, Wilson's for a single run.

    >>> spread([0.5], num_images=100)["val_accuracy_interval"]
    'Wilson'
    """
    names = ("mean", "std", "low", "high")
    kind: str | None = None
    found: Record = dict.fromkeys(names)
    if accuracies:
        found, kind = asdict(summarise(accuracies)), "t"
    if len(accuracies) == 1:
        found["low"], found["high"] = wilson_interval(round(accuracies[0] * num_images), num_images)
        kind = "Wilson"
    return {f"val_accuracy_{name}": found[name] for name in names} | {"val_accuracy_interval": kind}


def row_of(job: Job, records: Sequence[Record], *, num_images: int) -> Record:
    """A job as `search.json` holds it; runs that diverged have no part in its mean."""
    good = [record for record in records if not diverged(record)]
    losses = [record["val_loss"] for record in good]
    return {
        "number": job.number,
        "parameters": job.values,
        "epochs": job.epochs,
        "num_runs": len(records),
        "num_diverged": len(records) - len(good),
        **spread([record["val_accuracy"] for record in good], num_images=num_images),
        "val_loss_mean": sum(losses) / len(losses) if losses else None,
        "runs": [
            {
                name: record[name]
                for name in (
                    *("key", "run", "seed", "val_accuracy", "val_loss", "best_epoch"),
                    *("epochs_run", "stopped", "curve", "timing"),
                )
            }
            for record in records
        ],
        "timing": {
            "seconds": sum(record["timing"]["seconds"] for record in records),
            "frozen_seconds": sum(record["timing"]["frozen_seconds"] for record in records),
        },
    }


def rank(row: Record) -> tuple[bool, float, float]:
    """What a row is chosen by, larger is better: no divergence, mean accuracy, lower loss."""
    accuracy, loss = row["val_accuracy_mean"], row["val_loss_mean"]
    return (
        row["num_diverged"] == 0,
        -1.0 if accuracy is None else accuracy,
        -math.inf if loss is None else -loss,
    )
