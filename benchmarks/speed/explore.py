"""How long a move of a slider of `secateurs explore` takes, for a layer of 4096 units.

Without arguments: AlexNet with random weights and 405 + 135 drawn images, mirrored as pruning does.
With MODEL and DATA: a saved network. Each kind of move is made over its whole range, never twice
the same, from the position parsed to the answer as plain data; browser and network are left out.

    python benchmarks/speed/explore.py [MODEL DATA [--group-by REGEX]] [--layer fc7] [--threads 2]
"""

from __future__ import annotations

import argparse
import datetime
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from grid import random_alexnet
from secateurs.files import cache_dir
from secateurs.ship.checkpoint import save
from secateurs.ship.spec import ImageInput, describe
from secateurs.study.pruning.explorer import Explorer, cut, open_explorer
from secateurs.study.pruning.slider_request import parse_request
from secateurs.study.saved.location import find_location
from secateurs.study.setup.config import StudyConfig

CLASSES = tuple("abcdefg")
STEPS = ("merge", "least_squares")
LIMIT_S = 0.3


def drawn_place(folder: Path, layer: str) -> tuple[Path, str]:
    """A saved AlexNet with random weights and a folder of 675 smooth random images."""
    config = StudyConfig(weights="none", layers=(layer,), device="cpu")
    spec = describe(
        model := random_alexnet(layer),
        "alexnet",
        CLASSES,
        ImageInput.of("alexnet"),
        extra={"config": config.to_json()},
    )
    save(model, spec, folder / "model")
    generator = np.random.default_rng(0)
    for number in range(675):
        small = generator.integers(0, 255, (14, 14, 3), dtype=np.uint8)
        path = folder / "images" / CLASSES[number % 7] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((224, 224), Image.Resampling.BILINEAR).save(path)
    return folder / "model", str(folder / "images")


def settings(kind: str, step: str, num_units: int) -> list[dict[str, Any]]:
    """Positions over the whole range of one slider, in the order of a reader who sweeps it."""
    if kind == "angle":
        return [{"low_deg": float(deg), "compensation": step} for deg in np.arange(1, 31, 1.5)]
    if kind == "norm":
        stds = np.arange(0.1, 3, 0.2)
        return [{"low_deg": 9.0, "norm_std": float(s), "compensation": step} for s in stds]
    keeps = sorted({round(k) for k in np.geomspace(4, num_units, 20)}, reverse=True)
    rule = "pairwise" if kind == "keep" else "cluster"
    return [{"rule": rule, "keep": keep, "compensation": step} for keep in keeps]


@dataclass(frozen=True)
class Moves:
    """Times of one kind of move: by the clock and of the processor, in seconds."""

    wall: list[float]
    cpu: list[float]
    kept: list[int]


def moves(explorer: Explorer, kind: str, step: str, repeats: int) -> Moves:
    """Every position of a sweep, the least of some repeats, nothing remembered between them."""
    plain = settings(kind, step, explorer.num_units)
    wall, cpu = np.full(len(plain), np.inf), np.full(len(plain), np.inf)
    kept = [0] * len(plain)
    for _ in range(repeats):
        explorer.table.known.clear()
        for k, one in enumerate(plain):
            explorer.known.clear()
            started, before = time.perf_counter(), time.process_time()
            kept[k] = cut(explorer, parse_request(one, num_units=explorer.num_units))["num_kept"]
            cpu[k] = min(cpu[k], time.process_time() - before)
            wall[k] = min(wall[k], time.perf_counter() - started)
    return Moves(wall.tolist(), cpu.tolist(), kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--group-by")
    parser.add_argument("--layer", default="fc7")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    words = parser.parse_args()
    if (words.model is None) != (words.data is None):
        parser.error("give MODEL and DATA, or neither")
    torch.set_num_threads(words.threads)
    with tempfile.TemporaryDirectory() as folder:
        model, data, cache = words.model, words.data, words.cache or cache_dir()
        if model is None:
            model, data = drawn_place(Path(folder), words.layer)
            cache = Path(folder) / "cache"
        started = time.perf_counter()
        changes = {"group_by": words.group_by}
        explorer = open_explorer(
            find_location(model, data), words.layer, changes=changes, cache=cache
        )
        opening = time.perf_counter() - started
        name = "random AlexNet" if words.model is None else Path(data).name
        print(
            f"{datetime.date.today().isoformat()}, {words.threads} threads, {platform.machine()}, "
            f"torch {torch.__version__}; opened in {opening:.1f} s\n\n"
            "| network | layer | slider | weights | units kept | moves | median, ms | slowest, ms "
            f"| processor, median and most, ms | within {1000 * LIMIT_S:.0f} ms |\n"
            "|---|---|---|---|---|---|---|---|---|---|"
        )
        for kind in ("angle", "norm", "keep", "groups"):
            for step in STEPS:
                found = moves(explorer, kind, step, words.repeats)
                wall, cpu = np.array(found.wall), np.array(found.cpu)
                inside = int((wall <= LIMIT_S).sum())
                print(
                    f"| {name} | {words.layer} | {kind} | {step} | {min(found.kept)} to "
                    f"{max(found.kept)} | {len(wall)} | {1000 * np.median(wall):.0f} | "
                    f"{1000 * wall.max():.0f} | {1000 * np.median(cpu):.0f}, "
                    f"{1000 * cpu.max():.0f} | {inside} of {len(wall)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
