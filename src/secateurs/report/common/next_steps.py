"""Commands to run next, with the paths of the page's own run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs.files import read_regular

MAX_CONFIG_BYTES = 100_000
LEAD = "Run these commands in the folder in which this page was made."


@dataclass(frozen=True)
class Step:
    """What a command does, and the command."""

    text: str
    command: str


def step(text: str, *words: str | Path) -> Step:
    """A step whose command is `secateurs` with `words`, quoted for a shell.

    >>> step("Classify images.", "predict", "my model", "IMAGE").command
    "secateurs predict 'my model' IMAGE"
    """
    return Step(text, shlex.join(["secateurs", *map(str, words)]))


def shown_path(path: Path | str) -> str:
    """A path as one would type it: relative to the working folder where it is inside it."""
    whole = Path(path).absolute()
    folder = Path.cwd()
    return str(whole.relative_to(folder)) if whole.is_relative_to(folder) else str(whole)


def shown_data(data: str | Path | None) -> str:
    """The images of a run as a command's argument; DATA where they are not known.

    >>> shown_data("faces"), shown_data(None)
    ('faces', 'DATA')
    """
    if data is None:
        return "DATA"
    return "faces" if str(data) == "faces" else shown_path(data)


def configuration_of(record: dict[str, Any], directory: Path) -> str:
    """The text of the run's configuration file: the record's own, or that of `directory`.

    Empty where there is none.
    """
    text = record.get("config_toml")
    if isinstance(text, str):
        return text
    try:
        content = read_regular(directory / "config.toml", max_bytes=MAX_CONFIG_BYTES)
        return content.decode("utf-8")
    except (OSError, ValueError):
        return ""


def page_values(
    steps: Sequence[Step], record: dict[str, Any], directory: Path | None
) -> dict[str, Any]:
    """What every template needs of the next steps and the configuration."""
    text = "" if directory is None else configuration_of(record, directory)
    return {"steps": steps, "steps_lead": LEAD, "config_toml": text}
