"""Outputs of frozen layers on a Ray cluster: kept where they were computed, sent, rebuilt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secateurs.study.trials.task import Task

BYTES_PER_S = 100e6  # of a network between nodes, as far as it is counted on
FREE_BYTES = 8 << 20  # whose sending is not worth a thought
STORE_SHARE = 0.25  # of a node's object store that those of one prefix may take
ALL_SHARE = 0.5  # of all object stores that those of all prefixes may take
LOOK_S = 5.0


@dataclass
class _Made:
    """References of the size in bytes of some outputs, and of the outputs."""

    size: Any
    arrays: Any
    num_bytes: int | None = None  # None while they are not there


class RayOutputs:
    """The tensors of tasks that other tasks are given, by Ray's references.

    When a first task has computed them they become the output of a Ray task on its node, which Ray
    runs once more should they be lost. Nobody waits for them: a task that begins before they are
    there computes its own. `make` gives the remote function that makes them on a node.
    """

    def __init__(self, ray: Any, make: Any) -> None:
        self._ray, self._make = ray, make
        self._made: dict[str, _Made] = {}
        self._alone: set[str] = set()
        self._room = (0, 0, 0)

    def look(self, stores: list[int]) -> None:
        """Note the bytes of the object store of every node that there is."""
        room = int(STORE_SHARE * min(stores, default=0)), int(ALL_SHARE * sum(stores))
        self._room = (len(stores), *room)

    def offer(
        self, task: Task | None, node: str, seconds: float, *, words: dict[str, Any], with_: Any
    ) -> None:
        """Have a node pass on what it has just computed in some seconds.

        Not when there is one node only, and not what takes longer to send than to compute.
        """
        nodes, most, in_all = self._room
        if task is None or task.key in self._made or task.key in self._alone or nodes < 2:
            return
        most = int(min(most, in_all - self.num_bytes, BYTES_PER_S * seconds + FREE_BYTES))
        refs = self._make(node).remote(words | task.to_json(), with_, most)
        self._made[task.key] = _Made(*refs)

    @property
    def num_bytes(self) -> int:
        """Of all that is remembered."""
        return sum(one.num_bytes or 0 for one in self._made.values())

    def ready(self, task: Task | None) -> Any:
        """The reference of what a task computes for others, if it is there; else None."""
        made = None if task is None else self._made.get(task.key)
        if task is None or made is None:
            return None
        if made.num_bytes is None:
            there, _ = self._ray.wait([made.size], timeout=0)
            if not there:
                return None
            try:
                made.num_bytes = self._ray.get(made.size, timeout=LOOK_S)
            except self._ray.exceptions.RayError:
                self.forget(task)
                return None
        if not made.num_bytes:
            self.forget(task, alone=True)
            return None
        return made.arrays

    def forget(self, task: Task | None, *, alone: bool = False) -> None:
        """Have it offered anew, or with `alone` computed by each task that wants it."""
        if task is not None:
            self._made.pop(task.key, None)
            if alone:
                self._alone.add(task.key)

    def references(self) -> list[Any]:
        """Those that are remembered."""
        return [one.arrays for one in self._made.values()]

    def clear(self) -> None:
        """Forget all: the cluster drops what nobody refers to."""
        self._made.clear()
