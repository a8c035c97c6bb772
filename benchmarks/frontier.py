"""The default study over several networks, by the command, on several splits.

For each split s: `secateurs study DATA --seed s`, everything else as given. What it recommends, its
accuracy on validation and test, size and time, and the same for the best network of every kind on
validation, go into the JSON file after each split; splits that are in it are not run again. Test
accuracies of other networks than the recommended one are not looked at.

    python benchmarks/frontier.py DATA --store DIR --json FILE -- --group-by REGEX
    python benchmarks/frontier.py FILE.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from secateurs.files import write_json
from secateurs.study.sweep.statistics import summarise

Row = dict[str, Any]


def study(data: str, words: list[str], split: int, store: Path) -> Row:
    """One split's study by the command; what the table needs of its results."""
    out = store / f"split{split}"
    started = time.perf_counter()
    command = [sys.executable, "-m", "secateurs", "study", data, "--seed", str(split)]
    subprocess.run([*command, "--out", str(out), "--progress", "plain", *words], check=True)
    seconds = time.perf_counter() - started
    results = json.loads((out / "results.json").read_text())
    final, times = results["recommended"], results["latency"]["ms"]
    points = [row for row in results["points"] if not row.get("reason")]
    return {
        "split": split,
        "seconds": seconds,
        "recommended": results["answer"]["name"],
        "test_accuracy": final["test"]["accuracy"],
        "num_test": final["test"]["num_images"],
        "points": [
            {
                "name": row["name"],
                "kind": row["kind"],
                "val_accuracy": row["val"]["accuracy"],
                "mb": row["cost"]["file_bytes"] / 1e6,
                "macs": row["cost"]["macs"],
                "ms": times[row["name"]]["median"],
            }
            for row in points
        ],
    }


def table(measured: Row) -> str:
    """The figures as a Markdown table, a row a split, and the mean with its interval."""
    lines = [
        f"{measured['date']}, {measured['machine']}; `{measured['command']}`",
        "",
        "| split | recommended | MB | ms | validation | test | time of the study |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in measured["rows"]:
        point = next(one for one in row["points"] if one["name"] == row["recommended"])
        lines.append(
            f"| {row['split']} | {row['recommended']} | {point['mb']:.1f} | {point['ms']:.1f} | "
            f"{point['val_accuracy']:.1%} | {row['test_accuracy']:.1%} | {row['seconds']:.0f} s |"
        )
    found = summarise([row["test_accuracy"] for row in measured["rows"]])
    interval = "" if found.low is None else f" ({found.low:.1%} to {found.high:.1%})"
    lines.append(f"| mean | | | | | {found.mean:.1%}{interval} | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("data", help="images, or a file of figures to print")
    words.add_argument("--splits", type=int, default=5)
    words.add_argument("--store", type=Path)
    words.add_argument("--json", type=Path, default=Path("frontier.json"))
    words.add_argument("more", nargs="*", help="further options of the command, after --")
    given = words.parse_args()
    if given.data.endswith(".json"):
        print(table(json.loads(Path(given.data).read_text())), end="")
        return
    measured: Row = {"rows": []}
    if given.json.exists():
        measured = json.loads(given.json.read_text())
    measured |= {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "command": " ".join(["secateurs study", Path(given.data).name, *given.more]),
    }
    done = {row["split"] for row in measured["rows"]}
    for split in range(given.splits):
        if split not in done:
            measured["rows"].append(study(given.data, given.more, split, given.store))
            write_json(given.json, measured)
    print(table(measured), end="")


if __name__ == "__main__":
    main()
