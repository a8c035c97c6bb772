"""All pairs beyond an angle: ours against the usual ways, in time and added peak memory.

Each way runs in a process of its own on the same data, drawn from a seed, in two kinds: centred
random vectors (one in twenty a noisy copy of another), and non-negative sparse activations with
dead units, at a lower threshold that one pair in ten thousand passes. A way that needs more memory
than `--memory-gib` is left out, and said. Faiss is measured where it is installed.

    python benchmarks/angles.py --units 4096 32768 --samples 392 --threads 2
"""

from __future__ import annotations

import argparse
import json
import math
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from secateurs.prune.angles import angle_histogram, similar_pairs

HIGH_DEG = 165.0
LOOP_PAIRS = 20_000
BLOCK = 1024


def make(kind: str, samples: int, units: int) -> torch.Tensor:
    """Activations (samples, units) of one kind, the same for the same sizes."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    if kind == "centred":
        x = normal(samples, units)
        copies = torch.arange(20, units, 20)
        x[:, copies] = x[:, copies - 10] + 0.1 * normal(samples, len(copies))
        return x
    x = normal(samples, 64) @ normal(64, units) / 8
    x += 0.6 * normal(samples, units) + 0.4 * normal(units) - 1
    x = x.clamp_(min=0)
    x[:, ::8] = 0
    return x


def low_threshold(kind: str, x: torch.Tensor) -> float:
    """Degrees: 15, or for sparse activations what one live pair in ten thousand is below."""
    if kind == "centred":
        return 15.0
    histogram = angle_histogram(x, bins=18_000)
    below = histogram.counts.cumsum(0) / histogram.counts.sum()
    return float(histogram.edges[int((below < 1e-4).sum()) + 1])


def unit_vectors(kind: str, x: torch.Tensor) -> torch.Tensor:
    """Normalised rows (units, samples) for the other ways, dead units left out, in float32."""
    x = x[:, x.amax(0) > x.amin(0)]
    x = x - x.mean(0) if kind == "centred" else (x - x.min()) / (x.max() - x.min()) - 0.5
    return (x / torch.linalg.vector_norm(x, dim=0)).T.contiguous()


Way = Callable[[str, torch.Tensor, float], int]


def double_loop(kind: str, x: torch.Tensor, low_deg: float) -> int:
    """Plain Python and NumPy, one pair at a time: `LOOP_PAIRS` of them, extrapolated by main."""
    columns = unit_vectors(kind, x).numpy()
    found = done = 0
    for i in range(len(columns)):
        for j in range(i + 1, len(columns)):
            cosine = columns[i] @ columns[j]
            cosine /= np.linalg.norm(columns[i]) * np.linalg.norm(columns[j])
            angle = math.degrees(math.acos(max(-1.0, min(1.0, float(cosine)))))
            found += angle < low_deg or angle > HIGH_DEG
            done += 1
            if done == LOOP_PAIRS:
                return found
    return found


def _cosines(low_deg: float) -> tuple[float, float]:
    return math.cos(math.radians(low_deg)), math.cos(math.radians(HIGH_DEG))


def scikit_learn(kind: str, x: torch.Tensor, low_deg: float) -> int:
    """cosine_similarity of everything with everything."""
    from sklearn.metrics.pairwise import cosine_similarity

    above, below = _cosines(low_deg)
    cosine = cosine_similarity(unit_vectors(kind, x).numpy())
    i, j = np.nonzero(np.triu((cosine > above) | (cosine < below), 1))
    np.degrees(np.arccos(np.clip(cosine[i, j], -1, 1)))
    return len(i)


def numpy_full(kind: str, x: torch.Tensor, low_deg: float) -> int:
    """One NumPy product, cosine thresholds."""
    above, below = _cosines(low_deg)
    u = unit_vectors(kind, x).numpy()
    cosine = u @ u.T
    i, j = np.nonzero(np.triu((cosine > above) | (cosine < below), 1))
    np.degrees(np.arccos(np.clip(cosine[i, j], -1, 1)))
    return len(i)


def numpy_blocked(kind: str, x: torch.Tensor, low_deg: float) -> int:
    """NumPy products of blocks of rows with everything."""
    above, below = _cosines(low_deg)
    u = unit_vectors(kind, x).numpy()
    found = 0
    for top in range(0, len(u), BLOCK):
        for left in range(0, len(u), BLOCK):
            cosine = u[top : top + BLOCK] @ u[left : left + BLOCK].T
            i, j = np.nonzero((cosine > above) | (cosine < below))
            keep = i + top < j + left
            np.degrees(np.arccos(np.clip(cosine[i[keep], j[keep]], -1, 1)))
            found += int(keep.sum())
    return found


def torch_full(kind: str, x: torch.Tensor, low_deg: float) -> int:
    """One PyTorch product, cosine thresholds."""
    above, below = _cosines(low_deg)
    u = unit_vectors(kind, x)
    cosine = u @ u.T
    i, j = ((cosine > above) | (cosine < below)).triu_(1).nonzero(as_tuple=True)
    cosine[i, j].clamp_(-1, 1).acos_().rad2deg_()
    return len(i)


def torch_blocked(kind: str, x: torch.Tensor, low_deg: float) -> int:
    """PyTorch products of square blocks, cosine thresholds: what ours is compared with."""
    above, below = _cosines(low_deg)
    u = unit_vectors(kind, x)
    parts: list[tuple[torch.Tensor, ...]] = []
    for top in range(0, len(u), BLOCK):
        for left in range(0, len(u), BLOCK):
            cosine = u[top : top + BLOCK] @ u[left : left + BLOCK].T
            i, j = ((cosine > above) | (cosine < below)).nonzero(as_tuple=True)
            keep = i + top < j + left
            i, j = i[keep], j[keep]
            parts.append((i + top, j + left, cosine[i, j].clamp_(-1, 1).acos_().rad2deg_()))
    return len(torch.cat([part[0] for part in parts]))


def faiss_range(kind: str, x: torch.Tensor, low_deg: float) -> int:
    """Faiss's flat inner-product index, both signs."""
    import faiss

    above, below = _cosines(low_deg)
    u = unit_vectors(kind, x).numpy()
    index = faiss.IndexFlatIP(u.shape[1])
    index.add(u)
    found = 0
    for sign, radius in ((1, above), (-1, -below)):
        limits, _, ids = index.range_search(sign * u, radius)
        rows = np.repeat(np.arange(len(u)), np.diff(limits).astype(np.int64))
        found += int((rows < ids).sum())
    return found


