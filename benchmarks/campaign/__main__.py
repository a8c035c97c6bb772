"""Fault injection: kills, damaged files, a full disk, hostile requests; a summary at the end.

    make campaign KILLS=500 CALLS=all IMAGES=12000 MODELS=3000 RECORDS=1000 MINUTES=180
    python benchmarks/campaign --parts kills,records --kills 20 --records 40 --json FILE

Runs the commands of `secateurs` in forked processes on a small image set with a narrow network.
Every part stops when the minutes are over; what was tried is what the summary counts. FILE is
written all along. What it says of parts that are not run now is kept, so that a campaign can be
run part by part.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import broken_images
import broken_models
import disk
import quick
import records
import server
import states
import system_calls
import tiny
from kills import Tally, World, at_random, undisturbed
from summary import Summary

PARTS = ("images", "models", "weights", "requests", "kills", "calls", "records", "disks")


def arguments() -> argparse.Namespace:
    """What to try, and how much of it."""
    known = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    known.add_argument("--images", type=int, default=500)
    known.add_argument("--models", type=int, default=200)
    known.add_argument("--weights", type=int, default=100)
    known.add_argument("--requests", type=int, default=100)
    known.add_argument("--kills", type=int, default=20, help="signals at random moments")
    known.add_argument("--calls", default="20", help="states of the disk per command, or all")
    known.add_argument("--records", type=int, default=40)
    known.add_argument("--disks", type=int, default=10)
    known.add_argument("--parts", default=",".join(PARTS), help=f"[default: {','.join(PARTS)}]")
    known.add_argument("--commands", default="", help="names of commands, all by default")
    known.add_argument("--minutes", type=float, default=30, help="for everything together")
    known.add_argument("--seed", type=int, default=0)
    known.add_argument("--json", type=Path, default=None, help="figures, written all along")
    known.add_argument("--keep", type=Path, default=None, help="working folder, kept")
    return known.parse_args()


class Campaign:
    """The parts of a campaign, one after the other until the time is over."""

    def __init__(self, given: argparse.Namespace, root: Path) -> None:
        self.given, self.end = given, time.monotonic() + 60 * given.minutes
        self.summary, self.chance = Summary(given.json), random.Random(given.seed)
        self.world = World(root, tiny.write_images(root / "photos"), root / "model")
        self.damaged = root / "damaged"
        self.damaged.mkdir()
        names = [name for name in given.commands.split(",") if name]
        self.commands = [c for c in tiny.COMMANDS if not names or c.name in names]

    def over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.end

    def run(self) -> None:
        """Run the parts asked for."""
        given, world, chance = self.given, self.world, self.chance
        asked = [part for part in given.parts.split(",") if part]
        assert set(asked) <= set(PARTS), f"parts: {', '.join(PARTS)}"
        self.prepare(asked)
        if "images" in asked:
            self.summary.measure(
                "damaged images",
                given.images,
                lambda: broken_images.images(given.images, self.damaged, chance, until=self.over),
            )
        for name, number, run in (
            ("models", given.models, self.models),
            ("weights", given.weights, self.weights),
        ):
            if name in asked:
                self.summary.measure(f"damaged {name}", number, run)
        if "requests" in asked:
            self.summary.measure(
                "requests",
                given.requests,
                lambda: (server.requests(given.requests, world, chance), {}),
            )
        if "kills" in asked:
            self.repeat("signals at random moments", given.kills, self.kill)
        if "calls" in asked and system_calls.SUPPORTED:
            for command in self.commands:
                self.calls(command)
        if "records" in asked:
            self.summary.measure(
                "damaged records and caches",
                given.records,
                lambda: (
                    records.records(given.records, world, self.commands, chance, until=self.over),
                    {},
                ),
            )
        if "disks" in asked:
            self.summary.measure(
                "full disk",
                given.disks,
                lambda: (disk.full(given.disks, world, self.commands, chance, until=self.over), {}),
            )

    def prepare(self, asked: list[str]) -> None:
        """Train the model that other commands read, and run each command undisturbed."""
        world = self.world
        line = tiny.COMMANDS[0].line(
            out=world.model, data=world.data, model=world.model, cache=world.root / "cache"
        )
        log = world.root / "log"
        assert tiny.wait(tiny.spawn(line, log)) == 0, log.read_text()[-2000:]
        if not {"kills", "calls", "records", "disks"} & set(asked):
            return
        for command in self.commands:
            modules = world.root / "modules"
            place = world.root / "trial"
            tiny.wait(tiny.spawn(world.line(command, place), log, modules=modules))
            quick.preload([modules])
            undisturbed(world, command)
            print(f"{command.name}: {world.seconds[command.name]:.1f} s", flush=True)

    def models(self) -> tuple[Tally, dict[str, float]]:
        """Damaged model folders."""
        return broken_models.model_files(
            self.given.models, self.world, self.damaged, self.chance, until=self.over
        )

    def weights(self) -> tuple[Tally, dict[str, float]]:
        """Damaged weights files."""
        return broken_models.weights_files(
            self.given.weights, self.damaged, self.chance, until=self.over
        )

    def kill(self, number: int) -> str | None:
        """A command stopped at a random moment; each twelfth time the server."""
        if number % 12 == 11:
            return server.started(self.world, self.chance)
        return at_random(self.world, self.commands, self.chance)

    def calls(self, command: tiny.Command) -> None:
        """Run a command again from every state that a kill can leave."""
        if self.over():
            return
        folder = self.world.root / "states"
        found = states.record(self.world, command, folder)
        chosen = list(found.states)
        self.chance.shuffle(chosen)
        if self.given.calls != "all":
            chosen = chosen[: int(self.given.calls)]
        self.repeat(
            f"killed at a change of files, {command.name}",
            len(found.states),
            lambda number: states.resumed(self.world, command, chosen[number]),
            tries=len(chosen),
            more={"calls": found.num_calls},
        )
        shutil.rmtree(folder)

    def repeat(
        self,
        name: str,
        planned: int,
        one: Callable[[int], str | None],
        *,
        tries: int | None = None,
        more: dict[str, float] | None = None,
    ) -> None:
        """Try `one(number)` so many times, or until the time is over."""
        tally, started = Tally(), time.monotonic()
        for number in range(planned if tries is None else tries):
            if self.over():
                break
            try:
                tally.add(one(number))
            except TimeoutError as error:
                tally.add(f"{name}, {number}: {error}")
            if number % 20 == 19:
                self.summary.keep(name, tally, planned, started, more or {})
        self.summary.add(name, tally, planned, started, more or {})


def main() -> int:
    """Run the campaign; the exit code is 1 when anything was wrong."""
    given = arguments()
    root = given.keep or Path(tempfile.mkdtemp(prefix="secateurs-campaign-"))
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    quick.shorten()
    campaign = Campaign(given, root)
    try:
        campaign.run()
    finally:
        campaign.summary.print()
        if given.keep is None:
            shutil.rmtree(root, ignore_errors=True)
    return int(campaign.summary.any_wrong())


if __name__ == "__main__":
    raise SystemExit(main())
