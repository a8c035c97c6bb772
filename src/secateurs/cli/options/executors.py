"""Options that say where trials run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secateurs.cli.options.panels import EXECUTION, suggest, within
from secateurs.limits import LIMITS
from secateurs.progress import Progress

if TYPE_CHECKING:
    from secateurs.study.trials.task import Executor

ExecutorName = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="WHERE",
        help="Where trials run: inline (this process), processes[:N] (of this machine), "
        "ray[:HOST:PORT] (a Ray cluster; without an address this machine), or slurm[:PARTITION].",
        rich_help_panel=EXECUTION,
        autocompletion=suggest("inline", "processes", "ray", "slurm"),
    ),
]
TrialCpus = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Threads of each trial. [default: 1; inline: all]",
        callback=within(LIMITS["trial_cpus"]),
        rich_help_panel=EXECUTION,
    ),
]
TrialGpus = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        help="Cards of each trial, for example 0.5 for two trials per card. [default: 0]",
        callback=within(LIMITS["trial_gpus"]),
        rich_help_panel=EXECUTION,
    ),
]


@dataclass(frozen=True)
class ExecutionOptions:
    """Where trials run, and what each may use."""

    executor: ExecutorName = "inline"
    trial_cpus: TrialCpus = None
    trial_gpus: TrialGpus = None

    def open(self, *, cache: Path, progress: Progress) -> AbstractContextManager[Executor | None]:
        """The executor that these options ask for."""
        from secateurs.study.trials.executors import open_executor
        from secateurs.study.trials.task import Resources

        cpus, gpus = self.trial_cpus, self.trial_gpus
        given = cpus is not None or gpus is not None
        resources = Resources(1 if cpus is None else cpus, gpus or 0.0) if given else None
        return open_executor(self.executor, resources, cache=cache, progress=progress)
