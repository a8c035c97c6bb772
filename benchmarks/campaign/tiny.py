"""A small world for fault injection: drawn images, a narrow AlexNet, and the commands on them."""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import models

CLASSES = ("across", "down", "plain")
WIDTHS = (6, 10, 12, 12, 8)
LINEAR = (40, 32)


@dataclass(frozen=True)
class Command:
    """A command line without its cache; OUT, DATA and MODEL stand for paths of a trial."""

    name: str
    words: tuple[str, ...]

    def line(self, *, out: Path, data: Path, model: Path, cache: Path) -> list[str]:
        """The arguments for one trial."""
        places = {"OUT": str(out), "DATA": str(data), "MODEL": str(model)}
        return [*(places.get(word, word) for word in self.words), "--cache", str(cache), "--quiet"]


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
        ("study", "DATA", "--depths", "6,7", "--runs", "1", "--scratch-runs", "0", "--epochs", "2",
         "--out", "OUT", *SMALL, *FIT),
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
        ("grid", "MODEL", "DATA", "--layer", "fc7", "--angles", "10,20", "--stds", "0", "--out",
         "OUT"),
    ),
    Command("prune", ("prune", "MODEL", "DATA", "--layers", "fc7", "--out", "OUT")),
    Command(
        "prune to a budget",
        ("prune", "MODEL", "DATA", "--params", "0.6", "--recover", "1", "--out", "OUT"),
    ),
)  # fmt: skip


def narrow_alexnet(name: str, *, weights: None, num_classes: int, **_: Any) -> nn.Module:
    """What torchvision's builder gives, with few channels and units."""
    with torch.device("meta"):
        model = models.AlexNet(num_classes)
    inputs, widths = 3, iter(WIDTHS)
    for place, step in enumerate(model.features):
        if isinstance(step, nn.Conv2d):
            width = next(widths)
            model.features[place] = nn.Conv2d(
                inputs, width, step.kernel_size, step.stride, step.padding
            )
            inputs = width
    shapes = ((36 * inputs, LINEAR[0]), LINEAR, (LINEAR[1], num_classes))
    for place, (given, found) in zip((1, 4, 6), shapes, strict=True):
        model.classifier[place] = nn.Linear(given, found)
    return model


def narrow() -> None:
    """Make every AlexNet of this process a narrow one, and time networks for a moment only."""
    import secateurs.cli
    from secateurs.nets import backbones
    from secateurs.ship import spec
    from secateurs.study import price, shrink

    assert secateurs.cli
    models.get_model = narrow_alexnet
    backbones._TRACES.clear()
    spec.bare.cache_clear()
    price.BUDGET_S = shrink.LATENCY_S = 0.05
    torch.set_num_threads(1)


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


def spawn(line: list[str], log: Path, *, before: Any = None) -> int:
    """Fork a process that runs a command, after `before()`; return its process id."""
    process = os.fork()
    if process:
        return process
    try:
        os.setsid()
        if before is not None:
            before()
        code = run_command(line, log)
    except BaseException:
        code = 71
    os._exit(code)


def wait(process: int) -> int:
    """The exit code of a process, minus the signal's number where one ended it."""
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)
