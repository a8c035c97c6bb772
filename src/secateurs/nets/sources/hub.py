"""Weights on the Hugging Face Hub: in its own cache on this machine, or fetched.

The cache is read as huggingface_hub lays it out, without asking the network.
"""

from __future__ import annotations

import os
import re
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

from secateurs.nets.sources.fetching import CONNECT_TIMEOUT_S, Unreachable

FILE = "model.safetensors"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it has fetched, as its environment variables say."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if given:
        return Path(given).expanduser()
    home = os.environ.get("HF_HOME")
    if home:
        return Path(home).expanduser() / "hub"
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "huggingface" / "hub"


def cached_files(repository: str, file: str = FILE) -> list[Path]:
    """A file of a repository in the cache, in all its versions, that of `main` first."""
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    try:
        main = (folder / "refs" / "main").read_text().strip()
    except OSError:
        main = ""
    found = sorted((folder / "snapshots").glob(f"*/{file}"))
    return sorted(found, key=lambda path: path.parent.name != main)


def known_digest(path: Path) -> str:
    """The SHA-256 that a file of the cache must have by the name of its blob, or nothing."""
    name = path.resolve().name
    return name if _DIGEST.fullmatch(name) else ""


def hub_url(repository: str, file: str = FILE) -> str:
    """Where a file of a repository is fetched from; HF_ENDPOINT names another server."""
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return f"{endpoint.rstrip('/')}/{repository}/resolve/main/{file}"


def check_online() -> None:
    """Raise Unreachable where the environment forbids to ask the network."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            raise Unreachable(f"{name} is set")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Do not follow: the answer that redirects has the digest."""


def published_digest(url: str, unreachable: set[str]) -> str:
    """The SHA-256 that the Hub says a file has; raises Unreachable where it says none."""
    host = urlparse(url).netloc
    if host in unreachable:
        raise Unreachable(f"{host} does not answer")
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "secateurs"})
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=CONNECT_TIMEOUT_S) as answer:
            headers = answer.headers
    except HTTPError as error:
        if not 300 <= error.code < 400:
            raise Unreachable(f"{host}: {error.reason}") from error
        headers = error.headers
    except (URLError, HTTPException, OSError) as error:
        unreachable.add(host)
        raise Unreachable(f"{host}: {getattr(error, 'reason', None) or error}") from error
    found = str(headers.get("X-Linked-Etag") or "").strip('W/"')
    if not _DIGEST.fullmatch(found):
        raise Unreachable(f"{host} has no such file, or does not say its SHA-256")
    return found
