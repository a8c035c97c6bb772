"""A task in a folder that two machines see: read there, answered there, whole files only."""

from __future__ import annotations

import contextlib
import platform
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.files import atomic_path, read_json, write_json
from secateurs.fit.tensors import write_checked
from secateurs.stopping import StopFlag, stop_on_interrupt
from secateurs.study.trials.contents import Content, Contents
from secateurs.study.trials.worker import Host, Reporting, perform

TASK, EVENT, ANSWER, TENSORS = "task.json", "event.json", "answer.json", "tensors.safetensors"
DRIVER = "driver.lease"  # in the folder of all tasks; the driver renews it
LOOK_S = 15.0
GONE_S = 300.0  # disks of clusters show changes late


def _gone(content: Content) -> list[bytes]:
    raise InputError(f"{content.path}: not seen by {platform.node()}; slurm needs a shared disk")


@contextmanager
def _watching(path: Path, stop: StopFlag) -> Generator[None]:
    """Ask for a stop when the driver has not renewed its file for a while: it was killed."""
    ended = threading.Event()

    def changed() -> int | None:
        with contextlib.suppress(OSError):
            return path.stat().st_mtime_ns
        return None

    def watch() -> None:
        known, since = changed(), time.monotonic()
        while not ended.wait(LOOK_S):
            now = changed()
            if now is not None and now != known:
                known, since = now, time.monotonic()
            elif time.monotonic() - since > GONE_S:
                stop.request()
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def answer_task(folder: Path) -> None:
    """Run the task in `folder`; the answer is there once all of it is.

    Nothing happens when the folder is gone, which its driver took with it.
    """
    if not (folder / TASK).is_file():
        return
    task: dict[str, Any] = read_json(folder / TASK)
    shared = folder.parent
    host = Host(Contents(shared / "contents", _gone), shared / "frozen", None, shared)
    host.progress = Reporting(task["name"], lambda event: write_json(folder / EVENT, event))
    with stop_on_interrupt() as stop, _watching(shared / DRIVER, stop):
        host.stop = stop
        answer, tensors = perform(task, host)
    if not folder.is_dir():
        return
    if tensors:
        with atomic_path(folder / TENSORS) as temporary:
            write_checked(tensors, temporary)
        answer["tensors"] = str(folder / TENSORS)
    write_json(folder / ANSWER, answer | {"node": platform.node()})


if __name__ == "__main__":
    answer_task(Path(sys.argv[1]))