def ours(kind: str, x: torch.Tensor, low_deg: float) -> int:
    """secateurs.prune.angles.similar_pairs."""
    normalise = "centre" if kind == "centred" else "minmax"
    return len(similar_pairs(x, low_deg, HIGH_DEG, normalise=normalise))


WAYS: dict[str, Way] = {
    "double loop": double_loop,
    "scikit-learn": scikit_learn,
    "faiss": faiss_range,
    "numpy full": numpy_full,
    "numpy blocked": numpy_blocked,
    "torch full": torch_full,
    "torch blocked": torch_blocked,
    "ours": ours,
}
FULL = {"scikit-learn": 3, "numpy full": 2, "torch full": 2}  # times the matrix of all cosines


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
    found = 0
    for _ in range(repeats):
        started = time.perf_counter()
        found = run(kind, x, low_deg)
        seconds.append(time.perf_counter() - started)
    result = {
        "seconds": min(seconds),
        "added_mib": peak_mib() - before,
        "pairs": found,
        "low_deg": low_deg,
    }
    if way == "double loop":
        live = int((x.amax(0) > x.amin(0)).sum())
        result |= {"seconds": min(seconds) * live * (live - 1) / 2 / LOOP_PAIRS, "pairs": None}
    print(json.dumps(result))


def table(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Measure every way on every size and kind, printing a row each."""
    rows: list[dict[str, object]] = []
    head = f"{'kind':8} {'units':>7} {'samples':>7}  {'way':14} {'seconds':>10} {'added MiB':>9}"
    print(f"{head} {'pairs':>9}  against torch blocked")
    for kind in arguments.kinds:
        for units in arguments.units:
            for samples in arguments.samples:
                base: float | None = None
                for way in arguments.ways:
                    gib = FULL.get(way, 0) * units * units * 4 / 2**30
                    if gib > arguments.memory_gib:
                        print(f"{kind:8} {units:7} {samples:7}  {way:14} needs {gib:.0f} GiB")
                        continue
                    sizes = [kind, str(samples), str(units)]
                    repeats = ["1" if way == "double loop" else str(arguments.repeats)]
                    command = [sys.executable, __file__, "--one", way, *sizes, *repeats]
                    command += ["--threads", str(arguments.threads)]
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                    if done.returncode:
                        reason = done.stderr.strip().splitlines()[-1:]
                        print(f"{kind:8} {units:7} {samples:7}  {way:14} {' '.join(reason)}")
                        continue
                    row = json.loads(done.stdout)
                    if way == "torch blocked":
                        base = row["seconds"]
                    ratio = f"{row['seconds'] / base:.2f} x" if base else ""
                    pairs = "" if row["pairs"] is None else row["pairs"]
                    print(
                        f"{kind:8} {units:7} {samples:7}  {way:14} {row['seconds']:10.3f} "
                        f"{row['added_mib']:9.0f} {pairs:>9}  {ratio}",
                        flush=True,
                    )
                    rows.append(
                        {"kind": kind, "units": units, "samples": samples, "way": way, **row}
                    )
    return rows


def main() -> None:
    """Measure and print; `--json FILE` keeps the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kinds", nargs="+", default=["centred", "sparse"])
    parser.add_argument("--units", nargs="+", type=int, default=[4096, 32768])
    parser.add_argument("--samples", nargs="+", type=int, default=[392])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-gib", type=float, default=8.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        way, kind, samples, units, repeats = arguments.one
        measure(way, kind, int(samples), int(units), int(repeats), arguments.threads)
        return
    rows = table(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
