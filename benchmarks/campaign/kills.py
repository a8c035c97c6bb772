"""Processes ended by signals at random moments, then run again to their end."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compare import Tree, differences, leftovers, noise_of, read_tree
from tiny import Command, spawn, wait

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LONGEST_S = 300  # after which a command counts as one that never ends


@dataclass
class World:
    """Where a campaign works, and what its commands give when nothing disturbs them."""

    root: Path
    data: Path
    model: Path
    expected: dict[str, Tree] = field(default_factory=dict)
    noise: dict[str, set[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

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


def undisturbed(world: World, command: Command) -> None:
    """Run a command twice and keep what both runs agree on, and its time."""
    trees: list[Tree] = []
    for _ in range(2):
        # Where the trials will be as well: some files hold their own path.
        place = fresh(world.root / "trial")
        started = time.monotonic()
        code = wait(spawn(world.line(command, place), world.root / "log"))
        world.seconds[command.name] = time.monotonic() - started
        assert code == 0, f"{command.name}: {_last(world.root / 'log')}"
        trees.append(read_tree(place / "out"))
        left = leftovers(place / "out", place / "cache")
        assert not left, f"{command.name}, never killed, left {left}"
    world.expected[command.name] = trees[0]
    world.noise[command.name] = noise_of(*trees)


def fresh(place: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def finish(world: World, command: Command, place: Path, what: str) -> str | None:
    """Run a command again after a kill; what is wrong with its end, None when nothing is."""
    log = world.root / "log"
    log.write_text("")
    code = wait(spawn(world.line(command, place), log), seconds=LONGEST_S)
    if code != 0:
        return f"{what}: the same command ended with {code}: {_last(log)}"
    away = differences(
        world.expected[command.name], read_tree(place / "out"), noise=world.noise[command.name]
    )
    if away:
        return f"{what}: {len(away)} values differ: {', '.join(away[:3])}"
    left = leftovers(place / "out", place / "cache")
    return f"{what}: left behind {left[:3]}" if left else None


def _last(log: Path) -> str:
    return " ".join(log.read_text(errors="replace").strip().splitlines()[-1:])[:300]


def at_random(world: World, commands: Sequence[Command], chance: random.Random) -> str | None:
    """Send a signal to a command at a random moment, up to three times, then run it to its end."""
    command = chance.choice(commands)
    place, log = fresh(world.root / "trial"), world.root / "log"
    sent: list[str] = []
    for _ in range(chance.randint(1, 3)):
        number = chance.choice(SIGNALS)
        log.write_text("")
        process = spawn(world.line(command, place), log)
        time.sleep(chance.uniform(0, 1.1 * world.seconds[command.name]))
        os.kill(process, number)
        code = wait(process, seconds=LONGEST_S)
        sent.append(f"{signal.Signals(number).name} ({code})")
        allowed = {0, -number, 128 + number}
        if code not in allowed:
            return f"{command.name}, {', '.join(sent)}: unexpected exit code: {_last(log)}"
        if "Traceback" in log.read_text(errors="replace"):
            return f"{command.name}, {', '.join(sent)}: a traceback: {_last(log)}"
    return finish(world, command, place, f"{command.name}, {', '.join(sent)}")
