"""Work that may run elsewhere: a function by name, plain data, and files by content."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from secateurs.errors import InputError
from secateurs.progress import SILENT, Progress
from secateurs.stopping import StopFlag
from secateurs.study.trials.contents import Content, content_of

Record = dict[str, Any]
Tensors = dict[str, torch.Tensor]
ATTEMPTS = 4  # of a task whose process or machine is lost


@dataclass(frozen=True)
class Task:
    """A call of `function` ("module:name" within secateurs) with plain `arguments`.

    It returns the same record and tensors wherever it runs. `key` names it in files, `name` to
    people; `files` are those that the arguments name. `outputs` is a task whose tensors this one
    may be given, and computes itself where it is not. `state` is where the driver keeps what an
    interrupted task can go on from.
    """

    key: str
    name: str
    function: str
    arguments: dict[str, Any]
    files: tuple[Content, ...] = ()
    outputs: Task | None = None
    state: Path | None = None

    def going_on(self) -> Task:
        """The task that goes on from its state, which the driver keeps and sends along.

        It itself where there is none, or where its function takes none as the argument "resume".
        """
        if self.state is None or "resume" not in self.arguments or not self.state.is_file():
            return self
        left = content_of(self.state)
        before = self.arguments["resume"] or {}
        files = tuple(file for file in self.files if file.sha256 != before.get("sha256"))
        arguments = self.arguments | {"resume": left.to_json()}
        return replace(self, arguments=arguments, files=(*files, left))

    def to_json(self) -> dict[str, Any]:
        """What a worker is sent."""
        return {
            "key": self.key,
            "name": self.name,
            "function": self.function,
            "arguments": self.arguments,
        }


@dataclass(frozen=True)
class Place:
    """Where a task ran, with what, how often it was begun, and how long its attempts took in all.

    `lost_s` are seconds of attempts that came to nothing, `num_fetched` bytes that its machine
    had to be sent for it.
    """

    node: str
    cpus: int
    gpus: float
    attempts: int = 1
    lost_s: float = 0.0
    num_fetched: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain data, as a trial's record keeps it under "timing"."""
        return {
            "node": self.node,
            "cpus": self.cpus,
            "gpus": self.gpus,
            "attempts": self.attempts,
            "lost_seconds": self.lost_s,
            "fetched_bytes": self.num_fetched,
        }


@dataclass(frozen=True)
class Answer:
    """What a task came to. `tensors` fetches its tensors, once; None when they are lost."""

    record: Record
    place: Place
    log: tuple[str, ...]
    tensors: Callable[[], Tensors | None]
    drop: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Resources:
    """What one task gets: threads of computation, and whole cards or a share of one.

    Raises InputError for other numbers.
    """

    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.cpus % 1:
            raise InputError(f"trial-cpus: expected a whole number of 1 or more, got {self.cpus}")
        if not 0 <= self.gpus < math.inf or (self.gpus > 1 and self.gpus % 1):
            raise InputError(
                f"trial-gpus: expected a share of a card up to 1, or whole cards, got {self.gpus:g}"
            )

    def words(self) -> str:
        """In words.

        >>> Resources(2, 0.5).words(), Resources(1).words()
        ('2 CPUs and 0.5 GPUs', '1 CPU')
        """
        text = "1 CPU" if self.cpus == 1 else f"{self.cpus} CPUs"
        if self.gpus:
            text += f" and {self.gpus:g} GPU" + ("" if self.gpus == 1 else "s")
        return text


class Executor(Protocol):
    """Runs tasks somewhere."""

    @property
    def name(self) -> str:
        """What `--executor` called it."""
        ...

    @property
    def resources(self) -> Resources:
        """What one task gets."""
        ...

    @property
    def passes_outputs(self) -> bool:
        """Whether tasks are given the tensors of others, see `Task.outputs`."""
        ...

    @property
    def sees_states(self) -> bool:
        """Whether tasks read and write their states where the driver keeps them."""
        ...

    def run(
        self, tasks: Iterator[Task], *, stop: StopFlag, progress: Progress = SILENT
    ) -> Generator[tuple[Task, Answer]]:
        """Run tasks, which are taken from `tasks` as there is room; each answer as it comes.

        What is lost with its process or machine is run again. Raises InputError for bad input, and
        when a task is lost too often; StopRequested when asked to stop, with everything ended.
        """
        ...


@dataclass
class Attempt:
    """A task with the attempts that it has had."""

    task: Task
    number: int = 1
    lost_s: float = 0.0
    log: list[str] = field(default_factory=list[str])

    def again(self, why: str, seconds: float, progress: Progress) -> Attempt:
        """The next attempt, said aloud; InputError after the last one."""
        line = f"{self.task.name}: {why} (attempt {self.number} of {ATTEMPTS})"
        if self.number >= ATTEMPTS:
            raise InputError(f"{line}; given up. What was done is kept: run the command again")
        progress.note(f"{line}; running it again")
        return Attempt(self.task, self.number + 1, self.lost_s + seconds, [*self.log, line])

    def resumed(self, why: str, progress: Progress) -> Attempt:
        """The same attempt, which goes on from the state that it has left."""
        line = f"{self.task.name}: {why}; it goes on from there"
        progress.note(line)
        return Attempt(self.task, self.number, self.lost_s, [*self.log, line])


def trouble(answer: dict[str, Any], node: str) -> str:
    """What a machine lacked for a task, which may be had elsewhere or later; else nothing.

    >>> trouble({"kind": "disk", "text": "OSError: no space left"}, "box")
    'files of box failed (OSError: no space left)'
    >>> trouble({"kind": "stopped", "text": ""}, "box")
    'stopped on box, by whoever manages it'
    """
    if answer["kind"] == "stopped":  # by a signal that is not the driver's: a machine is drained
        return f"stopped on {node}, by whoever manages it"
    words = {"memory": "out of memory on {}", "disk": "files of {} failed"}.get(answer["kind"])
    return f"{words.format(node)} ({answer['text']})" if words else ""


class Board:
    """The tasks that run, each with its bar: of all machines on one screen."""

    MOST = 16  # bars

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._open: dict[str, tuple[Any, Callable[[int], None], int]] = {}

    def event(self, key: str, event: dict[str, Any]) -> None:
        """What a worker says of a task: `done` of `total` steps of what it calls `name`."""
        if key not in self._open:
            if len(self._open) >= self.MOST:
                return
            bar = self._progress.task(event["name"], event["total"], done=event["done"])
            self._open[key] = (bar, bar.__enter__(), event["done"])
        bar, advance, done = self._open[key]
        if event["done"] > done:
            advance(event["done"] - done)
            self._open[key] = (bar, advance, event["done"])

    def close(self, key: str) -> None:
        """The task has ended, one way or another."""
        if key in self._open:
            self._open.pop(key)[0].__exit__(None, None, None)

    @staticmethod
    @contextmanager
    def open(progress: Progress) -> Generator[Board]:
        """A board whose bars are all gone in the end."""
        board = Board(progress)
        try:
            yield board
        finally:
            for key in list(board._open):
                board.close(key)
