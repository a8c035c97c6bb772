"""Files written whole or not at all, fingerprints, and the user's cache folder."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from secateurs.errors import InputError
from secateurs.leftovers import SUFFIX, sweep_for, temporary_prefix

_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_JSON_BYTES = 64 << 20
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; links are followed.

    Raises OSError at once for anything else, such as a named pipe, a socket, a device or a folder,
    the opening or reading of which may never end.
    """
    try:
        # Opening a device may already have an effect, so its kind is checked before and after.
        _refuse_special(path, path.stat().st_mode)
        flags = ("O_BINARY", "O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK")  # each where it exists
        handle = os.open(path, os.O_RDONLY | sum(getattr(os, flag, 0) for flag in flags))
    except ValueError as error:  # a null character in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    try:
        _refuse_special(path, os.fstat(handle).st_mode)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _refuse_special(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a special file")
        raise OSError(errno.EINVAL, f"not a regular file: {kind}", str(path))


def read_regular(path: Path, *, max_bytes: int | None = None) -> bytes:
    """The bytes of a regular file; raises OSError as `open_regular`, and above `max_bytes`."""
    with open_regular(path) as file:
        data = file.read(-1 if max_bytes is None else max_bytes + 1)
    if max_bytes is not None and len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes", str(path))
    return data


@contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """Yield a temporary path beside `path`; move it there on success, remove it on any error.

    The content and the name are on the disk when this returns. What killed processes have left of
    the same file is removed. An error of the system names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_for(path)
    prefix = temporary_prefix(path.name)
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=SUFFIX, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("r+b") as written:  # Windows syncs only what is open for writing
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        # Writing names no file at all, and nobody finds the temporary one.
        if error.errno is not None and error.filename in (None, name, temporary):
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):  # the error that led here is the one to report
            temporary.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: Path) -> Generator[Path]:
    """Yield an empty folder beside `path` for files that are made on the way to it; remove it then.

    What killed processes have left on their way to the same file is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_for(path)
    prefix = temporary_prefix(path.name)
    folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=SUFFIX, dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def atomic_folder(folder: Path) -> Generator[Path]:
    """Yield a temporary folder beside `folder`; move it there on success, remove it on any error.

    `folder` may be there and be empty. What killed processes have left of the same one is removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep_for(folder)
    prefix = temporary_prefix(folder.name)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=SUFFIX, dir=folder.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        if os.name == "nt" and folder.is_dir():  # there only a free name can be taken
            folder.rmdir()
        temporary.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk; does nothing where a folder cannot be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_json(value: Any) -> str:
    """JSON text of plain Python data; raises ValueError on NaN and infinity.

    What UTF-8 cannot hold, such as a path that is not valid text, is escaped.

    >>> to_json({"b": 1, "a": [1.5, None]})
    '{\\n "b": 1,\\n "a": [\\n  1.5,\\n  null\\n ]\\n}'
    """
    return encodable(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


def encodable(text: str) -> str:
    r"""JSON text with an escape for each surrogate, so that it can be encoded.

    >>> encodable('"caf\udce9"')
    '"caf\\udce9"'
    """
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON to `path`, whole or not at all."""
    write_text(path, to_json(value) + "\n")


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read JSON of a regular file, whatever it holds, in bounded memory.

    Raises InputError that names the file when it is missing, larger than `max_bytes`, broken, too
    deeply nested, or holds a number that is not finite or has thousands of digits.
    """
    try:
        text = read_regular(path, max_bytes=max_bytes).decode("utf-8-sig")
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except RecursionError:
        raise InputError(f"{path}: not readable as JSON (too deeply nested)") from None
    # A broken text, a broken encoding, and a whole number with too many digits.
    except (OSError, ValueError, MemoryError) as error:
        reason = (str(error) or "too large").splitlines()[0]
        raise InputError(f"{path}: not readable as JSON ({reason})") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def fingerprint(value: Any) -> str:
    """64 hexadecimal digits that identify plain data, whatever the order of its keys.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_dir() -> Path:
    """The user's cache folder.

    $SECATEURS_CACHE, else $XDG_CACHE_HOME/secateurs, else ~/.cache/secateurs.
    """
    own = os.environ.get("SECATEURS_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "secateurs"
