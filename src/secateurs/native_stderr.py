"""What C libraries print on the process's stderr, kept from programs that read ours."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from typing import TextIO

_STDERR = 2
_given: TextIO | None = None


def leave_stderr_to_us() -> None:
    """Let only our own lines reach stderr; what libraries print there, and warnings, is dropped.

    Python's stderr goes on through a copy of the file, and the file's old number leads nowhere, so
    that it does not matter which thread prints. Errors of Python itself are still seen. Does
    nothing where stderr was replaced, as in tests.
    """
    global _given
    stream = sys.stderr
    if _given is not None or stream is not sys.__stderr__ or _number(stream) != _STDERR:
        return
    stream.flush()
    copy = os.fdopen(
        os.dup(_STDERR), "w", buffering=1, encoding=stream.encoding, errors=stream.errors
    )
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    os.close(nowhere)
    _given, sys.stderr = stream, copy
    warnings.simplefilter("ignore")


def give_stderr_back() -> None:
    """Undo `leave_stderr_to_us`, but for the warnings."""
    global _given
    if _given is None:
        return
    copy = sys.stderr
    sys.stderr, _given = _given, None
    with contextlib.suppress(OSError, ValueError):
        copy.flush()
        os.dup2(copy.fileno(), _STDERR)


def _number(stream: TextIO) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return -1
