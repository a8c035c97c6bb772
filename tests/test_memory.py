"""Freed memory, kept or given back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import secateurs.memory
from secateurs.memory import give_memory_back, memory_kept


class Library:
    """A C library that writes down how it is called."""

    def __init__(self, calls: list[tuple[int, int]]) -> None:
        self.calls = calls

    def mallopt(self, parameter: int, value: int) -> None:
        self.calls.append((parameter, value))

    def malloc_trim(self, pad: int) -> None:
        self.calls.append((0, pad))


def test_freed_memory_is_kept_in_the_block_and_given_back_after_an_error(
    monkeypatch: pytest.MonkeyPatch,
):
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(secateurs.memory, "_glibc", lambda: Library(calls))
    with pytest.raises(RuntimeError), memory_kept():
        assert calls == [(-1, 2**31 - 1), (-4, 0)]  # no trimming, no mapped blocks
        raise RuntimeError
    assert calls[2:] == [(-1, 128 * 1024), (-4, 65536), (0, 0)]
    monkeypatch.setattr(secateurs.memory, "_glibc", lambda: None)
    with memory_kept():
        assert len(calls) == 5


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_what_lies_free_between_blocks_is_given_back(monkeypatch: pytest.MonkeyPatch):
    def resident_mib() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096 / 2**20

    big = torch.ones(
        6 * 2**20
    )  # freed at once, which makes blocks of its size stay with the process
    del big
    blocks = [torch.ones(2**18) for _ in range(200)]  # of 1 MiB
    held = resident_mib()
    kept = blocks[::10]
    del blocks
    give_memory_back()
    assert held - resident_mib() > 150
    assert all(bool((block == 1).all()) for block in kept)
    monkeypatch.setattr(secateurs.memory, "_glibc", lambda: None)
    give_memory_back()  # nothing is asked of other systems
