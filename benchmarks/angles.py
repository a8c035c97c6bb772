"""All pairs beyond an angle: ours against the usual ways, in time and added peak memory.

Each way runs in a process of its own on the same data, drawn from a seed, in two kinds: centred
random vectors (one in twenty a noisy copy of another), and non-negative sparse activations with
dead units, at a lower threshold that one pair in ten thousand passes. A way that needs more memory
than `--memory-gib` or, by its own rate at the size before, more than `--seconds` is left out, and
said. Processor time, of all threads together, is told beside the time on the clock: on a machine
that does other work it is what can be compared. Times are the least of `--repeats`. Faiss is
measured where it is installed (`pip install secateurs[bench]`).

    python benchmarks/angles.py --units 4096 32768 131072 --samples 392 --threads 2
    python benchmarks/angles.py --units 4096 --samples 392 4000 40000
    python benchmarks/angles.py --ways greedy --kinds sparse --units 32768
    python benchmarks/angles.py --device cuda --units 131072 1048576
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from angle_ways import LOOP_PAIRS, WAYS, low_threshold, make

FULL = {"scikit-learn": 3, "numpy full": 2, "torch full": 2}  # times the matrix of all cosines


SQUARE = 8192  # side of the products that measure a card


def peak_mib() -> float:
    """Largest resident size of this process since the last `reset_peak`, in MiB."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reset_peak() -> None:
    """Start the peak anew where the system can; elsewhere it is that of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def measure(way: str, kind: str, samples: int, units: int, repeats: int, threads: int) -> None:
    """Run one way and print its result as JSON; called in a process of its own."""
    torch.set_num_threads(threads)
    x = make(kind, samples, units)
    low_deg = low_threshold(kind, x)
    run = WAYS[way]
    # Libraries load and thread pools start outside the measurement.
    run(kind, x[:, : min(units, 512)], low_deg)
    reset_peak()
    before = peak_mib()
    seconds: list[float] = []
    cpu_seconds: list[float] = []
    found = 0
    for _ in range(repeats):
        started, cpu_started = time.perf_counter(), time.process_time()
        found = run(kind, x, low_deg)
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    result = {
        "seconds": min(seconds),
        "cpu_seconds": min(cpu_seconds),
        "added_mib": peak_mib() - before,
        "pairs": found,
        "low_deg": low_deg,
    }
    if way == "double loop":
        live = int((x.amax(0) > x.amin(0)).sum())
        times = live * (live - 1) / 2 / LOOP_PAIRS
        result |= {"seconds": min(seconds) * times, "cpu_seconds": min(cpu_seconds) * times}
        result["pairs"] = None
    print(json.dumps(result))


def table(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Measure every way on every size and kind, printing a row each."""
    rows: list[dict[str, object]] = []
    rate: dict[str, float] = {}  # seconds a pair of neurons and sample, of each way
    head = f"{'kind':8} {'units':>7} {'samples':>7}  {'way':14} {'seconds':>10} {'cpu s':>10}"
    print(f"{head} {'added MiB':>9} {'pairs':>9}  against torch blocked: clock, cpu")
    for kind in arguments.kinds:
        for units in arguments.units:
            for samples in arguments.samples:
                base: dict[str, float] | None = None
                for way in arguments.ways:
                    gib = FULL.get(way, 0) * units * units * 4 / 2**30
                    if gib > arguments.memory_gib:
                        print(f"{kind:8} {units:7} {samples:7}  {way:14} needs {gib:.0f} GiB")
                        continue
                    expected = rate.get(way, 0.0) * units * units * samples
                    if expected > arguments.seconds and way != "double loop":
                        print(
                            f"{kind:8} {units:7} {samples:7}  {way:14} left out, "
                            f"about {expected:.0f} s",
                            flush=True,
                        )
                        continue
                    sizes = [kind, str(samples), str(units)]
                    once = way == "double loop" or units * units * samples > 2e12
                    repeats = ["1" if once else str(arguments.repeats)]
                    command = [sys.executable, __file__, "--one", way, *sizes, *repeats]
                    command += ["--threads", str(arguments.threads)]
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                    if done.returncode:
                        reason = done.stderr.strip().splitlines()[-1:]
                        print(f"{kind:8} {units:7} {samples:7}  {way:14} {' '.join(reason)}")
                        continue
                    row = json.loads(done.stdout)
                    rate[way] = row["seconds"] / (units * units * samples)
                    if way == "torch blocked":
                        base = row
                    ratio = ""
                    if base:
                        of = [row[key] / base[key] for key in ("seconds", "cpu_seconds")]
                        ratio = f"{of[0]:.2f} x, {of[1]:.2f} x"
                    pairs = "" if row["pairs"] is None else row["pairs"]
                    print(
                        f"{kind:8} {units:7} {samples:7}  {way:14} {row['seconds']:10.3f} "
                        f"{row['cpu_seconds']:10.3f} "
                        f"{row['added_mib']:9.0f} {pairs:>9}  {ratio}",
                        flush=True,
                    )
                    rows.append(
                        {"kind": kind, "units": units, "samples": samples, "way": way, **row}
                    )
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


def on_device(arguments: argparse.Namespace) -> list[dict[str, object]]:
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
    rows: list[dict[str, object]] = []
    for kind in arguments.kinds:
        for units in arguments.units:
            for samples in arguments.samples:
                x = make(kind, samples, units, device)
                low_deg = low_threshold(kind, x)
                WAYS["ours"](kind, x[:, : min(units, 20_000)], low_deg)
                torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_allocated(device)
                seconds: list[float] = []
                found = 0
                for _ in range(arguments.repeats):
                    torch.cuda.synchronize(device)
                    started = time.perf_counter()
                    found = WAYS["ours"](kind, x, low_deg)
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


def main() -> None:
    """Measure and print; `--json FILE` keeps the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=["centred", "sparse"])
    parser.add_argument("--units", nargs="+", type=int, default=[4096, 32768])
    parser.add_argument("--samples", nargs="+", type=int, default=[392])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-gib", type=float, default=8.0)
    parser.add_argument("--seconds", type=float, default=600.0, help="longest a way may take")
    parser.add_argument("--device", default="cpu", help="cpu or cuda: ours alone, on a card")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        way, kind, samples, units, repeats = arguments.one
        measure(way, kind, int(samples), int(units), int(repeats), arguments.threads)
        return
    arguments.ways = arguments.ways or [way for way in WAYS if way != "greedy"]
    if arguments.device != "cpu":
        rows = on_device(arguments)
    else:
        print(f"{arguments.threads} threads, load {os.getloadavg()[0]:.1f} when begun")
        rows = table(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
