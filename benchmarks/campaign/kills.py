"""Processes killed at random moments and at every call that changes a file, then run again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from compare import Tree, differences, leftovers, noise_of, read_tree
from tiny import Command, spawn, wait

# Audit events (PEP 578) of calls that change the file system; each is raised before the call.
CHANGES = frozenset(
    {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink",
     "os.chmod"}
)  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
KILLED = 137


@dataclass
class World:
    """Where a campaign works, and what its commands give when nothing disturbs them."""

    root: Path
    data: Path
    model: Path
    expected: dict[str, Tree] = field(default_factory=dict)
    noise: dict[str, set[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def line(self, command: Command, place: Path) -> list[str]:
        """The command's arguments in a trial's own folder."""
        return command.line(
            out=place / "out", data=self.data, model=self.model, cache=place / "cache"
        )


@dataclass
class Tally:
    """What came of a number of trials."""

    tried: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, trouble: str | None) -> None:
        """Count a trial, and keep what went wrong in it."""
        self.tried += 1
        if trouble:
            self.wrong.append(trouble)


def counting(place: Path, stop_at: int | None, report: Path | None) -> Callable[[], None]:
    """A function that, in a forked process, counts changes below `place` and stops at the n-th.

    The call of that number is not made: the process ends as if killed, buffers unwritten.
    """

    def start() -> None:
        below, seen = str(place), 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if event == "open":
                flags = arguments[2]
                if not isinstance(flags, int) or not flags & WRITES:
                    return
            elif event not in CHANGES:
                return
            if not str(arguments[0]).startswith(below):
                return
            seen += 1
            if seen == stop_at:
                os._exit(KILLED)
            if report is not None:
                os.pwrite(log, str(seen).encode().ljust(12), 0)

        log = -1 if report is None else os.open(report, os.O_WRONLY | os.O_CREAT)
        sys.addaudithook(hook)

    return start


def undisturbed(world: World, command: Command) -> None:
    """Run a command twice and keep what both runs agree on, its time and its number of calls."""
    trees: list[Tree] = []
    for number in range(2):
        place = fresh(world.root / f"reference-{number}")
        report = world.root / "calls"
        started = time.monotonic()
        before = counting(place, None, report)
        code = wait(spawn(world.line(command, place), place / "log", before=before))
        world.seconds[command.name] = time.monotonic() - started
        assert code == 0, f"{command.name}: {(place / 'log').read_text()[-2000:]}"
        world.calls[command.name] = int(report.read_text())
        trees.append(read_tree(place / "out"))
        assert not leftovers(place / "out", place / "cache"), leftovers(place)
    world.expected[command.name] = trees[0]
    world.noise[command.name] = noise_of(*trees)


def fresh(place: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def finish(world: World, command: Command, place: Path, what: str) -> str | None:
    """Run a command again after a kill; what is wrong with its end, None when nothing is."""
    code = wait(spawn(world.line(command, place), place / "log"))
    if code != 0:
        last = (place / "log").read_text(errors="replace").strip().splitlines()[-1:]
        return f"{what}: the same command ended with {code}: {' '.join(last)[:300]}"
    away = differences(
        world.expected[command.name],
        read_tree(place / "out"),
        noise=world.noise[command.name],
    )
    if away:
        return f"{what}: {len(away)} values differ (first: {away[0]})"
    left = leftovers(place / "out", place / "cache")
    return f"{what}: left behind {left[:3]}" if left else None


def at_call(world: World, command: Command, number: int) -> str | None:
    """Kill before the n-th change of the file system, then run again."""
    place = fresh(world.root / "trial")
    before = counting(place, number, None)
    code = wait(spawn(world.line(command, place), place / "log", before=before))
    what = f"{command.name}, killed before change {number} of {world.calls[command.name]}"
    if code not in (KILLED, 0):
        return f"{what}: ended with {code} instead"
    return finish(world, command, place, what)


def at_random(world: World, command: Command, chance: random.Random) -> str | None:
    """Send a signal at a random moment, up to three times, then run to the end."""
    place = fresh(world.root / "trial")
    sent: list[str] = []
    for _ in range(chance.randint(1, 3)):
        number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        process = spawn(world.line(command, place), place / "log")
        time.sleep(chance.uniform(0, 1.1 * world.seconds[command.name]))
        os.kill(process, number)
        code = wait(process)
        sent.append(f"{signal.Signals(number).name} ({code})")
        allowed = {0, -number, 128 + number, 130}
        if code not in allowed:
            last = (place / "log").read_text(errors="replace").strip().splitlines()[-1:]
            return f"{command.name}, {', '.join(sent)}: unexpected exit code: {' '.join(last)}"
    return finish(world, command, place, f"{command.name}, {', '.join(sent)}")
