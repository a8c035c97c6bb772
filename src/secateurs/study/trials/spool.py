"""A task in a folder that two machines see: read there, answered there, whole files only."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.files import atomic_path, read_json, write_json
from secateurs.fit.tensors import write_checked
from secateurs.stopping import stop_on_interrupt
from secateurs.study.trials.contents import Content, Contents
from secateurs.study.trials.worker import Host, Reporting, perform

TASK, EVENT, ANSWER, TENSORS = "task.json", "event.json", "answer.json", "tensors.safetensors"


def _gone(content: Content) -> list[bytes]:
    raise InputError(f"{content.path}: not seen by {platform.node()}; slurm needs a shared disk")


def answer_task(folder: Path) -> None:
    """Run the task in `folder`; the answer is there once all of it is."""
    task: dict[str, Any] = read_json(folder / TASK)
    shared = folder.parent
    host = Host(Contents(shared / "contents", _gone), shared / "frozen", None, shared)
    host.progress = Reporting(task["name"], lambda event: write_json(folder / EVENT, event))
    with stop_on_interrupt() as stop:
        host.stop = stop
        answer, tensors = perform(task, host)
    if tensors:
        with atomic_path(folder / TENSORS) as temporary:
            write_checked(tensors, temporary)
        answer["tensors"] = str(folder / TENSORS)
    write_json(folder / ANSWER, answer | {"node": platform.node()})


if __name__ == "__main__":
    answer_task(Path(sys.argv[1]))
