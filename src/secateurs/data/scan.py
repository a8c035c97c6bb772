"""Folders of images in, a listing of names, labels and folds out; no file is opened."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from secateurs.errors import InputError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
FOLDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Listing:
    """The images of a folder: names relative to `root`, sorted by class, then by file name.

    `classes` are in alphabetical order and `labels` index into them; `folds` says "train", "val"
    or "test" for each image when the tree came with such folders. `ignored` counts the files that
    are not read, as (extension, count).
    """

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]
    folds: tuple[str, ...] | None = None
    ignored: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_ignored(self) -> int:
        """Files under `root` that are neither hidden nor images of a format that is read."""
        return sum(count for _, count in self.ignored)

    @property
    def per_class(self) -> tuple[int, ...]:
        """Images of each class, in the order of `classes`."""
        counts = Counter(self.labels)
        return tuple(counts[label] for label in range(len(self.classes)))

    def path(self, index: int) -> Path:
        """Where image `index` lies."""
        return self.root / self.names[index]


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in EXTENSIONS


def _children(folder: Path) -> tuple[list[str], list[str]]:
    # Folders and files that are not hidden, in a fixed order; links are followed.
    folders: list[str] = []
    files: list[str] = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from None
    for entry in entries:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if not entry.name.isprintable() or "\\" in entry.name:
            raise InputError(
                f"{os.fsencode(folder)!r}: the name {os.fsencode(entry.name)!r} is not plain"
                " printable text; rename it"
            )
        (folders if entry.is_dir() else files).append(entry.name)
    return folders, files


def _files_under(folder: Path, prefix: str = "", above: tuple[Path, ...] = ()) -> list[str]:
    # All files below `folder` as posix paths relative to it; a link to a folder above is an error.
    here = folder.resolve()
    if here in above:
        raise InputError(f"{folder}: a link that leads back to a folder above it; remove it")
    folders, files = _children(folder)
    found = [prefix + name for name in files]
    for name in folders:
        found += _files_under(folder / name, f"{prefix}{name}/", (*above, here))
    return found


def _refuse_loose(folder: Path, files: Sequence[str]) -> None:
    loose = [name for name in files if _is_image(name)]
    if loose:
        raise InputError(
            f"{folder}: {len(loose)} images lie outside a class folder (first: {loose[0]});"
            " expected one folder per class"
        )


@dataclass(frozen=True)
class _Image:
    label: str
    inner: str  # path within the class folder
    fold: str
    name: str  # path relative to the root


def _read_classes(
    folder: Path, prefix: str, fold: str, ignored: Counter[str], known: Sequence[str] | None = None
) -> list[_Image]:
    classes, files = _children(folder)
    _refuse_loose(folder, files)
    _ignore(files, ignored)
    if not classes:
        raise InputError(f"{folder}: no class folders; expected one folder of images per class")
    found: list[_Image] = []
    for label in classes:
        inside = _files_under(folder / label)
        images = [inner for inner in inside if _is_image(inner)]
        _ignore([inner for inner in inside if not _is_image(inner)], ignored)
        if not images and known is None:
            raise InputError(
                f"{folder / label}: class folder without images"
                f" ({', '.join(sorted(EXTENSIONS))}); add some or remove the folder"
            )
        found += [_Image(label, inner, fold, f"{prefix}{label}/{inner}") for inner in images]
    return found


def _ignore(names: Sequence[str], ignored: Counter[str]) -> None:
    ignored.update(Path(name).suffix.lower() for name in names)


def _fold_folders(root: Path, folders: Sequence[str]) -> dict[str, str] | None:
    # Fold -> its folder, when the tree is a ready-made one; None when the folders are classes.
    found: dict[str, str] = {}
    for name in folders:
        fold = FOLDS.get(name.lower())
        if fold is None:
            continue
        if fold in found:
            raise InputError(f"{root}: {found[fold]} and {name} are the same fold; keep one")
        found[fold] = name
    if "train" not in found or len(found) < 2:
        return None
    # A class may be called "train" too: then its images lie in it directly.
    inner_folders, inner_files = _children(root / found["train"])
    if not inner_folders and any(_is_image(name) for name in inner_files):
        return None
    return found


def _same_classes(root: Path, folders: dict[str, str], images: Sequence[_Image]) -> None:
    classes = {fold: {image.label for image in images if image.fold == fold} for fold in folders}
    for fold, folder in folders.items():
        for one, other, there, missing in (
            (fold, "train", folders["train"], classes[fold] - classes["train"]),
            ("train", fold, folder, classes["train"] - classes[fold]),
        ):
            if missing:
                raise InputError(
                    f"{root}: class {min(missing)} is in {folders[one]} and not in {there};"
                    f" expected the same classes in {folders[one]} and {folders[other]}"
                )


def _known_classes(
    root: Path, images: Sequence[_Image], known: Sequence[str]
) -> tuple[list[_Image], tuple[str, ...]]:
    # The images under the names of known classes, however their folders' accents are encoded.
    place = {unicodedata.normalize("NFC", name): name for name in known}
    found = {image.label: unicodedata.normalize("NFC", image.label) for image in images}
    if not found or not set(found.values()) <= place.keys():
        listed = ", ".join(sorted(found)) or "no images"
        raise InputError(
            f"{root}: the model knows the classes {', '.join(known)}; the folder has {listed}"
        )
    return [replace(image, label=place[found[image.label]]) for image in images], tuple(known)


def scan(root: Path, *, classes: Sequence[str] | None = None) -> Listing:
    """List the images of a folder-per-class tree, or of train/val/test folders of such trees.

    Read are files ending in .jpg, .jpeg, .png, .webp, .bmp, .tif or .tiff, in either case, at any
    depth of a class folder. Hidden files and folders are passed over; other files are counted in
    `Listing.ignored`. The validation folder may be called val, valid or validation.

    With the `classes` of a model the listing has these, in this order: some of them may have no
    folder or no images, and images of any other class are an error.

    Raises InputError when `root` is missing or not a folder, has no class folders, only one, one
    without images, images outside them, or folds with different classes.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root}: no such folder")
    if not root.is_dir():
        raise InputError(f"{root}: not a folder; expected a folder with one folder per class")
    folders, files = _children(root)
    ignored: Counter[str] = Counter()
    folds = _fold_folders(root, folders)
    if folds is None:
        images = _read_classes(root, "", "", ignored, classes)
    else:
        _refuse_loose(root, files)
        _ignore(files, ignored)
        images = []
        for fold, folder in folds.items():
            images += _read_classes(root / folder, f"{folder}/", fold, ignored, classes)
        if classes is None:
            _same_classes(root, folds, images)
        for folder in set(folders) - set(folds.values()):
            others = _files_under(root / folder)
            if any(_is_image(name) for name in others):
                raise InputError(
                    f"{root / folder}: images beside {folds['train']}/ that belong to no fold;"
                    " move them into one of the folds"
                )
            _ignore(others, ignored)
    if classes is None:
        found = tuple(sorted({image.label for image in images}))
        if len(found) < 2:
            raise InputError(f"{root}: one class only ({images[0].label}); expected at least 2")
    else:
        images, found = _known_classes(root, images, classes)
    place = {name: index for index, name in enumerate(found)}
    images.sort(key=lambda image: (place[image.label], image.inner, image.fold))
    return Listing(
        root=root,
        classes=found,
        names=tuple(image.name for image in images),
        labels=tuple(place[image.label] for image in images),
        folds=None if folds is None else tuple(image.fold for image in images),
        ignored=tuple(sorted(ignored.items())),
    )


def subset(listing: Listing, indices: Sequence[int]) -> Listing:
    """The listing with these images only, in this order; classes stay as they are."""
    return Listing(
        root=listing.root,
        classes=listing.classes,
        names=tuple(listing.names[i] for i in indices),
        labels=tuple(listing.labels[i] for i in indices),
        folds=None if listing.folds is None else tuple(listing.folds[i] for i in indices),
        ignored=listing.ignored,
    )
