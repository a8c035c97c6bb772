"""Tasks in processes of this machine, with some cores each, or a card or a share of one."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from secateurs.errors import InputError
from secateurs.fit.tensors import DamagedError, read_checked
from secateurs.leftovers import SUFFIX, sweep, temporary_prefix
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag, StopRequested
from secateurs.study.trials.task import (
    Answer,
    Attempt,
    Board,
    Place,
    Resources,
    Task,
    Tensors,
    trouble,
)
from secateurs.study.trials.worker import own_versions, receive, send

STOP_S = 60.0  # for a training to save its state; then its process is ended
LOOK_S = 0.2


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class _Worker:
    """A process with what it is at."""

    process: subprocess.Popen[bytes]
    errors: Path
    attempt: Attempt | None = None
    started: float = 0.0

    def why(self) -> str:
        """In words, how it ended."""
        code = self.process.wait()
        self.close()
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"its process was ended by {signal.Signals(-code).name}"
        lines = self.errors.read_text(errors="replace").strip().splitlines() or [""]
        return f"its process ended with code {code} ({lines[-1][:200]})"

    def close(self) -> None:
        """Close the pipes of a process that has ended."""
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # what is buffered reaches nobody
                cast("BinaryIO", stream).close()


class Processes:
    """Local processes, each with one task at a time; one that ends is replaced, its task rerun."""

    name = "processes"
    passes_outputs = False  # files of the machine are shared
    sees_states = True

    def __init__(
        self, number: int, resources: Resources, folder: Path, *, cards: tuple[str, ...] = ()
    ) -> None:
        self.number, self.resources, self.cards = number, resources, cards
        self._folder = folder
        self._inbox: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self._workers: list[_Worker] = []

    def run(
        self, tasks: Iterator[Task], *, stop: StopFlag, progress: Progress = SILENT
    ) -> Generator[tuple[Task, Answer]]:
        """See `Executor`."""
        again: list[Attempt] = []
        with Board.open(progress) as board:
            try:
                while True:
                    stop.check()
                    self._fill(tasks, again)
                    if not any(worker.attempt for worker in self._workers):
                        return
                    with contextlib.suppress(queue.Empty):
                        worker, message = self._inbox.get(timeout=LOOK_S)
                        yield from self._heard(worker, message, again, board, progress)
            except BaseException:
                self._stop(wait=stop.requested)
                raise

    def _fill(self, tasks: Iterator[Task], again: list[Attempt]) -> None:
        """Give every idle process a task, and start processes while there are more tasks."""
        idle = [worker for worker in self._workers if worker.attempt is None]
        while idle or len(self._workers) < self.number:
            attempt = again.pop() if again else None
            if attempt is None:
                task = next(tasks, None)
                if task is None:
                    return
                attempt = Attempt(task)
            worker = idle.pop() if idle else self._start()
            worker.attempt, worker.started = attempt, time.monotonic()
            words = attempt.task.to_json()
            with contextlib.suppress(OSError):  # it has just ended, which is heard next
                send(
                    cast("BinaryIO", worker.process.stdin),
                    words | {"cpus": self.resources.cpus, "versions": own_versions()},
                )

    def _heard(
        self,
        worker: _Worker,
        message: dict[str, Any] | None,
        again: list[Attempt],
        board: Board,
        progress: Progress,
    ) -> Generator[tuple[Task, Answer]]:
        attempt, seconds = worker.attempt, time.monotonic() - worker.started
        if message is None:
            self._workers.remove(worker)
            why = worker.why()
            if attempt is not None:
                board.close(attempt.task.key)
                again.append(attempt.again(why, seconds, progress))
            return
        if attempt is None:
            return
        if "event" in message:
            board.event(attempt.task.key, message["event"])
            return
        answer = message.get("answer")
        if answer is None:
            return
        worker.attempt = None
        board.close(attempt.task.key)
        why = trouble(answer, "this machine")
        if why:
            again.append(attempt.again(why, seconds, progress))
            return
        yield attempt.task, answered(attempt, answer, "this machine", self.resources)

    def _start(self) -> _Worker:
        threads = str(self.resources.cpus)
        environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if self.cards:
            environment["CUDA_VISIBLE_DEVICES"] = self.cards[len(self._workers) % len(self.cards)]
        errors = self._folder / f"errors-{time.monotonic_ns()}.txt"
        with errors.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "secateurs.study.trials.worker", str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env=environment,
            )
        worker = _Worker(process, errors)
        self._workers.append(worker)

        def listen() -> None:
            while (message := receive(cast("BinaryIO", process.stdout))) is not None:
                self._inbox.put((worker, message))
            self._inbox.put((worker, None))

        threading.Thread(target=listen, daemon=True).start()
        return worker

    def _stop(self, *, wait: bool) -> None:
        """End the processes; with `wait` trainings save their state first."""
        for worker in self._workers:
            with contextlib.suppress(OSError):
                send(cast("BinaryIO", worker.process.stdin), {"stop": True})
        self.close(wait_s=STOP_S if wait else 0.0)

    def close(self, *, wait_s: float = 5.0) -> None:
        """End the processes of this executor."""
        workers, self._workers = self._workers, []
        for worker in workers:
            with contextlib.suppress(OSError):
                cast("BinaryIO", worker.process.stdin).close()
        until = time.monotonic() + wait_s
        for worker in workers:
            try:
                worker.process.wait(timeout=max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.close()


def answered(attempt: Attempt, answer: dict[str, Any], node: str, resources: Resources) -> Answer:
    """The answer of an attempt that ended; raises what its function raised."""
    task = attempt.task
    if answer["kind"] == "input":
        raise InputError(answer["text"])
    if answer["kind"] == "stopped":
        raise StopRequested
    if answer["kind"] != "done":
        raise RuntimeError(f"{task.name} on {node}: " + "\n".join(answer["log"]))
    path = Path(answer["tensors"]) if answer.get("tensors") else None

    def tensors() -> Tensors | None:
        if path is None:
            return {}
        try:
            return read_checked(path)[0]
        except (OSError, DamagedError):
            return None
        finally:
            drop()

    def drop() -> None:
        if path is not None:
            path.unlink(missing_ok=True)

    place = Place(
        node,
        resources.cpus,
        resources.gpus,
        attempts=attempt.number,
        lost_s=attempt.lost_s,
        num_fetched=answer["fetched"],
    )
    return Answer(answer["record"], place, (*attempt.log, *answer["log"]), tensors, drop)


def _cards(resources: Resources, number: int | None) -> tuple[str, ...]:
    """The cards of each process that there is room for."""
    if not resources.gpus:
        return ()
    known = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = known.split(",") if known else [str(k) for k in range(torch.cuda.device_count())]
    if resources.gpus > len(names):
        raise InputError(
            f"trial-gpus: this machine has {len(names)} cards, a trial asks for {resources.gpus:g}"
        )
    if resources.gpus >= 1:
        each = int(resources.gpus)
        found = [",".join(names[at : at + each]) for at in range(0, len(names) - each + 1, each)]
    else:
        found = names * int(1 / resources.gpus)
    return tuple(found[:number])


@contextmanager
def open_processes(number: int | None, resources: Resources, cache: Path) -> Generator[Processes]:
    """An executor of `number` processes; by default as many as cores and cards allow.

    Raises InputError when one task needs more than this machine has.
    """
    if resources.cpus > num_cores():
        raise InputError(
            f"trial-cpus: this machine has {num_cores()} cores, a trial asks for {resources.cpus}"
        )
    cards = _cards(resources, number)
    if number is None:
        number = num_cores() // resources.cpus
    number = min(number, len(cards)) if cards else number
    place = cache / "workers"
    place.mkdir(parents=True, exist_ok=True)
    sweep(place, deep=False)
    folder = Path(tempfile.mkdtemp(prefix=temporary_prefix("run"), suffix=SUFFIX, dir=place))
    crew = Processes(number, resources, folder, cards=cards)
    try:
        yield crew
    finally:
        crew.close()
        shutil.rmtree(folder, ignore_errors=True)
