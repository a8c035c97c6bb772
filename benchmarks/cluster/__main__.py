"""One study over several Ray nodes: time, overhead per trial, bytes that move to each node.

Every node has one core, a cache folder of its own, and does not look at the driver's disk, so that
each is sent the images and the weights as a machine of its own would be. Nodes of one machine share
its memory bandwidth, and no more of them are started than it has cores.

    python benchmarks/cluster DATA --nodes 1,2,4 --runs 6 --json cluster.json
    python benchmarks/cluster --simulate cluster.json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from secateurs.fit.cache import PrefixCache
from secateurs.progress import Console
from secateurs.stopping import StopFlag
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import open_context
from secateurs.study.sweep.sweep import run_sweep
from secateurs.study.trials.processes import num_cores
from secateurs.study.trials.ray.connection import open_ray
from secateurs.study.trials.store import Store
from secateurs.study.trials.task import Resources
from simulation import Measured, Scale, simulate

GOAL = 0.05  # overhead of a trial of ten seconds


@contextmanager
def cluster(num_nodes: int, folder: Path) -> Generator[str]:
    """The address of a cluster of nodes with one core and a cache each."""
    from ray.cluster_utils import Cluster

    def node(number: int) -> dict[str, Any]:
        cache = str(folder / f"node{number}")
        return {"num_cpus": 1, "env_vars": {"SECATEURS_CACHE": cache}}

    found = Cluster(initialize_head=True, head_node_args=node(0) | {"include_dashboard": False})
    try:
        for number in range(1, num_nodes):
            found.add_node(**node(number))
        yield found.address
    finally:
        found.shutdown()


def measure(context: Any, num_nodes: int, folder: Path) -> dict[str, Any]:
    """The study's trials over so many nodes."""
    with cluster(num_nodes, folder) as address:
        opened = time.perf_counter()
        with open_ray(address, Resources(), shared_disk=False, progress=Console()) as crew:
            started = time.perf_counter()
            records = run_sweep(
                context,
                Store(folder / "study"),
                prefix_cache=PrefixCache(),
                executor=crew,
                stop=StopFlag(),
                progress=Console(),
            )
            seconds = time.perf_counter() - started
    timings = [record["timing"] for record in records]
    busy = sum(timing["seconds"] for timing in timings)
    moved = Counter[str]()
    for timing in timings:
        moved[timing["node"]] += timing["fetched_bytes"]
    return {
        "nodes": num_nodes,
        "num_trials": len(records),
        "seconds": seconds,
        "opening_seconds": started - opened,
        "trial_seconds": busy,
        "frozen_seconds": sum(timing["frozen_seconds"] for timing in timings),
        # What a node does beside training, per trial: scheduling, moving, writing.
        "overhead_seconds": (num_nodes * seconds - busy) / len(records),
        "bytes_per_node": dict(moved),
        "accuracies": [record["val_accuracy"] for record in records],
    }


def measure_all(given: argparse.Namespace) -> dict[str, Any]:
    """All numbers of nodes that this machine has cores for."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # all on loopback, as the next line says
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # by default tasks give way to all others
    config = StudyConfig(
        backbone=given.backbone,
        weights=given.weights,
        depths=tuple(map(int, given.depths.split(","))) if given.depths else (),
        auto_depths=not given.depths,
        image_size=given.image_size,
        runs=given.runs,
        scratch_runs=0,
        epochs=given.epochs,
        device="cpu",
        precision="float32",
    )
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="secateurs-") as name:
        context = open_context(given.data, config, cache=Path(name) / "driver")
        for number in map(int, given.nodes.split(",")):
            if number > num_cores():
                print(f"{number} nodes: left out, this machine has {num_cores()} cores")
                continue
            rows.append(measure(context, number, Path(name) / f"over{number}"))
            print(words(rows[-1]))
    same = all(row["accuracies"] == rows[0]["accuracies"] for row in rows)
    print("the same accuracies on all" if same else "the accuracies differ")
    return {"rows": rows, "same": same, "images": len(context.dataset.audit.listing.names)}


def words(row: dict[str, Any]) -> str:
    """One measurement as a line."""
    moved = ", ".join(f"{size / 2**20:.0f} MiB" for size in row["bytes_per_node"].values())
    share = row["overhead_seconds"] / 10
    return (
        f"{row['nodes']} nodes: {row['num_trials']} trials in {row['seconds']:.1f} s, "
        f"overhead {row['overhead_seconds']:.2f} s a trial ({share:.1%} of ten seconds, goal "
        f"{GOAL:.0%}), moved to each node {moved}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", default="faces")
    parser.add_argument("--nodes", default="1,2,4")
    parser.add_argument("--backbone", default="squeezenet1_1")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--depths", default="", help="numbers of frozen layers [default: auto]")
    parser.add_argument("--image-size", type=int, help="[default: the backbone's own]")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--simulate", type=Path, metavar="MEASURED", help="simulate large clusters")
    given = parser.parse_args()
    if given.simulate is None:
        found = measure_all(given)
    else:
        measured = Measured.of(json.loads(given.simulate.read_text())["rows"])
        found = {"measured": asdict(measured), "rows": simulate_all(measured)}
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def simulate_all(measured: Measured) -> list[dict[str, Any]]:
    """A study of 480 trials on 10, 100 and 1,000 nodes, with and without losses and remedies."""
    rows: list[dict[str, Any]] = []
    print("| nodes | losses | hours | efficiency | prefixes | sent GiB | driver busy | waits for |")
    print("|---|---|---|---|---|---|---|---|")
    for nodes in (10, 100, 1000):
        for scale in (
            Scale(nodes, twins=False, slow_share=0.0, loss_hours=None),
            Scale(nodes, twins=False),
            Scale(nodes, twins=True),
            Scale(nodes, twins=True, passed=True),
            Scale(nodes, twins=True, together=True),
        ):
            found = simulate(measured, scale)
            rows.append(found)
            print(found["line"])
    return rows


if __name__ == "__main__":
    main()
