"""The image files under a folder, and what was met there that is no usable image file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from secateurs.data.images.file_types import (
    OTHER_IMAGES,
    as_extension,
    extension,
    has_image_name,
    hidden_kind,
    is_read,
)
from secateurs.data.names import escaped, is_text
from secateurs.errors import InputError

MAX_DEPTH = 32  # folders within folders
# Made by operating systems, network storage and programs beside the user's own files.
_SYSTEM = frozenset(
    name.casefold()
    for name in (
        *("$RECYCLE.BIN", "RECYCLER", "RECYCLED", "System Volume Information", "found.000"),
        *("Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "lost+found"),
        *("__MACOSX", "Icon\r", ".DS_Store", ".Trashes", ".fseventsd", ".Spotlight-V100"),
        *(".TemporaryItems", ".DocumentRevisions-V100", ".AppleDouble", ".AppleDB"),
        *("Network Trash Folder", "Temporary Items", ".directory", ".thumbnails"),
        *("@eaDir", "@tmp", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot"),
        *(".@__thumb", ".snapshot", ".snapshots", ".ipynb_checkpoints", "__pycache__"),
    )
)
_SILENT = frozenset({".ds_store", ".directory"})  # in nearly every folder, and never with images


@dataclass(frozen=True)
class BadFile:
    """A file that cannot be used: its name, the reason in a word or two, and the detail.

    `label` is the class that it lies in, empty outside a set of classes.
    """

    name: str
    reason: str
    detail: str
    label: str = ""


@dataclass
class Remarks:
    """What a walk met besides images; it adds to these as it goes.

    `bad` are files and folders that cannot be read. Counted are by extension: in `ignored` files
    that are not read, in `disguised` those with the content of an image all the same; in `system`
    files and folders of the system by name, and `num_hidden` images whose name begins with a dot.
    """

    bad: list[BadFile] = field(default_factory=list[BadFile])
    ignored: Counter[str] = field(default_factory=Counter[str])
    disguised: Counter[str] = field(default_factory=Counter[str])
    system: Counter[str] = field(default_factory=Counter[str])
    num_hidden: int = 0

    def sentences(self) -> tuple[str, ...]:
        """What was left out that someone may miss."""
        found: list[str] = []
        other = {kind: num for kind, num in self.ignored.items() if kind in OTHER_IMAGES}
        if other:
            found.append(f"Images of formats that are not read were left out: {_listed(other)}.")
        if self.disguised:
            kinds = _listed(self.disguised)
            found.append(f"Images with another extension were left out: {kinds}; rename them.")
        if self.num_hidden:
            found.append(f"Hidden images were left out: {self.num_hidden}.")
        if self.system:
            names = _listed(self.system)
            found.append(f"Files and folders of the system were left out: {names}.")
        return tuple(found)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{num} {name}" for name, num in sorted(counts.items()))


@dataclass(frozen=True)
class ImageFiles:
    """The image files of a folder in the order of their names, and what was left out.

    `sentences` say what else was there that someone may miss.
    """

    paths: tuple[Path, ...]
    bad: tuple[BadFile, ...] = ()
    sentences: tuple[str, ...] = ()


def image_files(path: Path) -> ImageFiles:
    """The images of a folder, at any depth, as `scan` finds them; or the one file that is named.

    A file that is named is taken whatever its name; whether it can be decoded is not checked.
    Raises InputError when there is nothing at `path`, or it is neither a file nor a folder, or a
    folder that cannot be listed or holds no image.
    """
    path = Path(path)
    if not path.is_dir():
        if not _exists(path):
            raise InputError(f"{path}: no such file or folder")
        if not path.is_file():
            raise InputError(f"{path}: neither a regular file nor a folder")
        return ImageFiles((path,))
    remarks = Remarks()
    names = images_under(path, remarks)
    if not names:
        bad = [f"{bad.name}: {bad.reason} ({bad.detail})" for bad in remarks.bad[:1]]
        raise InputError("; ".join([f"{path}: no image in it", *bad, *remarks.sentences()]))
    return ImageFiles(
        tuple(path / name for name in sorted(names)),
        tuple(sorted(remarks.bad, key=lambda bad: bad.name)),
        remarks.sentences(),
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a link to itself, or a name that is too long
        return False


def children(folder: Path, remarks: Remarks) -> tuple[list[str], list[str]]:
    """The names of the folders and of the files in a folder, in order; links are followed.

    Hidden entries and those of the system are left out. Raises OSError when it cannot be listed.
    """
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        name = entry.name
        if name.casefold() in _SYSTEM:
            if name.casefold() not in _SILENT:
                remarks.system[name.strip()] += 1
            continue
        if name.startswith("."):
            if has_image_name(name) and not name.startswith("._") and not _is_folder(entry):
                remarks.num_hidden += 1
            continue
        (folders if _is_folder(entry) else files).append(name)
    return folders, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to where one may not look
        return False


def images_under(folder: Path, remarks: Remarks, *, prefix: str = "", label: str = "") -> list[str]:
    """The images below a folder as posix paths relative to it; the rest goes into `remarks`.

    `prefix` and `label` are put before the names and into the label of what cannot be read. Each
    folder is read once, whichever links lead to it, and none below 32 others. Raises InputError
    for a link that leads back to a folder above it, and when `folder` itself cannot be listed.
    """
    found: list[str] = []
    seen: set[tuple[int, int]] = set()
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while pending:
        inner, above = pending.pop()
        here = folder / inner
        shown = escaped(prefix + inner)
        try:
            status = here.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                raise InputError(
                    f"{escaped(str(here))}: a link that leads back to a folder above it; remove it"
                )
            if identity in seen:
                detail = "a link to a folder that was read already"
                remarks.bad.append(BadFile(shown, "repeated folder", detail, label))
                continue
            seen.add(identity)
            if len(above) >= MAX_DEPTH:
                detail = f"more than {MAX_DEPTH} folders within folders; nothing there was read"
                remarks.bad.append(BadFile(_short(shown), "too deep", detail, label))
                continue
            folders, files = children(here, remarks)
        except OSError as error:
            detail = error.strerror or "cannot be opened"
            if not inner:
                raise InputError(f"{escaped(str(here))}: cannot be listed ({detail})") from None
            remarks.bad.append(BadFile(_short(shown), "unreadable folder", detail, label))
            continue
        for name in files:
            if _is_image(here / name, name, remarks):
                _take(inner + name, prefix, label, found, remarks)
        pending += [(f"{inner}{name}/", (*above, identity)) for name in reversed(folders)]
    return found


def _take(name: str, prefix: str, label: str, found: list[str], remarks: Remarks) -> None:
    if is_text(name):
        found.append(name)
        return
    surrogates = any("\ud800" <= character <= "\udfff" for character in name)
    detail = f"the name {'is no valid text' if surrogates else 'has control characters'}; rename it"
    remarks.bad.append(BadFile(escaped(prefix + name), "unusable name", detail, label))


def _short(name: str) -> str:
    return name if len(name) <= 120 else f"{name[:100]}..."


def _is_image(path: Path, name: str, remarks: Remarks) -> bool:
    # By its name, and a file without an extension by its content.
    if has_image_name(name):
        return True
    ending = extension(name)
    found = None if ending in OTHER_IMAGES else hidden_kind(path)
    if found is not None and is_read(found) and not ending:
        return True
    if found is None:
        remarks.ignored[ending] += 1
    elif is_read(found):
        remarks.disguised[ending] += 1
    else:
        remarks.ignored[as_extension(found)] += 1
    return False


def images_of(names: Sequence[str], folder: Path, remarks: Remarks) -> list[str]:
    """Those of a folder's file names that are images; the others are counted in `remarks`."""
    return [name for name in names if _is_image(folder / name, name, remarks)]
