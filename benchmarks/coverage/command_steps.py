"""The commands of Secateurs run one by one, each in a process of its own with limits.

The process is forked from one that has imported the libraries, and calls what `secateurs` calls on
a command line, with the same arguments: only the seconds of the imports are saved.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

LIBRARIES = """\
torch torch.onnx torch._dynamo torch.export torchvision onnx onnxscript onnxruntime scipy.stats
scipy.cluster.hierarchy pyarrow.parquet PIL.Image jinja2 plotly.graph_objects safetensors.torch
"""
MODULES = """\
cli study.pruning.saved_layers study.pruning.saved_network report.network.page report.network.card
ship.export ship.program ship.cost
"""
POLL_S = 0.2


@dataclass
class Step:
    """What became of one command: `error` is its last line where it failed, `where` the function.

    `code` is None where a limit ended it; `peak_gib` is the largest resident memory.
    """

    name: str
    words: list[str]
    code: int | None = 0
    seconds: float = 0.0
    peak_gib: float = 0.0
    error: str = ""
    where: str = ""
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True where the command ended with exit code 0."""
        return self.code == 0 and not self.error


@dataclass(frozen=True)
class Limits:
    """When a step is ended: at a time of `time.perf_counter`, or above so much memory."""

    end: float
    memory_gib: float


def load_libraries(threads: int) -> None:
    """Import once what the commands import."""
    for name in LIBRARIES.split():
        import_module(name)
    for name in MODULES.split():
        import_module(f"secateurs.{name}")
    import torch

    torch.set_num_threads(threads)


def command(words: list[str]) -> None:
    """What the command `secateurs` does with these words; ends by SystemExit."""
    from secateurs.cli import main

    sys.argv = ["secateurs", *words]
    main()


def run_command(name: str, words: list[str], limits: Limits, logs: Path) -> Step:
    """Run `secateurs WORDS`; what it prints goes into `logs`."""
    return run_function(name, lambda: command(words), limits, logs, words=words)


def run_function(
    name: str,
    work: Callable[[], object],
    limits: Limits,
    logs: Path,
    *,
    words: list[str] | None = None,
) -> Step:
    """Run `work` in a forked process; its last line of JSON on stdout is the step's answer."""
    step = Step(name, words or [])
    logs.mkdir(parents=True, exist_ok=True)
    out, err = logs / f"{name}.out", logs / f"{name}.err"
    start = time.perf_counter()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _child(work, out, err)
    ended = ""
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        if time.perf_counter() > limits.end:
            ended = "time limit"
        elif _resident_gib(pid) > limits.memory_gib:
            ended = f"memory limit of {limits.memory_gib:g} GiB"
        if ended:
            os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            break
        time.sleep(POLL_S)
    step.seconds = round(time.perf_counter() - start, 1)
    step.peak_gib = round(usage.ru_maxrss / 2**20, 2)
    text = err.read_text(errors="replace")
    code = os.waitstatus_to_exitcode(status)
    if ended:
        step.code, step.error = None, ended
    elif code != 0:
        step.code = code
        step.error = last_line(text) or f"exit code {code}"
        step.where = raised_in(text)
    else:
        step.answer = last_json(out.read_text(errors="replace"))
    return step


def _child(work: Callable[[], object], out: Path, err: Path) -> None:
    code = 1
    with contextlib.suppress(OSError):  # Where memory runs out this process goes, and no other.
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def last_line(text: str) -> str:
    """The last line that says something, at most 200 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def raised_in(text: str) -> str:
    """The innermost function of Secateurs in a traceback, as file:line function."""
    found = re.findall(r'File ".*/secateurs/(\S+\.py)", line (\d+), in (\S+)', text)
    return "" if not found else "{}:{} {}".format(*found[-1])


def last_json(text: str) -> dict[str, Any]:
    """The last line of JSON."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    return {}


def _resident_gib(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 2**20
    return 0.0
