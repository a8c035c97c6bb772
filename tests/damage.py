"""Ways to damage a file, for tests that caches notice it."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np


def damaged(data: bytes, *, seed: int = 0, flips: int = 30) -> Generator[tuple[str, bytes]]:
    """What a file may become: (name, content) with bits flipped, parts zeroed, cut or repeated.

    Bits are flipped in the first 160 bytes, where headers are, in the last 24 and at random.
    """
    rng = np.random.default_rng(seed)
    places = {*range(0, min(160, len(data)), 3), *range(max(0, len(data) - 24), len(data), 5)}
    places |= set(rng.integers(0, len(data), flips).tolist())
    for at in sorted(places):
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        yield f"bit at {at}", bytes(changed)
    half = len(data) // 2
    for start, stop in ((0, half), (half, len(data)), (half, half + 16), (0, len(data))):
        changed = bytearray(data)
        changed[start:stop] = bytes(min(stop, len(data)) - start)
        if bytes(changed) != data:
            yield f"zeros at {start} to {stop}", bytes(changed)
    for length in (0, 1, 7, half, len(data) - 1):
        yield f"first {length} bytes", data[:length]
    yield "longer", data + b"\0"
    yield "twice", data + data
    yield "other", bytes(rng.integers(0, 256, len(data)).astype(np.uint8))
