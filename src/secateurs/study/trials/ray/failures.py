"""Errors of Ray: which of them a task had no part in, and what they say in one line."""

from __future__ import annotations

from typing import Any


def lost_errors(ray: Any) -> tuple[type[Exception], ...]:
    """What Ray raises for an attempt that ended through no fault of the task."""
    kinds = ray.exceptions
    return (
        *(kinds.WorkerCrashedError, kinds.NodeDiedError, kinds.LocalRayletDiedError),
        *(kinds.ObjectLostError, kinds.ObjectStoreFullError, kinds.OutOfDiskError),
        *(kinds.TaskCancelledError, kinds.TaskUnschedulableError, kinds.ActorDiedError),
        kinds.OutOfMemoryError,
    )


def last_line(error: BaseException) -> str:
    """The last line of an error, which says most in those of Ray.

    >>> last_line(ValueError("Traceback\\n  no such node\\n"))
    'no such node'
    """
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]
