"""What runs a task in another process or on another machine, and the process that is asked to."""

from __future__ import annotations

import json
import os
import platform
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray

import secateurs
from secateurs.errors import InputError
from secateurs.files import atomic_path, fingerprint
from secateurs.fit.cache import PrefixCache
from secateurs.fit.tensors import write_checked
from secateurs.nets.depth import freeze
from secateurs.progress import epochs_of
from secateurs.stopping import StopFlag, StopRequested, stop_signals
from secateurs.study.trials.contents import Content, Contents, NeedsFile
from secateurs.study.trials.package import PackedSetting, unpack
from secateurs.study.trials.task import Record, Tensors
from secateurs.study.trials.trial import SharedInputs, Trial, train_trial

STATE = "state"  # the name of those bytes
Say = Callable[[dict[str, Any]], None]


def own_versions() -> dict[str, str]:
    """What must be the same wherever a study computes."""
    major, minor, _ = platform.python_version_tuple()
    return {
        "Secateurs": secateurs.__version__,
        "Python": f"{major}.{minor}",
        "PyTorch": str(torch.__version__),
    }


def other_versions(node: str, theirs: dict[str, str], driver: dict[str, str]) -> str | None:
    """A sentence when the versions of a node are not those of the driver, else None.

    >>> other_versions("box", {"Python": "3.11"}, {"Python": "3.12"})
    'box has Python 3.11 (the driver 3.12); install the same versions everywhere'
    """
    odd = [
        f"{name} {theirs.get(name, 'unknown')} (the driver {version})"
        for name, version in driver.items()
        if theirs.get(name) != version
    ]
    return f"{node} has {', '.join(odd)}; install the same versions everywhere" if odd else None


class Reporting:
    """Progress of a task that is sent to where it is shown, and kept for its log."""

    def __init__(self, name: str, say: Say) -> None:
        self._shown, self._say = (name, epochs_of(name)), say
        self.lines: list[str] = []

    @contextmanager
    def task(self, name: str, total: int, *, done: int = 0) -> Generator[Callable[[int], None]]:
        """Steps of the task itself are shown; those of its parts are only logged."""
        count = done

        def advance(steps: int) -> None:
            nonlocal count
            count += steps
            if name in self._shown:
                self._say({"name": name, "total": total, "done": count})

        if name in self._shown:
            self._say({"name": name, "total": total, "done": done})
        started = time.monotonic()
        yield advance
        self.note(f"{name}: {count} of {total}, {time.monotonic() - started:.1f} s")

    def note(self, text: str) -> None:
        """A line of the log."""
        self.lines.append(f"{time.strftime('%H:%M:%S')} {text}")


@dataclass
class Host:
    """What a process that runs tasks keeps between them, and the folders of its machine.

    `frozen` is where outputs of frozen layers are shared by the processes of a machine, `states`
    where an unfinished task leaves what it can go on from: None for where the driver says. `given`
    are outputs of frozen layers that another task has computed.
    """

    contents: Contents
    frozen: Path
    states: Path | None
    cache: Path
    stop: StopFlag = field(default_factory=StopFlag)
    given: dict[str, NDArray[np.uint8]] = field(default_factory=dict[str, NDArray[np.uint8]])
    progress: Reporting = field(default_factory=lambda: Reporting("", lambda event: None))
    unfinished: Path | None = None  # the state of the task that runs
    _settings: dict[str, PackedSetting] = field(default_factory=dict[str, PackedSetting])
    _shared: dict[int, SharedInputs] = field(default_factory=dict[int, SharedInputs])

    def setting(self, plain: dict[str, Any]) -> PackedSetting:
        """A packed context, opened once while it is the one in use."""
        key = fingerprint(plain)
        if key not in self._settings:
            self._settings.clear()
            self._settings[key] = unpack(plain, self.contents.path, self.cache)
        return self._settings[key]

    def state(self, theirs: Path) -> Path:
        """Where the state of a task is kept, which the driver would keep in `theirs`."""
        state = theirs if self.states is None else self.states / theirs.name
        state.parent.mkdir(parents=True, exist_ok=True)
        return state

    def left(self) -> Tensors:
        """The bytes of the state of a task that was stopped, where the driver does not see it."""
        if self.states is None or self.unfinished is None or not self.unfinished.is_file():
            return {}
        return {STATE: torch.from_numpy(np.fromfile(self.unfinished, np.uint8))}

    def shared(self, budget_bytes: int) -> SharedInputs:
        """Outputs of frozen layers, shared by all processes of the machine."""
        if budget_bytes not in self._shared:
            cache = PrefixCache(budget_bytes, self.frozen, keep_files=True, given=self.given)
            self._shared[budget_bytes] = SharedInputs(cache)
        return self._shared[budget_bytes]


