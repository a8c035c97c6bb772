"""Text of unknown content, such as a class's name, made to stand in Markdown as it reads."""

from __future__ import annotations

import re

from secateurs.data.names import printable

_MARKS = re.compile(r"([\\`*_\[\]|])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "~": "&#126;", "$": "&#36;"}


def literal(text: str) -> str:
    r"""Text on one line in which nothing is a tag, a link, a mark of Markdown or the end of a cell.

    >>> print(literal("<img onerror=x> a|b *c*"))
    &lt;img onerror=x&gt; a\|b \*c\*
    """
    line = printable(" ".join(text.split()))
    line = "".join(_ENTITIES.get(character, character) for character in line)
    line = _MARKS.sub(r"\\\1", line)
    # Readers that make links of bare addresses make none of these.
    return line.replace("://", "&#58;//").replace("www.", "www&#46;")
