"""A small world for fault injection: drawn images, a narrow AlexNet, and the commands on them."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("across", "down", "plain")


@dataclass(frozen=True)
class Command:
    """A command line without its cache; OUT, DATA and MODEL stand for paths of a trial.

    One without a cache writes a single file, its last word.
    """

    name: str
    words: tuple[str, ...]
    cached: bool = True

    def line(self, *, out: Path, data: Path, model: Path, cache: Path) -> list[str]:
        """The arguments for one trial."""
        places = {"OUT": str(out), "DATA": str(data), "MODEL": str(model)}
        found = [places.get(word, word) for word in self.words]
        if not self.cached:
            return [*found[:-1], f"{out}/{found[-1]}"]
        return [*found, "--cache", str(cache), "--quiet"]


SMALL = ("--batch-size", "8")
FIT = ("--weights", "none", "--group-by", r"^(\d+)_", "--device", "cpu")
COMMANDS = (
    Command(
        "train",
        ("train", "DATA", "--depth", "6", "--epochs", "3", "--out", "OUT", *SMALL, *FIT),
    ),
    Command(
        "sweep",
        ("sweep", "DATA", "--depths", "6,7", "--runs", "2", "--scratch-runs", "0", "--epochs", "2",
         "--cache-in", "keep", "--out", "OUT", *SMALL, *FIT),
    ),
    Command(
        "study",
        ("study", "DATA", "--backbone", "alexnet", "--depths", "6,7", "--runs", "1", "--epochs",
         "2", "--out", "OUT", *SMALL, *FIT),
    ),
    Command(
        "study of layers",
        ("study", "DATA", "--backbone", "alexnet", "--layers", "fc7", "--depths", "6,7", "--runs",
         "1", "--scratch-runs", "0", "--epochs", "2", "--out", "OUT", *SMALL, *FIT),
    ),
    Command(
        "search",
        ("search", "DATA", "--lr", "0.001,0.01", "--epochs", "1,2", "--depth", "6", "--out", "OUT",
         *SMALL, *FIT),
    ),
    Command(
        "paper",
        ("paper", "DATA", "--depths", "6,7", "--runs", "1", "--epochs", "1", "--no-search", "--out",
         "OUT", *FIT),
    ),
    Command(
        "grid",
        ("grid", "MODEL", "DATA", "--layer", "fc7", "--angles-deg", "10,20", "--norm-stds", "0",
         "--out", "OUT"),
    ),
    Command("prune", ("prune", "MODEL", "DATA", "--layers", "fc7", "--out", "OUT")),
    Command(
        "prune to a budget",
        ("prune", "MODEL", "DATA", "--params", "0.6", "--recovery-epochs", "1", "--out", "OUT"),
    ),
    Command("export", ("export", "MODEL", "DATA", "--out", "model.onnx"), cached=False),
    Command("export .pt2", ("export", "MODEL", "DATA", "--out", "model.pt2"), cached=False),
)  # fmt: skip


def write_images(root: Path, *, per_class: int = 8, seed: int = 0) -> Path:
    """Striped pictures in three classes, of six senders."""
    generator = np.random.default_rng(seed)
    stripes = (np.arange(48) // 6 % 2) * 150
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            picture = generator.integers(0, 90, (40, 48, 3))
            if label == 0:
                picture += stripes[None, :, None]
            elif label == 1:
                picture += stripes[:40, None, None]
            file = root / name / f"{number % 6:02d}_{label}{number}.png"
            Image.fromarray(picture.astype(np.uint8)).save(file)
    return root


def run_command(line: list[str], log: Path) -> int:
    """Run a command in this process as `secateurs` does; return its exit code."""
    from secateurs.cli import main

    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["secateurs", *line]
    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(bool(error.code))
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def spawn(line: list[str], log: Path, *, before: Any = None, modules: Path | None = None) -> int:
    """Fork a process that runs a command, after `before()`; return its process id.

    With `modules`, the names of all modules it imported are written there.
    """
    process = os.fork()
    if process:
        return process
    try:
        os.setsid()
        if before is not None:
            before()
        code = run_command(line, log)
        if modules is not None:
            modules.write_text("\n".join(sorted(sys.modules)))
    except BaseException:
        code = 71
    os._exit(code)


def wait(process: int, *, seconds: float = 3600) -> int:
    """The exit code of a process, minus the signal's number where one ended it.

    One that takes longer is killed, with a TimeoutError for the caller.
    """
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            raise TimeoutError(f"no end within {seconds:.0f} s")
        time.sleep(0.01)
