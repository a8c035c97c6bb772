"""Tasks as jobs of Slurm, one each, by way of submitit; the machines share a disk."""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.extras import require
from secateurs.files import read_json, sha256_file, write_json
from secateurs.leases import leased
from secateurs.leftovers import SUFFIX, sweep, temporary_prefix
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.trials.processes import answered, num_cores
from secateurs.study.trials.slurm_queue import GONE, JobState, choose, read_jobs, read_partitions
from secateurs.study.trials.spool import ANSWER, DRIVER, EVENT, TASK
from secateurs.study.trials.task import Answer, Attempt, Board, Resources, Task, trouble
from secateurs.study.trials.worker import own_versions

LOOK_S = 1.0
QUEUE_S = 5.0  # between looks at Slurm's queue
UNSEEN_S = 15.0  # that a new job may not be in the queue yet
WARN_S = 60  # before the end of its time, when a training is asked to save its state
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
    state: str  # what the training before it has left, by content
    ended: float | None = None
    end: str = ""  # Slurm's word for how


class Slurm:
    """Runs each task as a job; one that ends without an answer is submitted again."""

    name = "slurm"
    passes_outputs = False  # files of the machine are shared
    sees_states = True

    def __init__(
        self,
        resources: Resources,
        executor: Any,
        folder: Path,
        most: int,
        *,
        read: Callable[[], dict[str, JobState] | None] | None = read_jobs,
    ) -> None:
        """`read` gives the state of all jobs; None where each job says itself whether it ended."""
        self.resources, self.most = resources, most
        self._executor, self._folder = executor, folder
        self._read = read
        self._looked, self._said = -QUEUE_S, set[str]()
        self._numbers = itertools.count(1)

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
                        if not self._submit(attempt, jobs, again, progress):
                            break
                    if not jobs:
                        return
                    time.sleep(LOOK_S)
                    self._look(jobs, progress)
                    for job in list(jobs):
                        yield from self._looked_at(job, jobs, again, board, progress)
            except BaseException:
                self._cancel(jobs, wait=stop.requested)
                raise

    def _submit(
        self, attempt: Attempt, jobs: list[_Job], again: list[Attempt], progress: Progress
    ) -> bool:
        """Submit a job; False when Slurm takes no more of them for now."""
        from submitit.core.utils import FailedJobError

        try:
            jobs.append(self._submitted(attempt))
        except (FailedJobError, OSError, subprocess.SubprocessError) as error:
            why = _reason(error)
            if not jobs:
                raise InputError(f"slurm: a job is refused ({why})") from None
            self.most = len(jobs)
            again.append(attempt)
            progress.note(f"slurm: no more than {self.most} jobs at once ({why})")
            return False
        return True

    def _submitted(self, attempt: Attempt) -> _Job:
        from submitit.helpers import CommandFunction

        folder = self._folder / f"{attempt.task.key}-{next(self._numbers)}"
        words = {"cpus": self.resources.cpus, "versions": own_versions()}
        write_json(folder / TASK, attempt.task.to_json() | words)
        command = [sys.executable, "-m", "secateurs.study.trials.spool", str(folder)]
        job = self._executor.submit(CommandFunction(command, verbose=False))
        return _Job(attempt, folder, job, time.monotonic(), _state(attempt.task))

    def _look(self, jobs: list[_Job], progress: Progress) -> None:
        """Note which jobs have ended; InputError for one that will never run."""
        now = time.monotonic()
        if self._read is None:
            for job in jobs:
                if job.ended is None and job.job.done():
                    job.ended, job.end = now, str(job.job.state)
            return
        if now - self._looked < QUEUE_S:
            return
        self._looked = now
        states = self._read()
        if states is None:  # the controller is away for a while
            return
        for job in jobs:
            found = states.get(str(job.job.job_id), JobState(GONE))
            if found.state == GONE and now - job.started < UNSEEN_S:
                continue
            if found.waits_for_ever:
                raise InputError(f"slurm: job {job.job.job_id} will never run ({found.reason})")
            if found.waits_unusually and found.reason not in self._said:
                self._said.add(found.reason)
                progress.note(f"slurm: job {job.job.job_id} waits ({found.reason})")
            if found.ended and job.ended is None:
                job.ended, job.end = now, found.state

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
            if answer["kind"] == "stopped" and _state(task) != job.state:
                # At the end of its time: what it has learned so far is kept, so this is no loss.
                again.append(job.attempt.resumed(f"stopped on {answer['node']}", progress))
                return
            if why:
                again.append(job.attempt.again(why, now - job.started, progress))
                return
            yield task, answered(job.attempt, answer, answer["node"], self.resources)
            shutil.rmtree(job.folder, ignore_errors=True)
            return
        with contextlib.suppress(InputError):  # nothing yet
            board.event(task.key, read_json(job.folder / EVENT))
        if job.ended is not None and now - job.ended > LATE_S:
            jobs.remove(job)
            board.close(task.key)
            why = f"its job {job.job.job_id} ended without an answer ({job.end})"
            again.append(job.attempt.again(why, now - job.started, progress))

    def _cancel(self, jobs: list[_Job], *, wait: bool) -> None:
        """End our jobs; Slurm gives a training time to save its state."""
        for job in jobs:
            with contextlib.suppress(Exception):
                job.job.cancel()
        until = time.monotonic() + (STOP_S if wait else 0.0)
        while time.monotonic() < until and any(
            job.ended is None and not (job.folder / ANSWER).exists() for job in jobs
        ):
            with contextlib.suppress(InputError):
                self._look(jobs, SILENT)
            time.sleep(LOOK_S)


def _state(task: Task) -> str:
    """What an interrupted task has left, by its content."""
    try:
        return "" if task.state is None else sha256_file(task.state)
    except OSError:
        return ""


def _reason(error: BaseException) -> str:
    """The line of sbatch that says most."""
    lines = [line.strip() for line in str(error).splitlines() if "sbatch: error:" in line]
    text = lines[-1].partition("sbatch: error:")[2] if lines else str(error).splitlines()[-1]
    return text.strip()[:200]


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

    known = None if local else choose(read_partitions(), partition, resources)
    longest = MINUTES if known is None or known.minutes is None else min(MINUTES, known.minutes)
    logging.getLogger("submitit").setLevel(logging.ERROR)
    place = cache / "workers"
    place.mkdir(parents=True, exist_ok=True)
    sweep(place, deep=False)
    folder = Path(tempfile.mkdtemp(prefix=temporary_prefix("slurm"), suffix=SUFFIX, dir=place))
    executor = submitit.AutoExecutor(folder=folder / "jobs", cluster="local" if local else "slurm")
    executor.update_parameters(
        name="secateurs",
        timeout_min=longest,
        cpus_per_task=resources.cpus,
        gpus_per_node=int(resources.gpus),
        # submitit's own signal has it kill the training at once.
        slurm_additional_parameters={"signal": f"TERM@{WARN_S}"},
        **({"slurm_partition": partition} if partition and not local else {}),
    )
    most = max(1, num_cores() // resources.cpus) if local else MOST_JOBS
    try:
        with leased(folder / DRIVER):  # without which jobs end by themselves
            read = None if local else read_jobs
            yield Slurm(resources, executor, folder, most, read=read)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
