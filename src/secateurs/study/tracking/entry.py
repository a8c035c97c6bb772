"""One run of an experiment tracker, and what a tracker does with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock


@dataclass(frozen=True)
class Entry:
    """One run of a tracker: its name, what identifies its content, and what it shows.

    `key` is the same only for the same content; `curves` are values by name, one per epoch.
    """

    name: str
    key: str
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])


class Log(Protocol):
    """Where entries go. One of a name replaces the one before unless it has the same key."""

    def check(self) -> None:
        """Raise LogError when entries cannot be written."""
        ...

    def write(self, entry: Entry) -> bool:
        """Write an entry, whole or not at all; False when it was there already.

        Raises LogError when it cannot be written.
        """
        ...


class LogError(Exception):
    """A tracker did not take what it was given; no reason to lose a study."""


def one_at_a_time(folder: Path) -> AbstractContextManager[object]:
    """Held while an entry is looked for and written: several processes may share a study."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock")
