"""An executor of this process, for tests of what drives one."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import torch

from secateurs.fit.cache import bytes_of
from secateurs.stopping import StopFlag
from secateurs.study.trials.contents import Contents
from secateurs.study.trials.processes import answered
from secateurs.study.trials.task import Answer, Attempt, Resources, Task
from secateurs.study.trials.worker import Host, Reporting, own_versions, perform


def _host(folder: Path) -> Host:
    contents = Contents(folder, lambda content: [])
    return Host(contents, folder, None, folder, progress=Reporting("", lambda event: None))


class Backwards:
    """An executor in this process that runs the last task first, and loses some results.

    With `gives` outputs of frozen layers are computed in another folder and passed on.
    """

    name = "backwards"
    resources = Resources(1)
    sees_states = True

    def __init__(self, folder: Path, lost: int = 0, *, gives: bool = False) -> None:
        self.host, self.maker = _host(folder), _host(folder / "maker")
        self.lost, self.num, self.passes_outputs = lost, 0, gives
        self.made: dict[str, dict[str, Any]] = {}

    def run(
        self, tasks: Iterator[Task], *, stop: StopFlag, progress: Any = None
    ) -> Generator[tuple[Task, Answer]]:
        for task in reversed(list(tasks)):
            words = {"cpus": torch.get_num_threads(), "versions": own_versions()}
            self.host.given.clear()
            if task.outputs is not None:
                if task.outputs.key not in self.made:
                    _, kept = perform(task.outputs.to_json() | words, self.maker)
                    found = {name: bytes_of(one) for name, one in kept.items()}
                    self.made[task.outputs.key] = found
                self.host.given.update(self.made[task.outputs.key])
            answer, tensors = perform(task.to_json() | words, self.host)
            found = answered(Attempt(task), answer, "here", self.resources)
            self.num += 1
            gone = self.num <= self.lost
            given = None if gone else tensors
            yield task, Answer(found.record, found.place, (), lambda given=given: given)


def timeless(value: Any) -> Any:
    """Results as JSON gives them back, without times and places."""
    if isinstance(value, dict):
        odd = ("timing", "machines", "seconds")
        return {key: timeless(one) for key, one in value.items() if key not in odd}
    return [timeless(one) for one in value] if isinstance(value, list | tuple) else value
