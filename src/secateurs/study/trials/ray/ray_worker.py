"""What runs on the nodes of a Ray cluster; Ray is there whenever this is imported by a node."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save

from secateurs.files import cache_dir
from secateurs.fit.cache import bytes_of
from secateurs.stopping import stop_on_interrupt
from secateurs.study.trials.contents import Content, Contents, NeedsFile
from secateurs.study.trials.task import Tensors
from secateurs.study.trials.worker import Host, Reporting, own_versions, perform

PART_BYTES = 64 << 20
OLD_S = 7 * 24 * 3600.0
_HOSTS: dict[tuple[str, bool], Host] = {}  # of this process, between its tasks


def hello() -> dict[str, Any]:
    """What a node has, for a driver that looks whether it can be used."""
    import ray

    return {"versions": own_versions(), "node": ray.get_runtime_context().get_node_id()}


def run_task(
    task: dict[str, Any],
    parts: dict[str, list[Any]],
    board: Any,
    given: dict[str, NDArray[np.uint8]] | None = None,
) -> tuple[dict[str, Any], bytes]:
    """Run one task: plain data, and the tensors as the bytes of a safetensors file.

    `parts` are references to the files that nodes have to be sent, in parts by SHA-256; `board` is
    the actor that gets the progress of the task; `given` are outputs of frozen layers.
    """
    answer, tensors = _performed(task, parts, board, given or {})
    return answer, save(tensors) if tensors else b""


def run_outputs(
    task: dict[str, Any], parts: dict[str, list[Any]], most_bytes: int
) -> tuple[int, dict[str, NDArray[np.uint8]]]:
    """The tensors of a task as bytes, and how many those are; none of more than `most_bytes`.

    Where they are in a file of the node they are read from there.
    """
    answer, tensors = _performed(task, parts, None, {})
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if answer["kind"] != "done" or num_bytes > most_bytes:
        return 0, {}
    return num_bytes, {name: bytes_of(tensor) for name, tensor in tensors.items()}


def _performed(
    task: dict[str, Any],
    parts: dict[str, list[Any]],
    board: Any,
    given: dict[str, NDArray[np.uint8]],
) -> tuple[dict[str, Any], Tensors]:
    import ray

    node = ray.get_runtime_context().get_node_id()
    words = {"node": node, "host": socket.gethostname(), "key": task["key"]}

    def fetch(content: Content) -> Generator[bytes]:
        if content.sha256 not in parts:
            raise NeedsFile
        for part in parts[content.sha256]:
            yield memoryview(ray.get(part)).tobytes()

    host = _host(task)
    host.given.clear()
    host.given.update(given)
    host.contents.fetch = fetch

    def say(event: dict[str, Any]) -> None:
        if board is not None:
            board.say.remote({**words, **event})

    host.progress = Reporting(task["name"], say)
    say({})
    try:
        with stop_on_interrupt() as stop:
            host.stop = stop
            answer, tensors = perform(task, host)
    except NeedsFile:
        return {"kind": "needs", **words}, {}
    return {**answer, **words}, tensors


def _host(task: dict[str, Any]) -> Host:
    key = (task["session"], task["shared_disk"])
    if key not in _HOSTS:
        _HOSTS.clear()
        cache = cache_dir()
        _sweep(cache / "workers", "frozen-*")
        _sweep(cache / "workers" / "states", "*.state.safetensors")
        contents = Contents(cache / "contents", _unset, shared_disk=task["shared_disk"])
        frozen = cache / "workers" / f"frozen-{task['session']}"
        _HOSTS[key] = Host(contents, frozen, cache / "workers" / "states", cache)
    return _HOSTS[key]


def _sweep(folder: Path, names: str) -> None:
    """Remove what is left of drivers that were killed before they could have it done."""
    for path in folder.glob(names):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime <= OLD_S:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def _unset(content: Content) -> Generator[bytes]:
    raise NeedsFile
    yield b""


def tidy(session: str) -> None:
    """Remove what a driver's tasks have left on this node, but for files by content."""
    shutil.rmtree(cache_dir() / "workers" / f"frozen-{session}", ignore_errors=True)
