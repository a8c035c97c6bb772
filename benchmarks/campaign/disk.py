"""A disk that is full: every command ends with one line, and goes on once there is room."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from compare import leftovers
from kills import LONGEST_S, Tally, World, finish, fresh
from tiny import Command, spawn, wait


def full(
    count: int,
    world: World,
    commands: Sequence[Command],
    chance: random.Random,
    *,
    until: Callable[[], bool] = lambda: False,
) -> Tally:
    """Half of the trials bound the size of a file, half use a file system of a few KiB or MiB.

    Then there is room, and the same command has to end as if nothing had been. Without the right
    to mount file systems all trials bound the size of a file.
    """
    tally = Tally()
    for number in range(count):
        if until():
            break
        command = chance.choice(commands)
        small = number % 2 == 1 and hasattr(os, "geteuid") and os.geteuid() == 0
        tally.add(_small(world, command, chance) if small else _bounded(world, command, chance))
    return tally


def _bounded(world: World, command: Command, chance: random.Random) -> str | None:
    place = fresh(world.root / "trial")
    bound = int(10 ** chance.uniform(4.3, 6.5))  # room for the log

    def before() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, bound))

    what = f"{command.name} with files of at most {bound} bytes"
    trouble = _tried(world, command, place, what, before)
    return trouble or finish(world, command, place, what)


def _small(world: World, command: Command, chance: random.Random) -> str | None:
    """On a small file system; what it holds then is copied to a roomy one and gone on with."""
    place, room = fresh(world.root / "trial"), world.root / "room"
    size = int(10 ** chance.uniform(4.5, 7))
    files = chance.choice([0, 0, 0, 5, 10, 20, 40, 80])  # of which it can hold so many, 0 any
    what = f"{command.name} on a file system of {size} bytes" + (
        f", {files} files" if files else ""
    )
    with _mounted(place, size, files):
        trouble = _tried(world, command, place, what, None)
        shutil.rmtree(room, ignore_errors=True)
        shutil.copytree(place, room, symlinks=True)
    if trouble:
        return trouble
    shutil.rmtree(place)
    room.rename(place)
    return finish(world, command, place, what)


@contextmanager
def _mounted(place: Path, size: int, files: int) -> Generator[None]:
    options = f"size={size}" + (f",nr_inodes={files}" if files else "")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _tried(
    world: World, command: Command, place: Path, what: str, before: Callable[[], None] | None
) -> str | None:
    log = world.root / "log"
    log.unlink(missing_ok=True)
    code = wait(spawn(world.line(command, place), log, before=before), seconds=LONGEST_S)
    text = log.read_text(errors="replace").strip()
    if code not in (0, 2):
        return f"{what}: ended with {code}: {text[-300:]}"
    errors = [line for line in text.splitlines() if not line.startswith(("caution:", "note:"))]
    if code == 2 and (len(errors) != 1 or "Traceback" in text):
        return f"{what}: not one line: {text[-300:]}"
    left = leftovers(place) if code == 2 else []
    return f"{what}: left behind {left[:3]}" if left else None
