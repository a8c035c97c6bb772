"""The first pages that a visitor reads have short sentences."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from pages import FENCE, ROOT

MOST_WORDS = 25


def sentences(text: str) -> list[str]:
    """The sentences of a page, without code, tables, pictures and addresses."""
    text = re.sub(r"<!--.*?-->|!\[[^\]]*\]\([^)]*\)|\*\*", "", FENCE.sub("", text))
    text = re.sub(r"\]\([^)]*\)", "]", text)
    blocks = re.split(r"\n\s*\n|\n(?=[-#|] ?)", text)
    plain = (" ".join(block.split()) for block in blocks if not block.lstrip().startswith("|"))
    return [part for block in plain for part in re.split(r"(?<=[.!?:])\s+(?=[A-Z`\[])", block)]


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/start.md"])
def test_no_sentence_is_longer_than_25_words(page: str):
    found = sentences((ROOT / page).read_text(encoding="utf-8"))
    assert len(found) > 5
    long = [part for part in found if len(re.findall(r"\w[\w'%./-]*", part)) > MOST_WORDS]
    assert long == []
