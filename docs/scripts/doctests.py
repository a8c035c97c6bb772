"""Doctests of docstrings as code: what a reader of the site sees is what the tests run."""

from __future__ import annotations

import re
from typing import Any

import griffe

# From a prompt to the next empty line, or the end.
DOCTEST = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


def fenced(text: str) -> str:
    """A docstring with a fence around each of its doctests.

    >>> print(fenced("One.\\n\\n>>> 1 + 1\\n2"))
    One.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    """
    return DOCTEST.sub(lambda found: f"```pycon\n{found.group().rstrip()}\n```", text)


class Doctests(griffe.Extension):
    """Fences the doctests of every object that the site shows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
