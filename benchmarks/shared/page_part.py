"""The part of a page between two markers, written from a file of figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_part(doc: str | None, markers: tuple[str, str], part: Callable[[Any], str]) -> None:
    """Print what `part` makes of the JSON file that is named, or put it into a page."""
    words = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    words.add_argument("json", type=Path)
    words.add_argument("--into", type=Path, help="page whose measured part is replaced")
    given = words.parse_args()
    text = part(json.loads(given.json.read_text()))
    if given.into is None:
        print(text, end="")
        return
    start, end = markers
    before, _, rest = given.into.read_text().partition(start)
    _, _, after = rest.partition(end)
    given.into.write_text(f"{before}{start}\n{text}\n{end}{after}")
