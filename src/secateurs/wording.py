"""Amounts in messages."""

from __future__ import annotations


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """A number with its noun in singular or plural.

    >>> counted(1, "image"), counted(12, "image"), counted(2, "class", "classes")
    ('1 image', '12 images', '2 classes')
    """
    return f"{number} {noun if number == 1 else nouns or noun + 's'}"
