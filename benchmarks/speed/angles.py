"""All pairs beyond an angle: ours against the usual ways, in time and added peak memory.

Each way runs in a process of its own on the same data, drawn from a seed, in two kinds: centred
random vectors (one in twenty a noisy copy of another), and non-negative sparse activations with
dead units, at a lower threshold that one pair in ten thousand passes. Times are the least of as
many runs as fit in some seconds (`--repeats` at most); processor time, of all threads together, is
told beside the time on the clock: on a machine that does other work it is what can be compared.

A way that would take more than `--seconds`, by its own rate at another size, goes through a share
of the rows and is extrapolated (marked *) where it can, and is left out otherwise, as is one that
needs more than `--memory-gib`. The double loop is always extrapolated, from 20,000 pairs. Faiss is
measured where it is installed (`pip install secateurs[bench]`). The rows are those of a Markdown
table.

    python benchmarks/speed/angles.py             # all sizes, both kinds: a quarter of an hour
    python benchmarks/speed/angles.py --quick     # two small sizes: a minute or two
    python benchmarks/speed/angles.py --ways ours greedy --kinds sparse --sizes 32768x392
    python benchmarks/speed/angles.py --device cuda --sizes 131072x392 1048576x392
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from shared.angle_ways import FULL, IN_PART, LOOP_PAIRS, WAYS, low_threshold, make, unit_vectors
from shared.peak_memory import peak_mib, reset_peak

SIZES = ["4096x392", "32768x392", "131072x392", "4096x4000", "4096x40000"]  # neurons, samples
QUICK = ["1024x100", "2048x392"]
SHARE = 16  # of the rows of a way that is extrapolated, one in so many
ENOUGH = 5.0  # seconds of runs after which no further one is begun
SQUARE = 8192  # side of the products that measure a card


def measure(
    way: str, kind: str, samples: int, units: int, repeats: int, threads: int, share: int
) -> None:
    """Run one way and print its result as JSON; called in a process of its own."""
    torch.set_num_threads(threads)
    x = make(kind, samples, units)
    low_deg = low_threshold(kind, x)
    run = WAYS[way]
    # Libraries load and thread pools start outside the measurement.
    run(kind, x[:, : min(units, 512)], low_deg, None)
    reset_peak()
    before = peak_mib()
    rows = units // share if share > 1 else None
    runs: list[tuple[float, float]] = []
    found = 0
    while len(runs) < repeats and sum(seconds for seconds, _ in runs) < ENOUGH:
        started, cpu_started = time.perf_counter(), time.process_time()
        found = run(kind, x, low_deg, rows)
        runs.append((time.perf_counter() - started, time.process_time() - cpu_started))
    added = peak_mib() - before
    least = [min(column) for column in zip(*runs, strict=True)]
    times = float(share)
    if way == "double loop":
        live = int((x.amax(0) > x.amin(0)).sum())
        times = live * (live - 1) / 2 / LOOP_PAIRS
    if times > 1:
        # Vectors are prepared once, however many rows follow.
        started, cpu_started = time.perf_counter(), time.process_time()
        unit_vectors(kind, x)
        once = (time.perf_counter() - started, time.process_time() - cpu_started)
        least = [
            part + max(0.0, all_of_it - part) * times
            for part, all_of_it in zip(once, least, strict=True)
        ]
    result = {"seconds": least[0], "cpu_seconds": least[1], "added_mib": added, "low_deg": low_deg}
    whole = times == 1 and way != "greedy"
    result |= {"pairs": found if whole else None, "extrapolated": times > 1, "runs": len(runs)}
    print(json.dumps(result))


def one(
    arguments: argparse.Namespace, way: str, kind: str, samples: int, units: int, share: int
) -> dict[str, Any]:
    """What `measure` prints in a process of its own; with `failed`, the reason, if it fails."""
    command = [sys.executable, __file__, "--one", way, kind, str(samples), str(units), str(share)]
    command += ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": " ".join(done.stderr.strip().splitlines()[-1:]) or "killed"}
    return json.loads(done.stdout)


def table(arguments: argparse.Namespace, sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Measure every way on every size and kind, printing a row of a Markdown table each."""
    rows: list[dict[str, Any]] = []
    rate: dict[str, float] = {}  # seconds a pair of neurons and sample, of each way
    print("| kind | neurons | samples | way | s | cpu s | added MiB | pairs | s, x | cpu, x |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for units, samples in sizes:
        for kind in arguments.kinds:
            base: dict[str, Any] | None = None
            for way in arguments.ways:
                work = float(units) ** 2 * samples
                head = f"| {kind} | {units} | {samples} | {way} |"
                gib = FULL.get(way, 0) * units * units * 4 / 2**30
                if gib > arguments.memory_gib:
                    print(f"{head} needs {gib:.0f} GiB | | | | | |")
                    continue
                slow = rate.get(way, 0.0) * work > arguments.seconds
                if slow and way not in (*IN_PART, "double loop"):
                    print(f"{head} left out, about {rate[way] * work:.0f} | | | | | |")
                    continue
                share = SHARE if slow and way in IN_PART else 1
                row = one(arguments, way, kind, samples, units, share)
                if "failed" in row:
                    print(f"{head} {row['failed']} | | | | | |", flush=True)
                    continue
                rate[way] = row["seconds"] / work
                base = row if way == "torch blocked" else base
                of = ["", ""]
                if base:
                    of = [f"{row[key] / base[key]:.2f}" for key in ("seconds", "cpu_seconds")]
                mark = "*" if row["extrapolated"] else ""
                pairs = "" if row["pairs"] is None else row["pairs"]
                print(
                    f"{head} {row['seconds']:.3f}{mark} | {row['cpu_seconds']:.3f}{mark} | "
                    f"{row['added_mib']:.0f} | {pairs} | {of[0]} | {of[1]} |",
                    flush=True,
                )
                rows.append({"kind": kind, "units": units, "samples": samples, "way": way, **row})
    return rows


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second that the card reaches in one large product of this type."""
    matrix = torch.randn(SQUARE, SQUARE, device=device).to(dtype)
    seconds: list[float] = []
    for _ in range(10):
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        _ = matrix @ matrix
        torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return 2 * SQUARE**3 / min(seconds)


def on_device(arguments: argparse.Namespace, sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Ours on a card, with the achieved fraction of its own matrix rate."""
    device = arguments.device
    if not torch.cuda.is_available():
        raise SystemExit("--device: no CUDA device here")
    bfloat16 = matrix_rate(device, torch.bfloat16)
    torch.set_float32_matmul_precision("high")
    tf32 = matrix_rate(device, torch.float32)
    torch.set_float32_matmul_precision("highest")
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}: ", end="")
    print(f"bfloat16 {bfloat16 / 1e12:.0f}, tf32 {tf32 / 1e12:.0f} TFLOP/s")
    print("kind       units samples    seconds added MiB     pairs  of bfloat16 rate  of tf32 rate")
    rows: list[dict[str, Any]] = []
    for kind in arguments.kinds:
        for units, samples in sizes:
            x = make(kind, samples, units, device)
            low_deg = low_threshold(kind, x)
            WAYS["ours"](kind, x[:, : min(units, 20_000)], low_deg, None)
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            seconds: list[float] = []
            found = 0
            for _ in range(min(3, arguments.repeats)):
                torch.cuda.synchronize(device)
                started = time.perf_counter()
                found = WAYS["ours"](kind, x, low_deg, None)
                torch.cuda.synchronize(device)
                seconds.append(time.perf_counter() - started)
            added = (torch.cuda.max_memory_allocated(device) - before) / 2**20
            rate = float(units) ** 2 * samples / min(seconds)  # half of all products
            print(
                f"{kind:8} {units:7} {samples:7} {min(seconds):10.3f} {added:9.0f} {found:9} "
                f"{rate / bfloat16:16.2f} {rate / tf32:13.2f}",
                flush=True,
            )
            row = {"kind": kind, "units": units, "samples": samples, "pairs": found}
            row |= {"seconds": min(seconds), "added_mib": added, "low_deg": low_deg}
            rows.append(row | {"bfloat16_rate": bfloat16, "tf32_rate": tf32})
            del x
    return rows


def size(text: str) -> tuple[int, int]:
    """Neurons and samples of "4096x392"."""
    units, _, samples = text.partition("x")
    return int(units), int(samples)


def main() -> None:
    """Measure and print; `--json FILE` keeps the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=["centred", "sparse"])
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="neurons x samples")
    parser.add_argument("--quick", action="store_true", help="two small sizes, few runs")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--memory-gib", type=float, default=9.0)
    parser.add_argument("--seconds", type=float, default=40.0, help="longest a run may take")
    parser.add_argument("--device", default="cpu", help="cpu or cuda: ours alone, on a card")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        way, kind, *numbers = arguments.one
        samples, units, share = map(int, numbers)
        measure(way, kind, samples, units, arguments.repeats, arguments.threads, share)
        return
    if arguments.quick:
        arguments.sizes, arguments.repeats = QUICK, min(3, arguments.repeats)
    sizes = [size(text) for text in arguments.sizes]
    if arguments.device != "cpu":
        rows = on_device(arguments, sizes)
    else:
        print(
            f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, "
            f"{arguments.threads} threads, torch {torch.__version__}, numpy {np.__version__}, "
            f"load {os.getloadavg()[0]:.1f}\n"
        )
        rows = table(arguments, sizes)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
