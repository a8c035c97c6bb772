"""Damaged records and caches, read again by the commands that own them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from compare import differences, read_tree
from kills import LONGEST_S, Tally, World, fresh
from mutations import HOSTILE, mutate, plant
from tiny import Command, spawn, wait

PAGES = (".html", ".md", ".svg")  # written anew by every run, and read by none
CACHES = ("frozen", "stages", "trials")  # folders whose files are verified when they are opened


def records(
    count: int,
    world: World,
    commands: Sequence[Command],
    chance: random.Random,
    *,
    until: Callable[[], bool] = lambda: False,
) -> Tally:
    """Damage a record or cache file of a finished command, then run the command again.

    Right is the end of an undisturbed run, or exit code 2 with one line.
    """
    tally = Tally()
    finished: dict[str, Path] = {}
    for _ in range(count):
        if until():
            break
        command = chance.choice(commands)
        if command.name not in finished:
            place = fresh(world.root / "trial")
            assert wait(spawn(world.line(command, place), world.root / "log")) == 0
            kept = world.root / f"finished-{command.name.replace(' ', '-')}"
            shutil.rmtree(kept, ignore_errors=True)
            finished[command.name] = Path(shutil.copytree(place, kept))
        place = world.root / "trial"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(finished[command.name], place)
        tally.add(_one(world, command, place, chance))
    return tally


def _one(world: World, command: Command, place: Path, chance: random.Random) -> str | None:
    files = [
        path for path in sorted(place.rglob("*")) if path.is_file() and path.suffix not in PAGES
    ]
    # As often a cache or a record at the top as one of many trials.
    folders = sorted({path.parent for path in files})
    folder = chance.choice(folders)
    path = chance.choice([path for path in files if path.parent == folder])
    original = path.read_bytes()
    kind = chance.random() if path.suffix == ".json" else 1.0
    if kind < 0.2:
        data = chance.choice(HOSTILE)
    elif kind < 0.6:
        data = plant(original, chance)
    else:
        data = mutate(original, chance)
    path.write_bytes(data)
    how = "hostile" if kind < 0.2 else "planted" if kind < 0.6 else "mutated"
    what = f"{command.name} with a {how} {path.relative_to(place)}"
    log = world.root / "log"
    log.write_text("")
    try:
        code = wait(spawn(world.line(command, place), log), seconds=LONGEST_S)
    except TimeoutError as error:
        return f"{what}: {error}"
    trouble = _judge(world, command, place, path, what, code)
    if trouble:
        (world.root / "failed").mkdir(exist_ok=True)
        number = len(list((world.root / "failed").iterdir()))
        (world.root / "failed" / f"{number:03d}-{path.name}").write_bytes(data)
        (world.root / "failed" / f"{number:03d}-{path.name}.original").write_bytes(original)
    return trouble


def _judge(
    world: World, command: Command, place: Path, damaged: Path, what: str, code: int
) -> str | None:
    """What is wrong with an end, None where nothing is.

    A damaged cache that a finished command does not open stays as it is, and so does a
    configuration that is no longer known as one of Secateurs, which a line says.
    """
    text = (world.root / "log").read_text(errors="replace").strip()
    if code == 2:
        errors = [line for line in text.splitlines() if not line.startswith("caution:")]
        return None if len(errors) == 1 and "Traceback" not in text else f"{what}: {text[-300:]}"
    if code != 0:
        return f"{what}: ended with {code}: {text[-300:]}"
    away = differences(
        world.expected[command.name], read_tree(place / "out"), noise=world.noise[command.name]
    )
    name = str(damaged.relative_to(place / "out")) if "out" in damaged.parts else ""
    kept = f"{damaged.name}: not written by Secateurs" in text
    if name and (kept or name.split("/")[0] in CACHES):
        away = [value for value in away if not value.startswith(name)]
    return f"{what}: {len(away)} values differ: {', '.join(away[:3])}" if away else None
