"""An executor of this process, for tests of what drives one."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import torch

from secateurs.stopping import StopFlag
from secateurs.study.trials.contents import Contents
from secateurs.study.trials.processes import answered
from secateurs.study.trials.task import Answer, Attempt, Resources, Task
from secateurs.study.trials.worker import Host, Reporting, own_versions, perform


class Backwards:
    """An executor in this process that runs the last task first, and loses some results."""

    name = "backwards"
    resources = Resources(1)

    def __init__(self, folder: Path, lost: int = 0) -> None:
        contents = Contents(folder, lambda content: [])
        self.host = Host(contents, folder, None, folder, progress=Reporting("", lambda event: None))
        self.lost, self.num = lost, 0

    def run(
        self, tasks: Iterator[Task], *, stop: StopFlag, progress: Any = None
    ) -> Generator[tuple[Task, Answer]]:
        for task in reversed(list(tasks)):
            words = {"cpus": torch.get_num_threads(), "versions": own_versions()}
            answer, tensors = perform(task.to_json() | words, self.host)
            found = answered(Attempt(task), answer, "here", self.resources)
            self.num += 1
            gone = self.num <= self.lost
            given = None if gone else tensors
            yield task, Answer(found.record, found.place, (), lambda given=given: given)
