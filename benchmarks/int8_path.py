"""The whole path of int8 by the command line, over networks and splits.

For each network and split: `secateurs train`, `secateurs export --int8`, and with --macs the same
once more from a pruned network. The rows of these commands are collected; losses are points of
validation accuracy against the unpruned float32 network, averaged over splits, with 95% intervals
by Student's t. What is in the directory already is not made again.

    python benchmarks/int8_path.py DATA --group-by REGEX --store DIR --json FILE
    python benchmarks/int8_path.py FILE.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from frontier import machine
from secateurs.files import write_json

Row = dict[str, Any]
NETWORKS = ("mobilenet_v2", "tf_efficientnet_lite0", "alexnet")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="images, or a JSON file to print")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--recovery-epochs", type=int, default=10)
    parser.add_argument("--calibration", type=int, default=64)
    parser.add_argument("--agreement", type=float, default=0.99)
    parser.add_argument("--weights", action="append", default=[], metavar="NETWORK=FILE")
    parser.add_argument("--group-by")
    parser.add_argument("--store", type=Path, default=Path("int8-path"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.data.endswith(".json"):
        print(table(json.loads(Path(given.data).read_text())["rows"]))
        return
    rows: list[Row] = []
    for network in given.networks.split(","):
        for split in range(given.splits):
            rows += measured(network, split, given)
            if given.json:
                write_json(given.json, {"machine": machine(), "given": plain(given), "rows": rows})
    print(table(rows))


def plain(given: argparse.Namespace) -> Row:
    """The arguments that decide what is measured."""
    names = ("networks", "splits", "epochs", "macs", "recovery_epochs", "calibration", "agreement")
    return {name: getattr(given, name) for name in names}


def measured(network: str, split: int, given: argparse.Namespace) -> list[Row]:
    """The rows of one network on one split."""
    folder = given.store / f"{network}-{split}".replace(":", "-")
    weights = dict(one.split("=", 1) for one in given.weights)
    kept = [] if given.group_by is None else ["--group-by", given.group_by]
    run(
        *("train", given.data, "--backbone", network, "--seed", str(split)),
        *("--epochs", str(given.epochs), "--out", str(folder / "model"), *kept),
        *(("--weights", weights[network]) if network in weights else ()),
    )
    quantize = ["export", str(folder / "model"), given.data, "--int8"]
    quantize += ["--calibration", str(given.calibration), "--agreement", str(given.agreement)]
    jobs = {"whole": quantize}
    if given.macs:
        small = ["--macs", str(given.macs), "--recovery-epochs", str(given.recovery_epochs)]
        jobs["pruned"] = [*quantize, *small]
    rows: list[Row] = []
    for name, words in jobs.items():
        kept_file = folder / f"{name}.json"
        if not kept_file.exists():
            out = folder / f"{name}.onnx"
            write_json(kept_file, json.loads(run(*words, "--out", str(out), "--json")))
        found = json.loads(kept_file.read_text())
        first = found["rows"][0]
        for row in found["rows"]:
            if name == "pruned" and row["name"] in ("float32", "int8"):
                continue  # measured with the whole network
            rows.append(
                {
                    "network": network,
                    "split": split,
                    "file": row["name"],
                    "accuracy": row["accuracy"],
                    "loss": 100 * (row["accuracy"] - first["accuracy"]),
                    "agreement": row["agreement"],
                    "bytes": row["num_bytes"] / first["num_bytes"],
                    "ms": row["ms"]["1"]["median"] / first["ms"]["1"]["median"],
                    "float_layers": found["int8"]["chosen"]["float_layers"],
                }
            )
    return rows


def run(*words: str) -> str:
    """The output of a command of Secateurs."""
    print("secateurs", *words, file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "secateurs", *words, "--progress", "none"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


def table(rows: list[Row]) -> str:
    """Means over splits, one line for each network and file."""
    lines = [
        "| network | file | splits | accuracy | loss, points (95%) | agreement | bytes | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network, file in dict.fromkeys((row["network"], row["file"]) for row in rows):
        own = [row for row in rows if (row["network"], row["file"]) == (network, file)]
        mean = {key: float(np.mean([row[key] for row in own])) for key in own[0] if key in COLUMNS}
        lines.append(
            f"| {network} | {file} | {len(own)} | {mean['accuracy']:.1%} "
            f"| {mean['loss']:+.1f}{spread([row['loss'] for row in own])} "
            f"| {mean['agreement']:.1%} | {mean['bytes']:.3f} | {mean['ms']:.2f} |"
        )
    return "\n".join(lines)


COLUMNS = ("accuracy", "loss", "agreement", "bytes", "ms")


def spread(values: list[float]) -> str:
    """The interval of a mean, or nothing for one value."""
    if len(values) < 2:
        return ""
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f" ({np.mean(values) - half:+.1f} to {np.mean(values) + half:+.1f})"


if __name__ == "__main__":
    main()
