"""Progress whose notes a test reads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext


class KeptNotes:
    """Progress that keeps its notes and shows nothing."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def task(
        self, name: str, total: int, *, done: int = 0
    ) -> AbstractContextManager[Callable[[int], None]]:
        """A task whose steps are not counted."""
        return nullcontext(lambda steps: None)

    def note(self, text: str) -> None:
        """Keep one note."""
        self.notes.append(text)
