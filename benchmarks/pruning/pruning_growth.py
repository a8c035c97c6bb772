"""How the time and memory of `secateurs.prune` grow with images, units and layers.

    python benchmarks/pruning/pruning_growth.py --json benchmarks/measured/pruning_growth.json
    python benchmarks/pruning/pruning_growth_chart.py \\
        benchmarks/measured/pruning_growth.json docs/pictures

A chain of convolutions with batch norm and random weights, of which one of three numbers differs:
calibration images, channels of each layer, or layers. Half of the multiply-accumulates, defaults.
Each measurement has a process of its own on one thread, and is the least processor time of
`--repeats`; memory is the peak of the process less what it was with the network and the images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

import secateurs
from networks import Row, heading
from pruning_time import peak_mib, phases_of
from secateurs.files import read_json, write_json

SIDE, BATCH = 32, 32


@dataclass(frozen=True)
class Case:
    """A network and how many images it is measured on."""

    images: int = 128
    units: int = 64
    layers: int = 8


BASE = Case()
VALUES = {
    "images": (32, 64, 128, 256, 512, 1024),
    "units": (16, 32, 64, 128, 256),
    "layers": (2, 4, 8, 16, 32),
}


def cases() -> list[Case]:
    """All cases, each once."""
    varied = [replace(BASE, **{name: value}) for name in VALUES for value in VALUES[name]]
    return list(dict.fromkeys(varied))


def network(case: Case) -> nn.Sequential:
    """The chain, on images of `SIDE` x `SIDE` and maps of half of that."""
    widths = [3] + [case.units] * case.layers
    blocks = [
        (nn.Conv2d(a, b, 3, 2 if a == 3 else 1, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in pairwise(widths)
    ]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(case.units, 10))
    return nn.Sequential(*(layer for block in blocks for layer in block), *head)


def measured(case: Case) -> Row:
    """One pruning, in this process."""
    torch.manual_seed(0)
    model = network(case)
    images = torch.randn(case.images, 3, SIDE, SIDE).split(BATCH)
    with torch.no_grad():  # so that batch norms have statistics of these images
        model.train()(images[0])
    model.eval()
    before = peak_mib()
    small, seconds = phases_of(
        lambda progress: secateurs.prune(
            model,
            images,
            secateurs.Budget(macs=0.5),
            num_samples=case.images,
            progress=progress,
        )
    )
    return {
        **asdict(case),
        "macs": small.report["macs"],
        "processor_seconds": sum(seconds.values()),
        "phases": seconds,
        "added_mib": peak_mib() - before,
    }


def least(case: Case, repeats: int) -> Row:
    """The fastest of several processes."""
    words = [sys.executable, __file__, "--one", json.dumps(asdict(case))]
    found = [
        json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        for _ in range(repeats)
    ]
    return min(found, key=lambda row: row["processor_seconds"])


def main() -> None:
    """Measure all cases that the file lacks, or one in this process."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--json", type=Path, help="all rows; read again to go on")
    words.add_argument("--repeats", type=int, default=2)
    words.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    given = words.parse_args()
    torch.set_num_threads(1)
    if given.one is not None:
        print(json.dumps(measured(Case(**given.one))))
        return
    rows: list[Row] = []
    if given.json and given.json.exists():
        rows = read_json(given.json)["rows"]
    done = {Case(row["images"], row["units"], row["layers"]) for row in rows}
    for case in cases():
        if case in done:
            continue
        rows.append(least(case, given.repeats))
        print(f"{case}: {rows[-1]['processor_seconds']:.1f} s, {rows[-1]['added_mib']:.0f} MiB")
        if given.json:
            write_json(given.json, {"machine": heading(), "repeats": given.repeats, "rows": rows})


if __name__ == "__main__":
    main()
