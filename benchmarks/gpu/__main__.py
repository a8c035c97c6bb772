"""What one graphics card does: all pairs, trainings, pruning, with plain PyTorch in the same call.

Each part runs by itself (`--parts`), has a limit of seconds, and its figures are written to the
JSON file as soon as they are there: a run that is cut off keeps what it had. A part that fails
leaves its traceback. `--smoke` compares the kernels with the CPU and times them, in some seconds.

    PYTHONPATH=src python benchmarks/gpu --smoke
    PYTHONPATH=src python benchmarks/gpu --json gpu.json
    PYTHONPATH=src python benchmarks/gpu --parts pairs resnet50 --json gpu.json

It needs a checkout, PyTorch for CUDA with torchvision and Triton, and timm, safetensors, scipy,
filelock, pillow, rich, typer and jinja2. Wheels worth taking along where there is no network:
torch-pruning (measured beside ours) and plotly with narwhals (the page of `paper`). A part that
lacks a package says so. All parts take some four minutes on one H200 with 16 cores; `--seconds`
bounds them together, the last ones being left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for imports of `shared`

STARTED = time.perf_counter()
Row = dict[str, Any]


def elapsed() -> float:
    """Seconds since this program started."""
    return round(time.perf_counter() - STARTED, 2)


@contextmanager
def time_limit(seconds: float) -> Generator[None]:
    """Raise TimeoutError in the block after so many seconds."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Report:
    """Figures of the parts, in a JSON file that is rewritten after each."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: Row = {}

    def add(self, name: str, row: Row) -> None:
        """Keep and print what a part, or a piece of one, has found."""
        self.rows[name] = {**self.rows.get(name, {}), **row}
        print(f"[{elapsed():6.1f} s] {name}: {json.dumps(row)}", flush=True)
        if self.path is not None:
            temporary = self.path.with_suffix(".part")
            temporary.write_text(json.dumps(self.rows, indent=1) + "\n")
            temporary.replace(self.path)

    def run(self, name: str, part: Callable[[Report], None], seconds: float) -> None:
        """Run a part within a limit; its failure is a figure too."""
        started = time.perf_counter()
        told: list[str] = []
        try:
            with warnings.catch_warnings(record=True) as caught, time_limit(seconds):
                warnings.simplefilter("always")
                part(self)
            told = sorted({f"{w.category.__name__}: {w.message}" for w in caught})
        except BaseException as error:
            self.add(
                name, {"failed": str(error)[:500], "traceback": traceback.format_exc()[-4000:]}
            )
            if isinstance(error, KeyboardInterrupt):
                raise
        more: Row = {"warnings": [text[:300] for text in told[:8]]} if told else {}
        self.add(name, {"part_seconds": round(time.perf_counter() - started, 2), **more})


def environment(report: Report) -> None:
    """The card, the versions, and what is missing."""
    import torch

    modules = ("triton", "torchvision", "timm", "torch_pruning", "plotly", "optuna", "sklearn")
    row: Row = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "compiler": shutil.which("gcc") or shutil.which("cc"),
        "missing": [name for name in (*modules, "resvg_py") if find_spec(name) is None],
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    if find_spec("triton") is not None:
        import triton

        row["triton"] = triton.__version__
    report.add("environment", row)


def rate(report: Report) -> None:
    """Operations per second of one large bfloat16 product."""
    from parts import bfloat16_rate

    report.add("rate", {"bfloat16_tflops": round(bfloat16_rate() / 1e12, 1)})


# Smoke: the kernels against PyTorch and the CPU


def _same(found: Any, expected: Any) -> Row:
    import torch

    same = torch.equal(found.i.cpu(), expected.i.cpu()) and torch.equal(
        found.j.cpu(), expected.j.cpu()
    )
    row: Row = {"pairs": len(found), "same_pairs": same}
    if same and len(found):
        difference = (found.angle_deg.cpu() - expected.angle_deg.cpu()).abs().max()
        row["max_difference_deg"] = float(difference)
    return row


def smoke_pairs(report: Report) -> None:
    """The set of pairs against the CPU's, on few units; the kernel is used however few they are."""
    import torch

    from secateurs.prune.similarity import fused
    from secateurs.prune.similarity.angles import similar_pairs
    from shared.angle_ways import low_threshold, make

    fused.FROM_UNITS = 0
    rows: Row = {}
    for kind, normalise in (("centred", "centre"), ("sparse", "minmax")):
        x = make(kind, 392, 6000)
        low = low_threshold(kind, x) + 2
        for name, limits in (("both", (low, 165.0)), ("low", (low, None)), ("high", (0, 100.0))):
            if name == "high" and kind == "sparse":
                continue
            expected = similar_pairs(x, *limits, normalise=normalise)
            found = similar_pairs(x.cuda(), *limits, normalise=normalise)
            rows[f"{kind} {name}"] = _same(found, expected)
    fused.FROM_UNITS = 16_384
    rows["obstacle"] = fused.obstacle(torch.device("cuda:0"))
    report.add("smoke_pairs", rows)


SMOKE_S = 22  # seconds after which no further tile is compiled
CONFIGURATIONS = (
    (128, 128, 64, 4, 3),
    (128, 256, 64, 8, 3),
    (128, 128, 32, 4, 4),
    (128, 256, 32, 8, 4),
)


