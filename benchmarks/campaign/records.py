"""Damaged records and caches, read again by the commands that own them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from compare import differences, read_tree
from corruption import HOSTILE, mutate
from kills import Tally, World, fresh
from tiny import Command, spawn, wait


def records(count: int, world: World, commands: Sequence[Command], chance: random.Random) -> Tally:
    """Damage one record or cache file of a finished command, then run the command again.

    Right is the end of an undisturbed run, or exit code 2 with one line that names the file.
    """
    tally = Tally()
    owners = [c for c in commands if c.name in ("train", "sweep", "search", "grid")]
    if not owners:
        return tally
    finished: dict[str, Path] = {}
    for command in owners:
        place = fresh(world.root / f"finished-{command.name}")
        code = wait(spawn(world.line(command, place), place / "log"))
        assert code == 0, (place / "log").read_text()[-1000:]
        finished[command.name] = place
    for _ in range(count):
        command = chance.choice(owners)
        place = world.root / "trial"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(finished[command.name], place)
        tally.add(_one(world, command, place, chance))
    return tally


def _one(world: World, command: Command, place: Path, chance: random.Random) -> str | None:
    kinds = (".json", ".safetensors", ".npy", ".parquet", ".csv", ".bin")
    files = [path for path in sorted(place.rglob("*")) if path.suffix in kinds]
    path = chance.choice(files)
    hostile = path.suffix == ".json" and chance.random() < 0.3
    data = chance.choice(HOSTILE) if hostile else mutate(path.read_bytes(), chance)
    path.write_bytes(data)
    what = f"{command.name} with a damaged {path.relative_to(place)}"
    (place / "log").write_text("")
    code = wait(spawn(world.line(command, place), place / "log"))
    text = (place / "log").read_text(errors="replace").strip()
    if code == 2:
        return None if len(text.splitlines()) == 1 else f"{what}: {text[-300:]}"
    if code != 0:
        return f"{what}: ended with {code}: {text[-300:]}"
    # A run without a prefix cache says the same in other places: only the values count.
    away = differences(
        world.expected[command.name], read_tree(place / "out"), noise=world.noise[command.name]
    )
    return f"{what}: {len(away)} values differ (first: {away[0]})" if away else None
