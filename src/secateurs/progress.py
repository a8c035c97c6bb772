"""Progress of long work on stderr: a protocol, bars (rich), plain lines, JSON lines, or nothing."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from secateurs.errors import InputError
from secateurs.native_stderr import own_stderr
from secateurs.terminal import fitted

if TYPE_CHECKING:
    from rich.progress import ProgressColumn
    from rich.progress import Task as RichTask

MODES = ("auto", "rich", "plain", "json", "none")
PLAIN_S, SPARSE_S = 10.0, 60.0  # between two plain lines of a task: at least, and at most
PLAIN_SHARE = 0.1  # of the time of the outermost task, up to which it is that
WATCH_S = 1.0  # between looks at whether that is due
JSON_S = 0.5  # between two JSON lines of a task
WIDE = 66  # columns that a bar with both of its times needs


def duration(seconds: float) -> str:
    """A duration, rounded: below ten minutes to ten seconds, below 90 seconds to one.

    >>> duration(42), duration(100), duration(400), duration(900), duration(9000)
    ('42 s', '1 min 40 s', '6 min 40 s', '15 min', '2.5 h')
    """
    if round(seconds) < 90:
        return f"{seconds:.0f} s"
    minutes, tens = divmod(round(seconds / 10), 6)
    if minutes < 10:
        return f"{minutes} min {10 * tens} s" if tens else f"{minutes} min"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Said:
    """Progress that also remembers its notes, so that an answer need not repeat them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.notes: set[str] = set()

    def task(
        self, name: str, total: int, *, done: int = 0
    ) -> AbstractContextManager[Callable[[int], None]]:
        """As the progress given."""
        return self._progress.task(name, total, done=done)

    def note(self, text: str) -> None:
        """As the progress given, and remembered."""
        self.notes.add(text)
        self._progress.note(text)

    def without_notes(self, text: str) -> str:
        """Text without what repeats a note: whole lines, and the first sentences of others."""
        found: list[str] = []
        for line in text.split("\n"):
            rest = re.sub(r"^(note|caution): ", "", line)
            if rest in self.notes:
                continue
            said = max(
                (note for note in self.notes if line.startswith(f"{note} ")), key=len, default=""
            )
            found.append(line.removeprefix(f"{said} ") if said else line)
        return "\n".join(found)


