"""A disk that is full: every command ends with one line, and goes on once there is room."""

from __future__ import annotations

import random
import resource
import signal
from collections.abc import Sequence

from kills import Tally, World, finish, fresh
from tiny import Command, spawn, wait


def full(count: int, world: World, commands: Sequence[Command], chance: random.Random) -> Tally:
    """Bound the size of a file (as a full disk, writes fail in the middle), then lift the bound."""
    tally = Tally()
    for _ in range(count):
        tally.add(_one(world, chance.choice(commands), chance))
    return tally


def _one(world: World, command: Command, chance: random.Random) -> str | None:
    place = fresh(world.root / "trial")
    bound = int(10 ** chance.uniform(4.3, 6.5))  # room for the log

    def before() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, bound))

    log = place.parent / "log"
    log.unlink(missing_ok=True)
    code = wait(spawn(world.line(command, place), log, before=before))
    text = log.read_text(errors="replace").strip()
    what = f"{command.name} with files of at most {bound} bytes"
    if code not in (0, 2):
        return f"{what}: ended with {code}: {text[-300:]}"
    if code == 2 and len(text.splitlines()) > 1:
        return f"{what}: more than a line: {text[-300:]}"
    return finish(world, command, place, what)
