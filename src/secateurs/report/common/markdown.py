"""Text of unknown content, such as a class's name, made to stand in Markdown as it reads."""

from __future__ import annotations

import re
from itertools import chain, zip_longest

from secateurs.data.names import printable
from secateurs.report.common.direction import END, ISOLATE, PAIR

_MARKS = re.compile(r"([\\`*_\[\]|])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "~": "&#126;", "$": "&#36;"}


def literal(text: str) -> str:
    r"""Text on one line in which nothing is a tag, a link, a mark of Markdown or the end of a cell.

    >>> print(literal("<img onerror=x> a|b *c*"))
    &lt;img onerror=x&gt; a\|b \*c\*
    """
    # Names in a right-to-left script are isolated by an outer pair of marks, which stays.
    parts = PAIR.split(text)
    if len(parts) > 1:
        names = [f"{ISOLATE}{literal(name)}{END}" for name in parts[1::2]]
        words = [_escaped(part) for part in parts[::2]]
        return "".join(chain.from_iterable(zip_longest(words, names, fillvalue="")))
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    line = printable(" ".join(text.splitlines()))
    line = "".join(_ENTITIES.get(character, character) for character in line)
    line = _MARKS.sub(r"\\\1", line)
    # Readers that make links of bare addresses make none of these.
    return line.replace("://", "&#58;//").replace("www.", "www&#46;")


def card_table(head: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table in a model card, with an empty line after it."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(literal(text) for text in row) + " |" for row in lines] + [""]
