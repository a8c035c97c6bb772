"""Damaged bytes and damaged JSON, and what counts as an answer to them."""

from __future__ import annotations

import copy
import json
import random
import signal
import struct
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SECONDS = 10
HOSTILE = (
    b"true", b"[]", b"{}", b"NaN", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5_000, b"",
    b'{"a": 1e999}', b"\xff", b"\0" * 4096, b'"' + b"x" * 1_000_000 + b'"',
)  # fmt: skip
PLANTED: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 1e308, 10**18, -(10**30), "", "x" * 300, "a\nb", "\u202e", "..", "\x00",
    [], {}, [[]], [None], {"in": 1, "out": 1}, "resnet18", "regnet_y_128gf",
)  # fmt: skip


class TooSlow(Exception):
    """Something took longer than `SECONDS`."""


@contextmanager
def limited() -> Generator[None]:
    """Raise TooSlow in what takes longer than allowed."""

    def ring(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class PeakMemory:
    """How far the memory of this process rises, in MiB; always 0 where Linux does not say."""

    def __init__(self) -> None:
        self._status, self._reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
        self._before = 0.0
        self.largest_mib = 0.0

    def start(self) -> None:
        """Begin to measure."""
        if self._reset.exists():
            self._reset.write_text("5")
            self._before = self._read("VmRSS")

    def risen(self) -> float:
        """MiB above the start, at most, since then."""
        found = self._read("VmHWM") - self._before if self._reset.exists() else 0.0
        self.largest_mib = max(self.largest_mib, found)
        return found

    def _read(self, name: str) -> float:
        for line in self._status.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
        return 0.0


def guarded(what: str, read: Callable[[], str | None]) -> str | None:
    """What is wrong with reading a damaged file: InputError (or what `read` says) is right."""
    from secateurs.errors import InputError

    try:
        with limited():
            return read()
    except InputError as error:
        lines = str(error).splitlines()
        return None if len(lines) == 1 else f"{what}: a message of {len(lines)} lines"
    except TooSlow:
        return f"{what}: over {SECONDS} s"
    except Exception as error:
        return f"{what}: {type(error).__name__}: {str(error)[:200]}"


def mutate(data: bytes, chance: random.Random, other: bytes = b"") -> bytes:
    """A damaged copy: cut off, bits flipped, a stretch zeroed, doubled, removed or replaced."""
    found = bytearray(data)
    if not found:
        return bytes([chance.randrange(256)])
    size = len(found)
    place = chance.randrange(size)
    if chance.random() < 0.4:
        place = chance.randrange(min(size, 256))  # headers matter most
    length = chance.choice([1, 2, 4, 16, 256, max(1, size // 2)])
    stretch = slice(place, place + length)
    kind = chance.randrange(8)
    if kind == 0:
        del found[place:]
    elif kind == 1:
        for at in [place, *(chance.randrange(size) for _ in range(chance.choice([0, 0, 7, 63])))]:
            found[at] ^= 1 << chance.randrange(8)
    elif kind == 2:
        found[stretch] = bytes(len(found[stretch]))
    elif kind == 3:
        found[place:place] = found[stretch]
    elif kind == 4:
        del found[stretch]
    elif kind == 5:
        found[stretch] = chance.randbytes(len(found[stretch]))
    elif kind == 6:
        found[place : place + 4] = b"\xff" * len(found[place : place + 4])
    else:
        start = chance.randrange(max(1, len(other)))
        found[stretch] = (other or data)[start : start + length]
    return bytes(found)


def plant(data: bytes, chance: random.Random) -> bytes:
    """JSON with one value replaced, one key left out, or one renamed."""
    tree = copy.deepcopy(json.loads(data))
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict | list):
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                places.append((node, key))
                walk(node[key])

    walk(tree)
    if not places:
        return data
    node, key = chance.choice(places)
    kind = chance.randrange(4)
    if kind == 0 or (kind == 1 and isinstance(node, list)):
        del node[key]
    elif kind == 1:
        node[f"{key}x"] = node.pop(key)
    else:
        node[key] = copy.deepcopy(chance.choice(PLANTED))
    return json.dumps(tree).encode()


def with_checksums(data: bytes) -> bytes:
    """A PNG file with the checksum that each of its chunks should have: readers go on to it."""
    if not data.startswith(b"\x89PNG"):
        return data
    found, at = bytearray(data), 8
    while at + 12 <= len(found):
        (length,) = struct.unpack_from(">I", found, at)
        end = at + 8 + length
        if end + 4 > len(found):
            break
        struct.pack_into(">I", found, end, zlib.crc32(found[at + 4 : end]))
        at = end + 4
    return bytes(found)
