"""Time and memory of `secateurs.prune` on a network of torchvision with random weights.

    python benchmarks/pruning/pruning_time.py resnet50 --json benchmarks/measured/pruning_time.json
    python benchmarks/pruning/pruning_time.py resnet18 --images 60 --json ...
    python benchmarks/pruning/pruning_time_table.py benchmarks/measured/pruning_time.json \
        --into docs/benchmarks.md

Half of the multiply-accumulates, calibration images of 224 x 224. Processor time is beside the wall
clock, since other work on the machine changes the latter most; it is also given by phase. Memory is
the peak of the process less what it was with the model and the images loaded. One network a run;
`--code` names the state of the source where several are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torchvision import models

import secateurs
from networks import Row, heading
from secateurs.files import read_json, write_json

Result = TypeVar("Result")
IMAGES, BATCH, SIZE = 256, 32, 224
BETWEEN = "between"  # the tasks: widths, batch norm statistics, held-out samples, checks


def peak_mib() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Phases:
    """Progress that sums processor time by task."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def task(self, name: str, total: int, *, done: int = 0) -> Generator[Callable[[int], None]]:
        """Time a task."""
        started = time.process_time()
        yield lambda steps: None
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started

    def note(self, text: str) -> None:
        """Not wanted."""


def phases_of(call: Callable[[Phases], Result]) -> tuple[Result, dict[str, float]]:
    """What a call with progress returns, and its processor time by task and between the tasks."""
    phases, used = Phases(), time.process_time()
    found = call(phases)
    total = time.process_time() - used
    return found, {**phases.seconds, BETWEEN: total - sum(phases.seconds.values())}


def measured(name: str, code: str, num_images: int) -> Row:
    """One pruning."""
    torch.manual_seed(0)
    model = models.get_model(name, weights=None)
    images = torch.randn(num_images, 3, SIZE, SIZE).split(BATCH)
    with torch.no_grad():  # so that batch norms have statistics of these images
        model.train()(images[0])
    model.eval()
    before, started = peak_mib(), time.perf_counter()
    small, phases = phases_of(
        lambda progress: secateurs.prune(
            model, images, secateurs.Budget(macs=0.5), progress=progress
        )
    )
    return {
        "network": name,
        "code": code,
        "images": num_images,
        "size": SIZE,
        "machine": heading(),
        "macs": small.report["macs"],
        "parity": small.report["parity"],
        "seconds": time.perf_counter() - started,
        "processor_seconds": sum(phases.values()),
        "phases": phases,
        "added_mib": peak_mib() - before,
        "load": os.getloadavg()[2],
    }


def main() -> None:
    known = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    known.add_argument("network")
    known.add_argument("--images", type=int, default=IMAGES)
    known.add_argument("--code", default="now", help="state of the source, for the table")
    known.add_argument("--json", type=Path, help="file of figures, one row per network")
    given = known.parse_args()
    row = measured(given.network, given.code, given.images)
    print(json.dumps(row, indent=2))
    if given.json is not None:
        kept = read_json(given.json) if given.json.exists() else {"rows": []}
        key = ("network", "code", "images")
        rows = [old for old in kept["rows"] if [old[k] for k in key] != [row[k] for k in key]]
        write_json(given.json, {"rows": [*rows, row]})


if __name__ == "__main__":
    main()
