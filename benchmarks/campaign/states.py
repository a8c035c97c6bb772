"""Every state of the disk that a kill can leave: one before each call that changes a file.

A command runs once under `system_calls.follow`, and its folder is copied before each call. A kill
between two calls leaves what a copy holds, so the command is run again from every copy, without
repeating what came before. Of a write, half of its bytes is a state as well.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from kills import World, finish, fresh
from system_calls import Call, be_traced, follow
from tiny import Command, spawn


@dataclass
class State:
    """A copy of the folder, and before which calls it is what the disk holds."""

    copy: Path
    calls: list[str] = field(default_factory=list)


@dataclass
class Recorded:
    """The states of one command in the order in which they came, and its number of calls."""

    states: list[State] = field(default_factory=list)
    num_calls: int = 0
    known: dict[str, State] = field(default_factory=dict)


def record(world: World, command: Command, folder: Path) -> Recorded:
    """Run a command and copy its folder before every call, equal copies once."""
    place, log = fresh(world.root / "trial"), world.root / "log"
    found, last = Recorded(), [place]

    def keep(name: str, half: tuple[Path, int, bytes] | None = None) -> None:
        copy = folder / f"{len(found.states):05d}"
        _copy(place, copy, linked=last[0])
        if half is not None:
            path, offset, data = half
            _overwrite(copy / path.relative_to(place), offset, data)
        key = fingerprint(copy)
        if key in found.known:
            shutil.rmtree(copy)
        else:
            found.known[key] = State(copy)
            found.states.append(found.known[key])
            if half is None:
                last[0] = copy
        found.known[key].calls.append(name)

    def at(call: Call) -> bool:
        found.num_calls += 1
        name = f"{call.name} {call.path.relative_to(place)}"
        keep(f"before call {call.number}, {name}")
        torn = call.half() if call.path.exists() else None
        if torn is not None:
            keep(f"in the middle of call {call.number}, {name}", (call.path, *torn))
        return False

    process = spawn(world.line(command, place), log, before=be_traced)
    code, _ = follow(process, place, at)
    assert code == 0, f"{command.name}: {log.read_text(errors='replace')[-500:]}"
    return found


def _copy(place: Path, copy: Path, *, linked: Path) -> None:
    """Copy a folder; files as they are in an earlier copy are linked there, as copies only rest."""
    copy.mkdir(parents=True)
    for path in sorted(place.rglob("*")):
        to, earlier = copy / path.relative_to(place), linked / path.relative_to(place)
        about = path.lstat()
        if path.is_dir():
            to.mkdir()
        elif linked != place and earlier.is_file() and _same(about, earlier.lstat()):
            os.link(earlier, to)
        else:
            shutil.copy2(path, to, follow_symlinks=False)


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _overwrite(path: Path, offset: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.unlink()  # its content may be linked to other copies
    path.write_bytes(content)


def fingerprint(folder: Path) -> str:
    """What tells one state from another: names and contents."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(f"\n{path.relative_to(folder)}\n".encode())
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()


def resumed(world: World, command: Command, state: State) -> str | None:
    """Run a command from a state to its end; what is wrong with that, None when nothing is."""
    place = world.root / "trial"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(state.copy, place, symlinks=True)
    return finish(world, command, place, f"{command.name}, killed {state.calls[0]}")
