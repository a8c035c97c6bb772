"""Progress of long work: a small protocol, a silent one, and a rich display on stderr."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


def duration(seconds: float) -> str:
    """A time to wait, in words.

    >>> duration(42), duration(400), duration(9000)
    ('42 s', '7 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Progress(Protocol):
    """What long-running functions report to. Library functions default to `SILENT`."""

    def task(self, name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Open a task of `total` steps; the value yielded is called with the steps just done."""
        ...

    def note(self, text: str) -> None:
        """Say one line that matters, for instance which weights were loaded."""
        ...


class Silent:
    """Progress that says nothing."""

    @contextmanager
    def task(self, name: str, total: int) -> Generator[Callable[[int], None]]:
        """Swallow the steps."""
        yield lambda steps: None

    def note(self, text: str) -> None:
        """Swallow the line."""


SILENT: Progress = Silent()


class Console:
    """Bars with elapsed and remaining time on stderr, through rich; plain notes between them."""

    def __init__(self) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self._console = RichConsole(stderr=True, highlight=False)
        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._open = 0

    @contextmanager
    def task(self, name: str, total: int) -> Generator[Callable[[int], None]]:
        """Show a bar while the task is open; nested tasks share one display."""
        if self._open == 0:
            self._bars.start()
        self._open += 1
        bar = self._bars.add_task(name, total=total)
        try:
            yield lambda steps: self._bars.advance(bar, steps)
        finally:
            self._open -= 1
            self._bars.remove_task(bar)
            if self._open == 0:
                self._bars.stop()

    def note(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(text, markup=False)