def train(arguments: dict[str, Any], host: Host) -> tuple[Record, Tensors]:
    """The task of one training: its record, and the tensors that it may have changed."""
    setting, trial = host.setting(arguments["package"]), Trial(**arguments["trial"])
    state = host.state(Path(arguments["state"]))
    if arguments.get("resume") and not state.exists():
        left = host.contents.path(Content(**arguments["resume"]))
        with atomic_path(state) as copy:
            shutil.copyfile(left, copy)
        if left.parent == host.contents.folder:
            left.unlink(missing_ok=True)
    host.unfinished = state
    shared = host.shared(arguments["cache_bytes"])
    record, model = train_trial(
        setting, trial, shared, state_file=state, stop=host.stop, progress=host.progress
    )
    state.unlink(missing_ok=True)
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name not in frozen
    }
    return record, tensors


def frozen_outputs(arguments: dict[str, Any], host: Host) -> tuple[Record, Tensors]:
    """The task of frozen layers that several trainings share: their outputs for every view."""
    setting, trial = host.setting(arguments["package"]), Trial(**arguments["trial"])
    model = setting.new_model(seed=setting.config.seed, pretrained=trial.pretrained)
    freeze(model, setting.config.backbone, trial.depth)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return {}, host.shared(arguments["cache_bytes"]).outputs(setting, trial, model)


def perform(task: dict[str, Any], host: Host) -> tuple[dict[str, Any], Tensors]:
    """Run a task; what came of it in plain data, and its tensors.

    Under "kind" stands "done", "input" (bad input), "memory", "disk", "stopped" or "failed".
    """
    torch.set_num_threads(task["cpus"])
    host.unfinished = None
    started, fetched = time.perf_counter(), host.contents.num_fetched
    answer: dict[str, Any] = {"kind": "done", "record": {}, "text": ""}
    tensors: Tensors = {}
    try:
        odd = other_versions(platform.node(), own_versions(), task["versions"])
        if odd:
            raise InputError(odd)
        answer["record"], tensors = _function(task["function"])(task["arguments"], host)
    except NeedsFile:
        raise
    except StopRequested:
        answer["kind"] = "stopped"
        tensors = host.left()
    except InputError as error:
        answer |= {"kind": "input", "text": str(error)}
    except (MemoryError, torch.OutOfMemoryError) as error:
        answer |= {"kind": "memory", "text": _first_line(error)}
    except OSError as error:  # a disk that is full or gone: another machine may have room
        answer |= {"kind": "disk", "text": _first_line(error)}
    except Exception as error:
        full = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
        answer |= {"kind": "memory" if full else "failed", "text": _first_line(error)}
        host.progress.lines += traceback.format_exc().splitlines()
    answer |= {
        "seconds": time.perf_counter() - started,
        "fetched": host.contents.num_fetched - fetched,
        "log": host.progress.lines,
    }
    return answer, tensors


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


def _function(name: str) -> Callable[[dict[str, Any], Host], tuple[Record, Tensors]]:
    module, _, function = name.partition(":")
    if not module.startswith("secateurs."):
        raise InputError(f"{name}: not a task of Secateurs")
    return cast(
        "Callable[[dict[str, Any], Host], tuple[Record, Tensors]]",
        getattr(import_module(module), function),
    )


def send(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Write one message to a pipe."""
    data = json.dumps(message).encode()
    stream.write(len(data).to_bytes(8, "little") + data)
    stream.flush()


def receive(stream: BinaryIO) -> dict[str, Any] | None:
    """Read one message of a pipe; None when the other side has gone."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    length = int.from_bytes(head, "little")
    data = stream.read(length)
    return json.loads(data) if len(data) == length else None


def _nothing(content: Content) -> list[bytes]:
    raise InputError(f"{content.path}: changed, or gone, while the study ran; run again")


def main() -> None:
    """Answer tasks that come through standard input until it is closed; nothing is unpickled."""
    inlet, outlet = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints does not print into the answers
    for number in stop_signals():  # Ctrl-C reaches all processes of a terminal: the driver decides
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    folder = Path(sys.argv[1])
    host = Host(Contents(folder, _nothing), folder / "frozen", None, folder)
    tasks: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def listen() -> None:
        while (message := receive(inlet)) is not None:
            if message.get("stop"):
                host.stop.request()
            else:
                tasks.put(message)
        host.stop.request()  # the driver is gone
        tasks.put(None)

    threading.Thread(target=listen, daemon=True).start()
    send(outlet, {"ready": own_versions()})
    while (task := tasks.get()) is not None:
        host.progress = Reporting(task["name"], lambda event: send(outlet, {"event": event}))
        answer, tensors = perform(task, host)
        if tensors:
            path = folder / f"{task['key']}.{os.getpid()}.safetensors"
            write_checked(tensors, path)
            answer["tensors"] = str(path)
        send(outlet, {"answer": answer})


if __name__ == "__main__":
    main()
