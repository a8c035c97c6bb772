"""Fault injection: kills, damaged files, a full disk, hostile requests; a summary at the end.

    make campaign KILLS=500 CALLS=all IMAGES=12000 MODELS=3000 RECORDS=1000 MINUTES=180
    python benchmarks/campaign --kills 20 --images 1000 --json FILE

Runs the commands of `secateurs` in forked processes on a small image set with a narrow network.
Every part stops when its share of the minutes is over; what was tried is what the summary counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import corruption
import disk
import records
import server
import tiny
from kills import Tally, World, at_call, at_random, undisturbed


def arguments() -> argparse.Namespace:
    """What to try, and how much of it."""
    known = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    known.add_argument("--kills", type=int, default=20, help="signals at random moments")
    known.add_argument("--calls", default="20", help="file-system calls per command, or all")
    known.add_argument("--images", type=int, default=500)
    known.add_argument("--models", type=int, default=200)
    known.add_argument("--weights", type=int, default=100)
    known.add_argument("--records", type=int, default=40)
    known.add_argument("--disks", type=int, default=10)
    known.add_argument("--requests", type=int, default=100)
    known.add_argument("--commands", default="", help="names of commands, all by default")
    known.add_argument("--minutes", type=float, default=30, help="for everything together")
    known.add_argument("--seed", type=int, default=0)
    known.add_argument("--json", type=Path, default=None, help="figures, written after each part")
    known.add_argument("--keep", type=Path, default=None, help="working folder, kept")
    return known.parse_args()


def repeated(count: int, until: float, one: Callable[[int], str | None]) -> Tally:
    """Try `one(number)` so many times, or until the time is over."""
    tally = Tally()
    for number in range(count):
        if time.monotonic() > until:
            break
        tally.add(one(number))
    return tally


class Summary:
    """What every part gave, printed as it comes and kept as a file."""

    def __init__(self, path: Path | None) -> None:
        self.path, self.parts = path, {}

    def add(self, name: str, tally: Tally, planned: int, started: float) -> None:
        """Report a part."""
        seconds = time.monotonic() - started
        self.parts[name] = {
            "planned": planned,
            "tried": tally.tried,
            "wrong": len(tally.wrong),
            "examples": tally.wrong[:20],
            "seconds": round(seconds, 1),
        }
        print(
            f"{name}: {tally.tried} of {planned} tried, {len(tally.wrong)} wrong, {seconds:.0f} s",
            flush=True,
        )
        for text in tally.wrong[:20]:
            print(f"  {text}", flush=True)
        if self.path is not None:
            value = {
                "date": date.today().isoformat(),
                "machine": f"{os.cpu_count()} cores, {platform.machine()}",
                "parts": self.parts,
            }
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(value, indent=1) + "\n")
            part.replace(self.path)


def main() -> int:
    """Run the campaign; the exit code is 1 when anything was wrong."""
    given = arguments()
    end = time.monotonic() + 60 * given.minutes
    root = given.keep or Path(tempfile.mkdtemp(prefix="secateurs-campaign-"))
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    tiny.narrow()
    world = World(root, tiny.write_images(root / "photos"), root / "model")
    summary, chance = Summary(given.json), random.Random(given.seed)
    line = tiny.COMMANDS[0].line(
        out=world.model, data=world.data, model=world.model, cache=root / "cache"
    )
    assert tiny.wait(tiny.spawn(line, root / "log")) == 0, (root / "log").read_text()[-2000:]
    damaged = root / "damaged"
    damaged.mkdir()

    def part(name: str, count: int, run: Callable[[], Tally]) -> None:
        if count and time.monotonic() < end:
            started = time.monotonic()
            summary.add(name, run(), count, started)

    part("damaged images", given.images, lambda: corruption.images(given.images, damaged, chance))
    part(
        "damaged models",
        given.models,
        lambda: corruption.model_files(given.models, world, damaged, chance),
    )
    part(
        "damaged weights",
        given.weights,
        lambda: corruption.weights_files(given.weights, damaged, chance),
    )
    part("requests", given.requests, lambda: server.requests(given.requests, world, chance))
    names = [name for name in given.commands.split(",") if name]
    commands = [c for c in tiny.COMMANDS if not names or c.name in names]
    for command in commands:
        undisturbed(world, command)
        print(
            f"{command.name}: {world.seconds[command.name]:.1f} s, "
            f"{world.calls[command.name]} changes of files",
            flush=True,
        )
    part(
        "damaged records and caches",
        given.records,
        lambda: records.records(given.records, world, commands, chance),
    )
    part("full disk", given.disks, lambda: disk.full(given.disks, world, commands, chance))
    part(
        "signals at random moments",
        given.kills,
        lambda: repeated(
            given.kills, end, lambda _: at_random(world, chance.choice(commands), chance)
        ),
    )
    for command in commands:
        total = world.calls[command.name]
        numbers = list(range(1, total + 1))
        chance.shuffle(numbers)
        if given.calls != "all":
            numbers = numbers[: int(given.calls)]
        part(
            f"killed at a change of files, {command.name}",
            total,
            lambda command=command, numbers=numbers: repeated(
                len(numbers), end, lambda at: at_call(world, command, numbers[at])
            ),
        )
    if given.keep is None:
        shutil.rmtree(root, ignore_errors=True)
    return int(any(value["wrong"] for value in summary.parts.values()))


if __name__ == "__main__":
    raise SystemExit(main())
