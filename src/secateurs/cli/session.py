"""What every command needs beside its own words: progress, cache, how to answer."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs.native_stderr import leave_stderr_to_us
from secateurs.progress import Progress, progress_of

if TYPE_CHECKING:
    from secateurs.study.setup.config import StudyConfig


@dataclass(frozen=True)
class Session:
    """What a command needs beside its own words."""

    progress: Progress
    cache: Path
    as_json: bool

    def answer(self, value: dict[str, Any], text: str) -> None:
        """Print the answer on stdout, for machines or for people."""
        from secateurs.files import encodable

        if self.as_json:
            unicode = "utf" in (sys.stdout.encoding or "utf").lower()
            text = encodable(json.dumps(value, ensure_ascii=not unicode, allow_nan=False))
        print(text)


def session_of(
    cache: Path | None, *, as_json: bool = False, quiet: bool = False, progress: str = "auto"
) -> Session:
    """The session that a command's options ask for.

    With `quiet` or progress "json" or "none" nothing but our own lines is printed on stderr.
    """
    from secateurs.files import cache_dir

    chosen = progress_of(progress, quiet=quiet)
    if quiet or progress in ("json", "none"):
        leave_stderr_to_us()
    return Session(chosen, cache or cache_dir(), as_json)


def config_of(preset: str = "quick", **words: Any) -> StudyConfig:
    """A preset's configuration with a command's options; lists are still words."""
    from secateurs.study.setup.config import from_preset, parse_depths, parse_keep

    if words.get("depths") is not None:
        words["depths"] = parse_depths(words["depths"])
    if words.get("keep") is not None:
        words["keep"] = parse_keep(words["keep"])
    if words.get("layers") is not None:
        words["layers"] = tuple(part.strip() for part in words["layers"].split(","))
    return from_preset(preset, **words)
