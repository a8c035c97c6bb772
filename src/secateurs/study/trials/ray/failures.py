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


_WORDS = {
    "OutOfMemoryError": "out of memory{}",
    "ObjectStoreFullError": "the object store{} is full",
    "OutOfDiskError": "the disk of Ray's temporary folder{} is full",
    "NodeDiedError": "its node{} was lost",
    "LocalRayletDiedError": "its node{} was lost",
    "ObjectLostError": "what it was sent was lost with a node",
}


def loss(error: BaseException, where: str) -> str:
    """What was lost, in words; `where` is a node with its preposition, or nothing.

    >>> class WorkerCrashedError(Exception): ...
    >>> loss(WorkerCrashedError(), " on box")
    'its worker on box was lost (WorkerCrashedError)'
    """
    name = type(error).__name__
    return _WORDS.get(name, f"its worker{{}} was lost ({name})").format(where)


def last_line(error: BaseException) -> str:
    """The last line of an error, which says most in those of Ray.

    >>> last_line(ValueError("Traceback\\n  no such node\\n"))
    'no such node'
    """
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]
