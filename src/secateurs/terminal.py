"""Text for a terminal, and whether two streams lead to the same place."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from typing import TextIO


def fitted(text: str, stream: TextIO) -> str:
    """Text with its long lines broken between words at the width of a terminal.

    Lines of a table, with columns two spaces apart, stay as they are, and so does all text for a
    file or a pipe.
    """
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return "\n".join(_broken(line, width) for line in text.split("\n"))


def _broken(line: str, width: int) -> str:
    if len(line) <= width or re.search(r"\S {2,}\S", line):
        return line
    return textwrap.fill(
        line,
        width,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def same_stream(one: TextIO, other: TextIO) -> bool:
    """Whether two streams lead to the same file, pipe or terminal."""
    try:
        return os.path.samestat(os.fstat(one.fileno()), os.fstat(other.fileno()))
    except (OSError, ValueError):  # replaced by something without a file
        return False
