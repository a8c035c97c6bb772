"""The default study over several networks, by the command, on several splits.

For each split s: `secateurs study DATA --seed s`, everything else as given. What it recommends, its
accuracy on validation and test, size and time, and the same for every network of the frontier, go
into the JSON file after each split; splits that are in it are not run again. The study tests the
recommended network alone; the others are tested here, by `secateurs evaluate`, once it has ended.

    python benchmarks/studies/frontier.py DATA --store DIR --json FILE --jobs 2 -- --group-by REGEX
    python benchmarks/studies/frontier.py FILE.json
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from secateurs.files import write_json
from secateurs.study.sweep.statistics import summarise

sys.path.insert(0, str(Path(__file__).parents[1]))

from shared.machine import machine

Row = dict[str, Any]


def study(data: str, words: list[str], split: int, store: Path) -> Row:
    """One split's study by the command; what the table needs of its results."""
    out = store / f"split{split}"
    command = [sys.executable, "-m", "secateurs", "study", data, "--seed", str(split)]
    subprocess.run([*command, "--out", str(out), "--progress", "plain", *words], check=True)
    results = json.loads((out / "results.json").read_text())

    def tested(name: str) -> float:
        asked = [sys.executable, "-m", "secateurs", "evaluate", str(out / "models" / name), data]
        answer = subprocess.run(
            [*asked, "--json", "--progress", "none"], check=True, capture_output=True, text=True
        )
        return json.loads(answer.stdout)["accuracy"]

    final, times = results["recommended"], results["latency"]["ms"]
    points = [row for row in results["points"] if not row.get("reason")]
    return {
        "split": split,
        "seconds": results["timing"]["total"],
        "recommended": results["answer"]["name"],
        "test_accuracy": final["test"]["accuracy"],
        "num_test": final["test"]["num_images"],
        "points": [
            {
                "name": row["name"],
                "kind": row["kind"],
                "val_accuracy": row["val"]["accuracy"],
                "test_accuracy": tested(row["name"]),
                "mb": row["cost"]["file_bytes"] / 1e6,
                "macs": row["cost"]["macs"],
                "ms": times[row["name"]]["median"],
            }
            for row in points
        ],
        "int8": int8_of(results),
    }


def int8_of(results: Row) -> Row | None:
    """What the int8 file of the recommended network is worth; None where there is none."""
    found = (results["int8"] or {"networks": []})["networks"]
    if not found or "reason" in found[0]:
        return None
    shipped = results["int8"]["shipped"]
    return {
        "made_from": found[0]["made_from"],
        "agreement": found[0]["agreement"],
        "validation_difference": found[0]["to_float32"]["difference"],
        "num_bytes": found[0]["num_bytes"],
        "float32_bytes": found[0]["float32_bytes"],
        "shipped": shipped
        and {
            "agreement": shipped["agreement"],
            "test": shipped["test"]["accuracy"],
            "float32_test": results["recommended"]["test"]["accuracy"],
            "num_bytes": shipped["num_bytes"],
            "time_ratio": shipped["time_ratio"]["median"],
        },
    }


def table(measured: Row) -> str:
    """The figures as a Markdown table, one row for each split, and the mean with its interval."""
    lines = [
        f"{measured['date']}, {measured['machine']}; `{measured['command']}`",
        "",
        "| split | recommended | MB | ms | validation | test | time of the study |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in measured["rows"]:
        point = next(one for one in row["points"] if one["name"] == row["recommended"])
        seconds = "cut off" if row["seconds"] is None else f"{row['seconds']:.0f} s"
        lines.append(
            f"| {row['split']} | {row['recommended']} | {point['mb']:.1f} | {point['ms']:.1f} | "
            f"{point['val_accuracy']:.1%} | {row['test_accuracy']:.1%} | {seconds} |"
        )
    found = summarise([row["test_accuracy"] for row in measured["rows"]])
    interval = "" if found.low is None else f" ({found.low:.1%} to {found.high:.1%})"
    lines.append(f"| mean | | | | | {found.mean:.1%}{interval} | |")
    lines += ["", "| network | splits | MB | validation | test |", "|---|---|---|---|---|"]
    every = [point for row in measured["rows"] for point in row["points"]]
    for name in sorted({point["name"] for point in every}):
        own = [point for point in every if point["name"] == name]
        val, test = (
            sum(point[side] for point in own) / len(own)
            for side in ("val_accuracy", "test_accuracy")
        )
        mb = sum(point["mb"] for point in own) / len(own)
        lines.append(f"| {name} | {len(own)} | {mb:.1f} | {val:.1%} | {test:.1%} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("data", help="images, or a file of figures to print")
    words.add_argument("--splits", type=int, default=5)
    words.add_argument("--store", type=Path, default=Path("frontier"))
    words.add_argument("--jobs", type=int, default=1, help="studies at a time")
    words.add_argument("--json", type=Path, default=Path("frontier.json"))
    words.epilog = "further options of the command stand after --"
    mine, _, more = " ".join(map(shlex.quote, sys.argv[1:])).partition(" -- ")
    given = words.parse_args(shlex.split(mine))
    given.more = shlex.split(more)
    if given.data.endswith(".json"):
        print(table(json.loads(Path(given.data).read_text())), end="")
        return
    measured: Row = {"rows": []}
    if given.json.exists():
        measured = json.loads(given.json.read_text())
    measured |= {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "jobs": given.jobs,
        "command": " ".join(["secateurs study", Path(given.data).name, *given.more]),
    }
    done = {row["split"] for row in measured["rows"]}
    missing = [split for split in range(given.splits) if split not in done]
    with ThreadPoolExecutor(given.jobs) as pool:
        studies = [
            pool.submit(study, given.data, given.more, split, given.store) for split in missing
        ]
        for ended in as_completed(studies):
            measured["rows"].append(ended.result())
            measured["rows"].sort(key=lambda row: row["split"])
            write_json(given.json, measured)
    print(table(measured), end="")


if __name__ == "__main__":
    main()
