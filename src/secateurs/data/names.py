"""Names of files: which can be kept as text, and how the others are shown."""

from __future__ import annotations

import unicodedata

# These reorder or break the text around them on a terminal, and are harmless in a file.
_MOVING = frozenset("\u2028\u2029\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e")
_MOVING_TOO = frozenset("\u2066\u2067\u2068\u2069")


def is_text(name: str) -> bool:
    """Whether a name is Unicode text without control characters.

    Spaces of every width, joiners and marks of direction are text. A name that is not valid in the
    file system's encoding is none: Python reads it with surrogates.

    >>> is_text("10.32\\u202fAM.png"), is_text("a\\nb.png"), is_text("caf\\udce9.png")
    (True, False, False)
    """
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)


def escaped(name: str) -> str:
    r"""The name with an escape for each control character and each byte that is no text.

    >>> print(escaped("a\nb.png"), escaped("caf\udce9.png"))
    a\nb.png caf\xe9.png
    """
    return "".join(_escape(c) if unicodedata.category(c) in ("Cc", "Cs") else c for c in name)


def printable(text: str) -> str:
    r"""Text that is safe on a terminal: escaped, line breaks and marks of direction too.

    >>> print(printable("a\u202egnp.exe"))
    a\u202egnp.exe
    """
    return "".join(_escape(c) if c in _MOVING or c in _MOVING_TOO else c for c in escaped(text))


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not valid in the file system's encoding
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def same_name(name: str) -> str:
    """The composed form (NFC) of a name, in which file systems and programs differ.

    >>> same_name("U\\u0308ber") == same_name("\\u00dcber")
    True
    """
    return unicodedata.normalize("NFC", name)
