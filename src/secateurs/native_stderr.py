"""What C libraries print on the process's stderr, kept from programs that read ours."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TextIO

from secateurs.terminal import fitted

_STDERR = 2
_given: TextIO | None = None
_copy: TextIO | None = None


def own_stderr() -> TextIO:
    """Where progress and errors go, under `leave_stderr_to_us` as well."""
    return _copy or sys.stderr


def asked_of(words: Sequence[str]) -> str:
    """What a command line says of progress, before it is parsed: json, none, or empty for else.

    >>> asked_of(["study", "x", "--progress=json"]), asked_of(["train", "--quiet"]), asked_of(["x"])
    ('json', 'none', '')
    """
    given = [word.removeprefix("--progress=") for word in words if word.startswith("--progress=")]
    given += [word for last, word in pairwise(words) if last == "--progress"]
    if "json" in given:
        return "json"
    return "none" if "--quiet" in words or "none" in given else ""


def print_end(text: str, *, event: str, progress: str = "") -> None:
    """One line for what ended a command: `event` is error or stopped.

    With progress "json" it is an object like the others.
    """
    line = f"error: {text}" if event == "error" else text
    if progress == "json":
        line = json.dumps({"event": event, "text": text}, ensure_ascii=False)
    else:
        line = fitted(line, own_stderr())
    print(line, file=own_stderr(), flush=True)


def print_note(text: str, *, progress: str = "") -> None:
    """One note before a command's own progress is known; nothing with progress "none"."""
    if progress == "json":
        text = json.dumps({"event": "note", "text": text}, ensure_ascii=False)
    else:
        text = fitted(text, own_stderr())
    if progress != "none":
        print(text, file=own_stderr(), flush=True)


def leave_stderr_to_us() -> None:
    """Let only our own lines reach stderr; what libraries print there, and warnings, is dropped.

    `own_stderr` goes on through a copy of the file; Python's stderr and the file's old number lead
    nowhere, so that it does not matter which thread prints, nor whether it is Python or C. Lasts to
    the end of the process, since libraries print while they are torn down too; whoever ends it by
    an error of Python itself gives stderr back first. Does nothing where stderr was replaced, as
    in tests.
    """
    global _given, _copy
    stream = sys.stderr
    if _given is not None or stream is not sys.__stderr__ or _number(stream) != _STDERR:
        return
    stream.flush()
    _copy = os.fdopen(
        os.dup(_STDERR), "w", buffering=1, encoding=stream.encoding, errors=stream.errors
    )
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    os.close(nowhere)
    # A stream of its own: what writes to it is not ours.
    _given, sys.stderr = stream, Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    warnings.simplefilter("ignore")


def give_stderr_back() -> None:
    """Undo `leave_stderr_to_us`, but for the warnings."""
    global _given, _copy
    if _given is None or _copy is None:
        return
    copy, _copy = _copy, None
    sys.stderr, _given = _given, None
    with contextlib.suppress(OSError, ValueError):
        copy.flush()
        os.dup2(copy.fileno(), _STDERR)


def _number(stream: TextIO) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return -1
