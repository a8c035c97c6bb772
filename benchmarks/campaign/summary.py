"""What every part of a campaign gave: printed, and kept in a file as it comes."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from kills import Tally


class Summary:
    """The figures of parts by name; those in the file that are not measured now are kept."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.parts: dict[str, Any] = {}
        self.now: list[str] = []
        if path is not None and path.exists():
            self.parts = json.loads(path.read_text())["parts"]

    def measure(
        self, name: str, planned: int, run: Callable[[], tuple[Tally, dict[str, float]]]
    ) -> None:
        """Run a part and keep what it gave."""
        started = time.monotonic()
        tally, more = run()
        self.add(name, tally, planned, started, more)

    def add(
        self, name: str, tally: Tally, planned: int, started: float, more: dict[str, float]
    ) -> None:
        """Keep and print a part that is done."""
        self.keep(name, tally, planned, started, more)
        print(self._line(name), flush=True)
        for text in tally.wrong[:20]:
            print(f"  {text}", flush=True)

    def keep(
        self, name: str, tally: Tally, planned: int, started: float, more: dict[str, float]
    ) -> None:
        """Write what is known of a part."""
        if name not in self.now:
            self.now.append(name)
        self.parts[name] = {
            "date": date.today().isoformat(),
            "planned": planned,
            "tried": tally.tried,
            "wrong": len(tally.wrong),
            "examples": tally.wrong[:20],
            "seconds": round(time.monotonic() - started, 1),
            **more,
        }
        if self.path is None:
            return
        value = {"machine": f"{os.cpu_count()} cores, {processor()}", "parts": self.parts}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(value, indent=1) + "\n")
        part.replace(self.path)

    def _line(self, name: str) -> str:
        part = self.parts[name]
        return (
            f"{name}: {part['tried']} of {part['planned']} tried, {part['wrong']} wrong, "
            f"{part['seconds']:.0f} s"
        )

    def print(self) -> None:
        """The parts of this run, a line each."""
        print("\nSummary")
        for name in self.now:
            print(self._line(name))

    def any_wrong(self) -> bool:
        """Whether a part of this run found anything."""
        return any(self.parts[name]["wrong"] for name in self.now)


def processor() -> str:
    """The maker of the processor, as far as the system says."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split()[:2])
    return platform.machine()
