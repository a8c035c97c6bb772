"""Tasks as jobs of Slurm, one each, by way of submitit; the machines share a disk."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import read_json, write_json
from secateurs.leases import leased
from secateurs.leftovers import SUFFIX, sweep, temporary_prefix
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.trials.processes import answered, num_cores
from secateurs.study.trials.spool import ANSWER, DRIVER, EVENT, TASK
from secateurs.study.trials.task import Answer, Attempt, Board, Resources, Task, trouble
from secateurs.study.trials.worker import own_versions

LOOK_S = 1.0
LATE_S = 20.0  # that a disk may show an answer after its job has ended
MOST_JOBS = 64  # in the queue at once: the trials of others stay free
MINUTES = 24 * 60
STOP_S = 60.0


@dataclass
class _Job:
    attempt: Attempt
    folder: Path
    job: Any
    started: float
    ended: float | None = None


class Slurm:
    """Runs each task as a job; one that ends without an answer is submitted again."""

    name = "slurm"
    passes_outputs = False  # files of the machine are shared
    sees_states = True

    def __init__(self, resources: Resources, executor: Any, folder: Path, most: int) -> None:
        self.resources, self.most = resources, most
        self._executor, self._folder = executor, folder

    def run(
        self, tasks: Iterator[Task], *, stop: StopFlag, progress: Progress = SILENT
    ) -> Generator[tuple[Task, Answer]]:
        """See `Executor`."""
        jobs: list[_Job] = []
        again: list[Attempt] = []
        with Board.open(progress) as board:
            try:
                while True:
                    stop.check()
                    while len(jobs) < self.most:
                        attempt = again.pop() if again else _first(tasks)
                        if attempt is None:
                            break
                        jobs.append(self._submitted(attempt))
                    if not jobs:
                        return
                    time.sleep(LOOK_S)
                    for job in list(jobs):
                        yield from self._looked_at(job, jobs, again, board, progress)
            except BaseException:
                self._cancel(jobs, wait=stop.requested)
                raise

    def _submitted(self, attempt: Attempt) -> _Job:
        from submitit.helpers import CommandFunction

        folder = self._folder / f"{attempt.task.key}-{attempt.number}"
        words = {"cpus": self.resources.cpus, "versions": own_versions()}
        write_json(folder / TASK, attempt.task.to_json() | words)
        command = [sys.executable, "-m", "secateurs.study.trials.spool", str(folder)]
        job = self._executor.submit(CommandFunction(command, verbose=False))
        return _Job(attempt, folder, job, time.monotonic())

    def _looked_at(
        self,
        job: _Job,
        jobs: list[_Job],
        again: list[Attempt],
        board: Board,
        progress: Progress,
    ) -> Generator[tuple[Task, Answer]]:
        task, now = job.attempt.task, time.monotonic()
        if (job.folder / ANSWER).exists():
            jobs.remove(job)
            board.close(task.key)
            answer: dict[str, Any] = read_json(job.folder / ANSWER)
            why = trouble(answer, answer["node"])
            if why:
                again.append(job.attempt.again(why, now - job.started, progress))
                return
            yield task, answered(job.attempt, answer, answer["node"], self.resources)
            shutil.rmtree(job.folder, ignore_errors=True)
            return
        with contextlib.suppress(InputError):  # nothing yet
            board.event(task.key, read_json(job.folder / EVENT))
        if job.ended is None and job.job.done():
            job.ended = now
        if job.ended is not None and now - job.ended > LATE_S:
            jobs.remove(job)
            board.close(task.key)
            why = f"its job {job.job.job_id} ended without an answer ({job.job.state})"
            again.append(job.attempt.again(why, now - job.started, progress))

    def _cancel(self, jobs: list[_Job], *, wait: bool) -> None:
        """End our jobs; Slurm gives a training time to save its state."""
        for job in jobs:
            with contextlib.suppress(Exception):
                job.job.cancel()
        until = time.monotonic() + (STOP_S if wait else 0.0)
        while time.monotonic() < until and not all(job.job.done() for job in jobs):
            time.sleep(LOOK_S)


def _first(tasks: Iterator[Task]) -> Attempt | None:
    task = next(tasks, None)
    return None if task is None else Attempt(task)


@contextmanager
def open_slurm(partition: str, resources: Resources, cache: Path) -> Generator[Slurm]:
    """An executor whose jobs run in a partition of Slurm, by default the cluster's own.

    `local` are jobs of this machine, to try it. What is submitted is kept in `cache`, which the
    nodes must see as well. Raises InputError without submitit or Slurm, and for a share of a card.
    """
    require("slurm", "executor slurm")
    if resources.gpus % 1:
        raise InputError("trial-gpus: slurm gives whole cards; give 1, or --executor ray")
    local = partition == "local"
    if not local and shutil.which("sbatch") is None:
        raise InputError("slurm: there is no sbatch here; run this where jobs are submitted")
    import submitit

    place = cache / "workers"
    place.mkdir(parents=True, exist_ok=True)
    sweep(place, deep=False)
    folder = Path(tempfile.mkdtemp(prefix=temporary_prefix("slurm"), suffix=SUFFIX, dir=place))
    executor = submitit.AutoExecutor(folder=folder / "jobs", cluster="local" if local else "slurm")
    executor.update_parameters(
        name="secateurs",
        timeout_min=MINUTES,
        cpus_per_task=resources.cpus,
        gpus_per_node=int(resources.gpus),
        **({"slurm_partition": partition} if partition and not local else {}),
    )
    most = max(1, num_cores() // resources.cpus) if local else MOST_JOBS
    try:
        with leased(folder / DRIVER):  # without which jobs end by themselves
            yield Slurm(resources, executor, folder, most)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
