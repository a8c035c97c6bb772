"""Times of networks relative to the first one's, in alternating runs of one process.

python benchmarks/speed/network_times.py alexnet mobilenet_v2 --batch 64

Random weights, 7 classes, PyTorch on this device. The ratio is the median over the rounds, with its
quartiles: load from elsewhere affects all networks of a round.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch

from secateurs.nets.backbones import build, preprocessing
from secateurs.ship.latency import compare_latency

NUM_CLASSES = 7


def main() -> None:
    """Print a row for each network."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("networks", nargs="+")
    words.add_argument("--batch", type=int, default=64)
    words.add_argument("--repeats", type=int, default=15)
    asked = words.parse_args()
    calls = {}
    for name in asked.networks:
        model = build(name, NUM_CLASSES).eval()
        size = preprocessing(name).size
        calls[name] = partial(model, torch.rand(asked.batch, 3, size, size))
    with torch.inference_mode():
        times = compare_latency(calls, repeats=asked.repeats, budget_s=600.0)
    first = np.array(times[asked.networks[0]])
    print(f"batch {asked.batch}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| network | median, ms | relative to the first | quartiles |\n|---|---|---|---|")
    for name, rounds in times.items():
        ratios = np.array(rounds) / first
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        print(f"| {name} | {np.median(rounds):.1f} | {middle:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
