"""The blocks of code in the README and on the pages of the site."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it is, its language, its text."""

    where: str
    language: str
    text: str


def pages() -> list[Path]:
    """The README and every page of the site."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(*languages: str) -> list[Block]:
    """All blocks in these languages, page by page."""
    found: list[Block] = []
    for path in pages():
        text = path.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text[: match.start()].count("\n") + 1
            if match[1] in languages:
                found.append(Block(f"{path.name}:{line}", match[1], match[2]))
    return found


def command_lines() -> list[tuple[str, list[str]]]:
    """Every `secateurs ...` line of the shell blocks, as words, with where it stands."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["secateurs"]:
                found.append((block.where, words[1:]))
    return found
