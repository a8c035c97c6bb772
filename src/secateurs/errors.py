"""The one exception that means: what the caller gave cannot be used."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message is one line that says what was wrong, where, and the fix if known.

    The command line prints it and exits with code 2; every other exception is our own mistake.

    >>> raise InputError("depth 9 is outside 0..7 of alexnet")
    Traceback (most recent call last):
    ...
    secateurs.errors.InputError: depth 9 is outside 0..7 of alexnet
    """
