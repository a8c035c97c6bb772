"""Times of commands by how long OpenMP threads spin before they sleep, idle and beside other work.

    python benchmarks/speed/waiting_threads.py --spins 300000,10000,1000,0 --json FILE

`secateurs train` and `secateurs prune` on the embedded faces, two threads, each in a process of its
own; the other work is endless loops, as many as there are cores. `GOMP_SPINCOUNT` is what differs:
300000 is the library's default, 10000 what the command line sets where nothing else is set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from secateurs.files import write_json
from shared.machine import machine

SPINS = (300_000, 10_000, 1000, 0)
TRAIN = "--backbone squeezenet1_1 --weights none --depth 0 --epochs 1 --image-size 64"
PRUNE = "--macs 0.5 --recovery-epochs 1"


@contextmanager
def busy(number: int) -> Generator[None]:
    """So many endless loops beside."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def seconds_of(words: list[str], spins: int) -> float:
    """How long a command takes."""
    environment = os.environ | {"GOMP_SPINCOUNT": str(spins), "OMP_NUM_THREADS": "2"}
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "secateurs", *words, "--quiet"],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - started


def measure(folder: Path, repeats: int, tried: tuple[int, ...]) -> list[dict[str, Any]]:
    """A row for each command, load and number of spins; these take turns."""
    images, cache = folder / "faces", ["--cache", str(folder / "cache")]
    seconds_of(["faces", str(images)], tried[0])
    times: dict[tuple[str, int, int], list[float]] = {}
    for loops in (0, os.cpu_count() or 1):
        for number in range(repeats):
            for spins in tried:
                model = folder / f"{loops}-{number}-{spins}"
                train = ["train", str(images), "--out", str(model), *TRAIN.split(), *cache]
                small = ["--out", str(model) + "-small", *PRUNE.split(), *cache]
                with busy(loops):
                    for command in (train, ["prune", str(model), str(images), *small]):
                        taken = seconds_of(command, spins)
                        print(
                            command[0], f"{loops} loops, {spins} spins: {taken:.1f} s", flush=True
                        )
                        times.setdefault((command[0], loops, spins), []).append(taken)
    return [
        {"command": command, "loops": loops, "spins": spins, "seconds": median(taken), "all": taken}
        for (command, loops, spins), taken in times.items()
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a row for each command and load, a column for each number of spins."""
    tried = list(dict.fromkeys(row["spins"] for row in rows))
    lines = [f"| command | other work | {' | '.join(f'{spins} spins' for spins in tried)} |"]
    lines.append("|---" * (2 + len(tried)) + "|")
    seconds = {(row["command"], row["loops"], row["spins"]): row["seconds"] for row in rows}
    for command, loops in dict.fromkeys((row["command"], row["loops"]) for row in rows):
        taken = " | ".join(f"{seconds[command, loops, spins]:.1f} s" for spins in tried)
        lines.append(f"| `{command}` | {f'{loops} loops' if loops else 'none'} | {taken} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--spins", default=",".join(map(str, SPINS)))
    words.add_argument("--repeats", type=int, default=1)
    words.add_argument("--json", type=Path, default=None)
    asked = words.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        rows = measure(Path(temporary), asked.repeats, tuple(map(int, asked.spins.split(","))))
    print(table(rows))
    if asked.json is not None:
        date = datetime.now(UTC).date().isoformat()
        write_json(asked.json, {"machine": machine(), "date": date, "rows": rows})
    else:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
