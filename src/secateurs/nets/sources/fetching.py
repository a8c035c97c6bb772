"""Files from the web, whole or not at all, and checked against a hash."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

from secateurs.files import atomic_path
from secateurs.progress import SILENT, Progress

CONNECT_TIMEOUT_S = 10.0
_MIB = 1 << 20


class Unreachable(Exception):
    """One source of weights could not be used; the next one is tried."""


def fetch(
    url: str,
    path: Path,
    *,
    hash_prefix: str,
    unreachable: set[str],
    progress: Progress = SILENT,
) -> str:
    """`download`, with Unreachable for what goes wrong; hosts that did not answer are noted.

    A host that is in `unreachable` is not asked again.
    """
    host = urlparse(url).netloc
    if host and host in unreachable:
        raise Unreachable(f"{path.name}: {host} does not answer")
    try:
        return download(url, path, hash_prefix=hash_prefix, progress=progress)
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        if host and not hasattr(error, "code") and isinstance(error, URLError):
            unreachable.add(host)
        raise Unreachable(f"{path.name}: {reason}") from error


def download(url: str, path: Path, *, hash_prefix: str, progress: Progress = SILENT) -> str:
    """Fetch `url` into `path`, whole or not at all, and return its SHA-256.

    Raises OSError (URLError is one) when it cannot be reached or is not the file expected.
    """
    digest = hashlib.sha256()
    request = urllib.request.Request(url, headers={"User-Agent": "secateurs"})
    with urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S) as answer:
        total = int(answer.headers.get("Content-Length") or 0)
        num_mib = -(-total // _MIB)
        with (
            atomic_path(path) as temporary,
            temporary.open("wb") as out,
            progress.task(f"fetching {path.name} (MiB)", num_mib) as advance,
        ):
            while chunk := answer.read(_MIB):
                out.write(chunk)
                digest.update(chunk)
                advance(1)
            out.flush()
            os.fsync(out.fileno())
            if not digest.hexdigest().startswith(hash_prefix):
                raise OSError(
                    f"SHA-256 is {digest.hexdigest()[:8]}..., expected {hash_prefix[:8]}...; "
                    "not kept"
                )
    return digest.hexdigest()