class Progress(Protocol):
    """What long-running functions report to. Library functions default to `SILENT`."""

    def task(
        self, name: str, total: int, *, done: int = 0
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Open a task of `total` steps; the value yielded is called with the steps just done.

        `done` steps were done before, by a run that was interrupted.
        """
        ...

    def note(self, text: str) -> None:
        """Say one line that matters, for instance which weights were loaded."""
        ...


class Silent:
    """Progress that says nothing."""

    @contextmanager
    def task(self, name: str, total: int, *, done: int = 0) -> Generator[Callable[[int], None]]:
        """Swallow the steps."""
        yield lambda steps: None

    def note(self, text: str) -> None:
        """Swallow the line."""


SILENT: Progress = Silent()


def _column(text: Callable[[RichTask], str]) -> ProgressColumn:
    """A column with a text for each task."""
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Column(ProgressColumn):
        def render(self, task: RichTask) -> Text:
            return Text(text(task))

    return Column()


def _steps(task: RichTask) -> str:
    return "" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}"


def _elapsed_and_left(task: RichTask) -> str:
    elapsed = str(timedelta(seconds=int(task.elapsed or 0)))
    return elapsed if task.total is None else f"{elapsed}, {_left_or_elapsed(task)}"


def _left_or_elapsed(task: RichTask) -> str:
    if task.total is None:
        return _elapsed_and_left(task)
    left = task.time_remaining
    return f"{'-:--:--' if left is None else timedelta(seconds=int(left))} left"


class Console:
    """Bars with elapsed and remaining time on stderr, through rich; plain notes between them.

    A single step, which has no share that is done, is a moving bar with the time so far.
    """

    def __init__(self) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._console = RichConsole(stderr=True, highlight=False)
        times = _elapsed_and_left if self._console.width >= WIDE else _left_or_elapsed
        self._bars = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            _column(_steps),
            _column(times),
            console=self._console,
        )
        self._open = 0

    @contextmanager
    def task(self, name: str, total: int, *, done: int = 0) -> Generator[Callable[[int], None]]:
        """Show a bar while the task is open; nested tasks share one display."""
        if self._open == 0:
            self._bars.start()
        self._open += 1
        bar = self._bars.add_task(name, total=total if total > 1 else None, completed=done)
        try:
            yield lambda steps: self._bars.advance(bar, steps)
        finally:
            self._open -= 1
            self._bars.remove_task(bar)
            if self._open == 0:
                self._bars.stop()

    def note(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(fitted(text, sys.stderr), markup=False, soft_wrap=True)


@dataclass
class Pace:
    """How far a task is: steps done of `total` since `started`, seconds of the same clock.

    >>> pace = Pace("trials", total=4, started=100.0, said=100.0)
    >>> pace.left_s(130.0) is None
    True
    >>> pace.done = 3
    >>> pace.left_s(130.0)
    10.0

    Steps that were done `before` it started say nothing of its pace.
    """

    name: str
    total: int
    started: float
    said: float
    done: int = 0
    before: int = 0

    def left_s(self, now: float) -> float | None:
        """Seconds that the steps left take at the pace of those done; None before the first."""
        own = self.done - self.before
        if own <= 0:
            return None
        return max(0.0, (now - self.started) * (self.total - self.done) / own)


class Plain:
    """Lines on stderr for logs and pipes: notes, and how far a task is, also within a long step.

    Every ten seconds at first, then every tenth of the time so far, then every minute: a log of
    hours stays readable.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._said = clock, clock()
        self._open: list[Pace] = []
        self._lock = threading.RLock()

    @contextmanager
    def task(self, name: str, total: int, *, done: int = 0) -> Generator[Callable[[int], None]]:
        """Say how far the task is from time to time."""
        started = self._clock()
        pace = Pace(name, total, started, started, done, before=done)

        def advance(steps: int) -> None:
            with self._lock:
                pace.done += steps
                if self._clock() - pace.said >= self._wait_s():
                    self._say(pace)

        ended = threading.Event()
        with self._lock:
            self._open.append(pace)
            if len(self._open) == 1:
                self._said = started
                threading.Thread(target=self._watch, args=(ended,), daemon=True).start()
        try:
            yield advance
        finally:
            with self._lock:
                self._open.remove(pace)
            ended.set()

    def note(self, text: str) -> None:
        """Print one line."""
        with self._lock:
            self._said = self._clock()
            print(fitted(text, sys.stderr), file=sys.stderr, flush=True)

    def _say(self, pace: Pace) -> None:
        now = self._clock()
        pace.said = now
        left = pace.left_s(now)
        # That none of one step is done says nothing.
        steps = f"{pace.done} of {pace.total}, " if pace.total > 1 else ""
        text = f"{pace.name}: {steps}{duration(now - pace.started)}"
        self.note(f"{text}, about {duration(left)} left" if left else text)

    def _watch(self, ended: threading.Event) -> None:
        """Until the outermost task ends: say where the innermost is when nothing else was said."""
        while not ended.wait(WATCH_S):
            with self._lock:
                if self._open and self._clock() - self._said >= self._wait_s():
                    self._say(self._open[-1])

    def _wait_s(self) -> float:
        """Seconds between two lines by now."""
        so_far = self._clock() - self._open[0].started
        return min(SPARSE_S, max(PLAIN_S, PLAIN_SHARE * so_far))


class JsonLines:
    """One JSON object a line on stderr, for programs that watch.

    `event` is start, progress, end or note. The first three carry `task` (its name), `id` (a
    number that no other task of the run has), `done`, `total`, `elapsed_s` and, where it can be
    told, `left_s`; a note carries `text`. An end without all steps done is a task that was left.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._tasks = clock, 0

    @contextmanager
    def task(self, name: str, total: int, *, done: int = 0) -> Generator[Callable[[int], None]]:
        """Say that the task starts, how far it is at most twice a second, and that it ends."""
        self._tasks += 1
        number, started = self._tasks, self._clock()
        pace = Pace(name, total, started, started, done, before=done)

        def say(event: str) -> None:
            now = self._clock()
            left = pace.left_s(now)
            self._print(
                {
                    "event": event,
                    "task": name,
                    "id": number,
                    "done": pace.done,
                    "total": total,
                    "elapsed_s": round(now - started, 3),
                    "left_s": None if left is None else round(left, 3),
                }
            )
            pace.said = now

        def advance(steps: int) -> None:
            pace.done += steps
            if self._clock() - pace.said >= JSON_S:
                say("progress")

        say("start")
        try:
            yield advance
        finally:
            say("end")

    def note(self, text: str) -> None:
        """One note as an object."""
        self._print({"event": "note", "text": text})

    def _print(self, value: dict[str, Any]) -> None:
        print(json.dumps(value, ensure_ascii=False), file=own_stderr(), flush=True)


def epochs_of(name: str) -> str:
    """What the epochs of a training are called as a task."""
    return f"epochs of {name}"


class EpochTask:
    """The epochs of one training as a task, opened once it is known how many are done."""

    def __init__(self, progress: Progress, name: str, total: int, stack: ExitStack) -> None:
        self._progress, self._total, self._stack = progress, total, stack
        self._name = epochs_of(name)
        self._advance: Callable[[int], None] = lambda steps: None

    def start(self, num_done: int) -> None:
        """Open the task where an interrupted training ended, or at its beginning."""
        task = self._progress.task(self._name, self._total, done=num_done)
        self._advance = self._stack.enter_context(task)

    def end_one(self, row: object) -> None:
        """Count one epoch that ended."""
        self._advance(1)


@contextmanager
def epoch_task(progress: Progress, name: str, total: int) -> Generator[EpochTask]:
    """What a training of `total` epochs tells, see `fit.train.fit`."""
    with ExitStack() as stack:
        yield EpochTask(progress, name, total, stack)


def progress_of(mode: str = "auto", *, quiet: bool = False) -> Progress:
    """The progress for the options `--progress` and `--quiet`.

    `auto` is bars on a terminal and plain lines elsewhere. Raises InputError for another mode, and
    for quiet with a mode that prints.
    """
    if mode not in MODES:
        raise InputError(f"progress must be {', '.join(MODES[:-1])} or none, got {mode!r}")
    if quiet and mode not in ("auto", "none"):
        raise InputError(f"--quiet prints no progress, --progress {mode} does; give one of them")
    if quiet or mode == "none":
        return SILENT
    if mode == "json":
        return JsonLines()
    if mode == "rich" or (mode == "auto" and sys.stderr.isatty()):
        return Console()
    return Plain()
