"""Names in right-to-left scripts, isolated from the text around them.

An Arabic class name in an English sentence takes the digits after it into its own direction: "قطة
28%" is shown in the wrong order. Unicode's isolates prevent this everywhere, in figures and in
Markdown as well; on a page they become `bdi` elements.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any, cast

from secateurs.data.names import printable

ISOLATE, END = "\u2068", "\u2069"  # first strong isolate, pop directional isolate
# Keys of the records whose values are names, or lists of them; other text is made of sentences.
NAMES = frozenset(
    {
        *("class", "classes", "true", "label", "name", "names", "layer", "alias", "path", "group"),
        *("backbone", "exact", "near", "conflicts", "data", "loaded", "fresh", "random_frozen"),
    }
)
UNCHANGED = frozenset({"thumbnail", "files", "key", "config_toml", "command", "fingerprint"})
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
_MARKS = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
PAIR = re.compile(f"{ISOLATE}([^{ISOLATE}{END}]*){END}")
_TAGS = re.compile(r"(<(script|style|title)\b.*?</\2>|<[^>]*>)", re.DOTALL)


def is_right_to_left(text: str) -> bool:
    """Whether text has letters or digits of a right-to-left script.

    >>> is_right_to_left("cat 2"), is_right_to_left("قطة")
    (False, True)
    """
    return not text.isascii() and any(unicodedata.bidirectional(c) in _RIGHT_TO_LEFT for c in text)


def isolated(name: str) -> str:
    r"""A name that does not change the order of the text around it.

    Names without right-to-left characters stay as they are; marks of direction are shown as
    escapes. The parts of a path are isolated one by one, so that they stay in their order.

    >>> isolated("cat"), isolated("a\u202eb")
    ('cat', 'a\\u202eb')
    >>> isolated("قطة/a.png") == ISOLATE + "قطة" + END + "/a.png"
    True
    """
    if not _MARKS.isdisjoint(name):
        name = printable(name)
    if not is_right_to_left(name):
        return name
    parts = (f"{ISOLATE}{p}{END}" if is_right_to_left(p) else p for p in name.split("/"))
    return "/".join(parts)


def not_isolated(text: str) -> str:
    """Text without the isolates around its names."""
    return text.replace(ISOLATE, "").replace(END, "")


def isolated_words(sentence: str) -> str:
    """A sentence with each run of right-to-left words isolated.

    >>> isolated_words("1 file of قطة سوداء is empty") == (
    ...     f"1 file of {ISOLATE}قطة سوداء{END} is empty"
    ... )
    True
    """
    if not is_right_to_left(sentence):
        return sentence
    parts: list[str] = []
    run: list[str] = []
    for word in sentence.split(" "):
        if is_right_to_left(word):
            run.append(word)
            continue
        parts += _isolated_run(run)
        run = []
        parts.append(word)
    return " ".join([*parts, *_isolated_run(run)])


def _isolated_run(words: list[str]) -> list[str]:
    """Words as one isolated name, the punctuation after them outside; nothing for no words."""
    if not words:
        return []
    text = " ".join(words)
    name = text.rstrip(".,;:)")
    return [f"{isolated(name)}{text[len(name) :]}"]


def isolate_names(record: Any, *, of: str = "") -> Any:
    """A record with its names and sentences isolated; numbers, paths and commands as they are."""
    if of in UNCHANGED:
        return record
    if isinstance(record, dict):
        items = cast("dict[str, Any]", record).items()
        return {key: isolate_names(value, of=key) for key, value in items}
    if isinstance(record, list):
        return [isolate_names(value, of=of) for value in cast("list[Any]", record)]
    if isinstance(record, str):
        return isolated(record) if of in NAMES else isolated_words(record)
    return record


def with_bdi(html: str) -> str:
    """A page in which isolated names are `bdi` elements; in attributes the isolates stay.

    >>> with_bdi(f'<p title="{ISOLATE}a{END}">{ISOLATE}a{END} 28%</p>').count("<bdi>a</bdi>")
    1
    """
    if ISOLATE not in html:
        return html
    at, parts = 0, list[str]()
    for tag in _TAGS.finditer(html):
        parts += [PAIR.sub(r"<bdi>\1</bdi>", html[at : tag.start()]), tag.group(0)]
        at = tag.end()
    return "".join([*parts, PAIR.sub(r"<bdi>\1</bdi>", html[at:])])
