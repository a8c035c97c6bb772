"""The text of `--help`: panels of options in two columns, wrapped between words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

WIDEST = 28  # of the first column; a longer entry has a line of its own


def panel(title: str, rows: Iterable[tuple[str, str]], *, width: int, first: int) -> str:
    """A titled list of terms and what they mean; `first` is the width of the first column."""
    lines = [f"{title}:"]
    for term, text in rows:
        indent = " " * (first + 4)
        filled = wrapped(text, width, indent=indent) or indent
        start = f"  {term}"
        if len(term) > first:
            lines += [start, filled]
        else:
            lines.append((start.ljust(len(indent)) + filled[len(indent) :]).rstrip())
    return "\n".join(lines) + "\n"


def wrapped(text: str, width: int, *, indent: str = "") -> str:
    """Text in lines of at most `width` characters, broken only at spaces.

    >>> wrapped("the option --low-deg of prune", 16)
    'the option\\n--low-deg of\\nprune'
    """
    return textwrap.fill(
        " ".join(text.split()),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def first_column(terms: Iterable[str]) -> int:
    """The width of the first column for these terms."""
    return min(WIDEST, max((len(term) for term in terms if len(term) <= WIDEST), default=10))