def smoke_tiles(report: Report) -> None:
    """Milliseconds of the screen alone on 131,072 x 392 with several tiles of the kernel."""
    import torch

    from parts import timed
    from secateurs.prune.similarity import fused
    from secateurs.prune.similarity.normalise import directions
    from secateurs.prune.similarity.tiles import thresholds, vectors
    from shared.angle_ways import make

    units = 131_072
    source = directions(make("centred", 392, units, "cuda"), normalise="centre")
    every = torch.arange(units, device="cuda")
    for numbers in CONFIGURATIONS:
        if elapsed() > SMOKE_S:
            break
        tile = fused.Tile(*numbers)
        ready = vectors(source, every, thresholds(15, 165), apart=tile.block_k)
        started = time.perf_counter()
        left = fused.screened(ready.screen, 0, units, tile=tile)
        first = time.perf_counter() - started
        again = partial(fused.screened, ready.screen, 0, units, tile=tile)
        seconds, _ = timed(again, repeats=3)
        operations = float(units) ** 2 * 392
        name = " ".join(map(str, numbers))
        row = {
            "ms": round(seconds * 1e3, 2),
            "tflops": round(operations / seconds / 1e12, 1),
            "first_s": round(first, 2),
            "left": None if left is None else len(left),
        }
        report.add("smoke_tiles", {name: row})


def smoke_large(report: Report) -> None:
    """All of 131,072 x 392: the kernel, and the same by PyTorch's tiles."""
    import torch

    from parts import timed
    from secateurs.prune.similarity.angles import similar_pairs
    from shared.angle_ways import make

    x = make("centred", 392, 131_072, "cuda")
    ours = lambda: similar_pairs(x, 15, 165, normalise="centre")  # noqa: E731
    ours()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds, found = timed(ours, repeats=3)
    added = (torch.cuda.max_memory_allocated() - before) / 2**20
    plain, expected = timed(
        lambda: similar_pairs(x, 15, 165, normalise="centre", tile=8192), repeats=1
    )
    row = {"ms": round(seconds * 1e3, 1), "tiles_ms": round(plain * 1e3, 1)}
    report.add("smoke_large", row | {"added_mib": round(added)} | _same(found, expected))


SMOKE: dict[str, Callable[[Report], None]] = {
    "environment": environment,
    "rate": rate,
    "smoke_pairs": smoke_pairs,
    "smoke_large": smoke_large,
    "smoke_tiles": smoke_tiles,
}


def parts(
    folder: Path, weights: str, *, tiny: bool
) -> dict[str, tuple[Callable[[Report], None], float]]:
    """What can be asked for, in order, each with its limit in seconds."""
    import parts as of
    import waits as more

    if tiny:
        of.DEVICE, of.FRAMES, of.IMAGES, more.STEPS = "cpu", 42, 8, 1
        return {
            "environment": (environment, 20),
            "rate": (rate, 20),
            "pairs_small": (lambda r: of.pairs(r.add, 2000, plain=True), 30),
            "pairs_large": (lambda r: of.pairs(r.add, 3000, plain=False), 30),
            "table1": (
                lambda r: of.table1(r.add, folder, weights, epochs=1, runs=1, depths=(7,)),
                200,
            ),
            "resnet50": (lambda r: of.prune_network(r.add, "resnet18", size=64), 200),
            "vit_b_16": (lambda r: of.prune_network(r.add, "mobilenet_v2", size=64), 200),
            "plain_training": (lambda r: of.plain_training(r.add, folder, workers=0), 200),
            "widths": (lambda r: of.widths(r.add), 200),
            "waits": (lambda r: more.waits(r.add), 200),
            "graph_step": (lambda r: more.graph_step(r.add, num=4), 200),
            "paper": (lambda r: of.paper(r.add, folder, weights), 5),
        }
    return {
        "environment": (environment, 20),
        "rate": (rate, 20),
        "pairs_small": (lambda r: of.pairs(r.add, 131_072, plain=True), 30),
        "pairs_large": (lambda r: of.pairs(r.add, 1_048_576, plain=False), 40),
        "table1": (lambda r: of.table1(r.add, folder, weights), 80),
        "resnet50": (lambda r: of.prune_network(r.add, "resnet50"), 70),
        "vit_b_16": (lambda r: of.prune_network(r.add, "vit_b_16"), 70),
        "plain_training": (lambda r: of.plain_training(r.add, folder), 30),
        "widths": (lambda r: of.widths(r.add), 40),
        "waits": (lambda r: more.waits(r.add), 30),
        "graph_step": (lambda r: more.graph_step(r.add), 20),
        "paper": (lambda r: of.paper(r.add, folder, weights), 200),
    }


NAMES = (
    *("environment", "rate", "pairs_small", "pairs_large", "table1", "resnet50", "vit_b_16"),
    *("plain_training", "widths", "waits", "graph_step", "paper"),
)


def main() -> int:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="check the kernels, some seconds")
    parser.add_argument("--parts", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--seconds", type=float, default=235, help="for all parts together")
    parser.add_argument("--weights", default="", help="file of AlexNet's weights")
    parser.add_argument("--tiny", action="store_true", help="try the parts on a CPU, small")
    parser.add_argument("--json", type=Path, help="file that holds the figures")
    arguments = parser.parse_args()
    from parts import workplace

    report = Report(arguments.json)
    with workplace() as folder:
        if arguments.smoke:
            for name, part in SMOKE.items():
                report.run(name, part, 60)
        else:
            known = parts(Path(folder), arguments.weights, tiny=arguments.tiny)
            for name in arguments.parts:
                part, limit = known[name]
                left = arguments.seconds - elapsed()
                if left < 3:
                    report.add(name, {"left_out": "no time left"})
                    continue
                report.run(name, part, min(limit, left))
    print(json.dumps(report.rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
