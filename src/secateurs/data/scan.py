"""Folders of images in, a listing of names, labels and sides out; no image is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from secateurs.data.folders import BadFile, Remarks, children, images_of, images_under
from secateurs.data.images.file_types import EXTENSIONS
from secateurs.data.names import escaped, is_text, printable, same_name
from secateurs.data.predefined_splits import (
    refuse_same_folders,
    refuse_sides_without_train,
    side_folders,
)
from secateurs.errors import InputError
from secateurs.wording import counted

__all__ = ["EXTENSIONS", "Listing", "has_sides", "refuse_parts", "scan", "subset"]


@dataclass(frozen=True)
class Listing:
    """The images of a folder: names relative to `root`, sorted by class, then by file name.

    `classes` are in alphabetical order and `labels` index into them; `folds` says "train", "val"
    or "test" for each image when the tree came with such folders, and `sides` which folder is
    which. `ignored` counts the files that are not read, as (extension, count); `bad` are files and
    folders that cannot be read because of what they are or how they are called, and `left_out`
    says in sentences which images of other kinds, and which folders of the system, there are.
    """

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]
    folds: tuple[str, ...] | None = None
    ignored: tuple[tuple[str, int], ...] = ()
    sides: tuple[tuple[str, str], ...] = ()
    bad: tuple[BadFile, ...] = ()
    left_out: tuple[str, ...] = ()

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

    def folder(self, side: str) -> str:
        """The name of the folder of a side, as in the tree."""
        return dict(self.sides).get(side, side)


@dataclass(frozen=True)
class _Image:
    label: str
    inner: str  # path within the class folder
    fold: str
    name: str  # path relative to the root


def _list(folder: Path, remarks: Remarks) -> tuple[list[str], list[str]]:
    try:
        return children(folder, remarks)
    except OSError as error:
        raise InputError(f"{escaped(str(folder))}: cannot be listed ({error.strerror})") from None


def _refuse_loose(folder: Path, files: Sequence[str], remarks: Remarks) -> None:
    loose = images_of(files, folder, remarks)
    if loose:
        raise InputError(
            f"{escaped(str(folder))}: {counted(len(loose), 'image')} outside the class folders"
            f" (first: {printable(loose[0])}); expected one folder per class"
        )


def _read_classes(
    folder: Path, prefix: str, fold: str, remarks: Remarks, known: Sequence[str] | None
) -> list[_Image]:
    names, files = _list(folder, remarks)
    _refuse_loose(folder, files, remarks)
    if not names:
        raise InputError(
            f"{escaped(str(folder))}: no class folders; expected one folder of images per class"
        )
    found: list[_Image] = []
    empty: dict[str, str] = {}  # class -> its folder
    for name in names:
        if not is_text(name):
            raise InputError(
                f"{escaped(str(folder / name))}: the name of a class has to be text without"
                " control characters; rename the folder"
            )
        # File systems differ in how they spell an accent; it is one class.
        label = same_name(name)
        inside = images_under(folder / name, remarks, prefix=f"{prefix}{name}/", label=label)
        found += [_Image(label, inner, fold, f"{prefix}{name}/{inner}") for inner in inside]
        if not inside:
            empty[label] = name
    lost = sorted(empty.keys() - {image.label for image in found})
    if lost and known is None:
        bad = [f"; {bad.name}: {bad.detail}" for bad in remarks.bad if bad.label == lost[0]]
        raise InputError(
            f"{escaped(str(folder / empty[lost[0]]))}: class folder without images"
            f" ({', '.join(sorted(EXTENSIONS))}); add some or remove the folder{''.join(bad[:1])}"
        )
    return found


def _sides(root: Path, folders: Sequence[str]) -> dict[str, str]:
    # Side -> its folder, when the tree comes split; none when the folders are classes.
    found = side_folders(root, folders)
    if found:
        # A class may be called "train" too: then its images lie in it directly.
        inner, files = _list(root / found["train"], Remarks())
        if not inner and images_of(files, root / found["train"], Remarks()):
            return {}
    return found


def has_sides(root: Path) -> bool:
    """Whether a tree comes with train, validation or test folders; False when it cannot be listed.

    Raises InputError when two folders are the same side.
    """
    root = Path(root)
    return root.is_dir() and bool(_sides(root, _list(root, Remarks())[0]))


def refuse_parts(root: Path) -> None:
    """Raise InputError when a tree's folders all hold the same sub-folders, as parts of a set do.

    Nothing is raised for a tree that cannot be listed, or whose folders are train and test sides.
    """
    root = Path(root)
    if root.is_dir() and not has_sides(root):
        _refuse_no_classes(root, _read_classes(root, "", "", Remarks(), None), "auto")


def _same_classes(root: Path, folders: dict[str, str], images: Sequence[_Image]) -> None:
    classes = {fold: {image.label for image in images if image.fold == fold} for fold in folders}
    for fold, folder in folders.items():
        for one, other, there, missing in (
            (fold, "train", folders["train"], classes[fold] - classes["train"]),
            ("train", fold, folder, classes["train"] - classes[fold]),
        ):
            if missing:
                raise InputError(
                    f"{root}: class {printable(min(missing))} is in {folders[one]} and not in"
                    f" {there}; expected the same classes in {folders[one]} and {folders[other]}"
                )


def _known_classes(
    root: Path, images: Sequence[_Image], known: Sequence[str]
) -> tuple[list[_Image], tuple[str, ...]]:
    # The images under the names of known classes, however their folders' accents are encoded.
    place = {same_name(name): name for name in known}
    found = {image.label for image in images}
    if not found or not found <= place.keys():
        listed = ", ".join(map(printable, sorted(found))) or "no images"
        raise InputError(
            f"{root}: the model knows the classes {', '.join(known)}; the folder has {listed}"
        )
    return [replace(image, label=place[image.label]) for image in images], tuple(known)


def _read_sides(
    root: Path,
    folders: Sequence[str],
    sides: dict[str, str],
    remarks: Remarks,
    known: Sequence[str] | None,
) -> list[_Image]:
    images: list[_Image] = []
    for side, folder in sides.items():
        images += _read_classes(root / folder, f"{folder}/", side, remarks, known)
    if known is None:
        _same_classes(root, sides, images)
    for folder in sorted(set(folders) - set(sides.values())):
        if images_under(root / folder, remarks, prefix=f"{folder}/"):
            raise InputError(
                f"{escaped(str(root / folder))}: images beside {sides['train']}/ that belong to no"
                " fold; move them into one of the folds"
            )
    return images


def scan(root: Path, *, classes: Sequence[str] | None = None, split: str = "auto") -> Listing:
    """List the images of a folder-per-class tree, or of train, val and test folders of such trees.

    Read are files with the extension of a format that is read (`EXTENSIONS`), in either case, and
    images without an extension, at any depth of a class folder. Hidden files and folders, and those
    of the system, are passed over; other files are counted in `Listing.ignored`. Sides are called
    train or training; val, valid, validation or dev; test, testing, eval or holdout, in any case.
    Two spellings of a class name in Unicode are one class.

    With the `classes` of a model the listing has these, in this order: some of them may have no
    folder or no images, and images of any other class are an error. The `split` random or
    ungrouped says that the outer folders are the classes even if all hold the same sub-folders.

    Raises InputError when `root` is missing or not a folder, has no class folders, only one, one
    without images, images outside them, sides with different classes, or "classes" that all hold
    the same sub-folders.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root}: no such folder")
    if not root.is_dir():
        raise InputError(f"{root}: not a folder; expected a folder with one folder per class")
    remarks = Remarks()
    folders, files = _list(root, remarks)
    own = {same_name(name) for name in classes or ()}
    are_classes = bool(own) and {same_name(name) for name in folders} <= own
    sides = {} if are_classes else _sides(root, folders)
    if sides:
        _refuse_loose(root, files, remarks)
        images = _read_sides(root, folders, sides, remarks, classes)
    else:
        remarks = Remarks()  # the same folder is listed once more
        images = _read_classes(root, "", "", remarks, classes)
        if not are_classes:
            _refuse_no_classes(root, images, split)
    if classes is not None:
        images, found = _known_classes(root, images, classes)
    else:
        found = tuple(sorted({image.label for image in images}))
        if len(found) == 1:
            raise InputError(
                f"{root}: one class only ({printable(found[0])}); expected at least 2"
                + _deeper(root, images)
            )
    place = {name: index for index, name in enumerate(found)}
    images.sort(key=lambda image: (place[image.label], image.inner, image.fold, image.name))
    return Listing(
        root=root,
        classes=found,
        names=tuple(image.name for image in images),
        labels=tuple(place[image.label] for image in images),
        folds=tuple(image.fold for image in images) if sides else None,
        ignored=tuple(sorted(remarks.ignored.items())),
        sides=tuple(sides.items()),
        bad=tuple(sorted(remarks.bad, key=lambda bad: bad.name)),
        left_out=remarks.sentences(),
    )


def _refuse_no_classes(root: Path, images: Sequence[_Image], split: str) -> None:
    inner: dict[str, list[str]] = {}
    for image in images:
        inner.setdefault(image.label, []).append(image.inner)
    if all("/" in path for paths in inner.values() for path in paths):
        refuse_sides_without_train(root, list(inner))
    if split not in ("random", "ungrouped"):
        refuse_same_folders(root, inner)


def _deeper(root: Path, images: Sequence[_Image]) -> str:
    # A hint for the folder that holds the folder of classes.
    inner = {image.inner.partition("/")[0] for image in images if "/" in image.inner}
    if len(inner) > 1 and all("/" in image.inner for image in images):
        folder = images[0].name.partition("/")[0]
        return f"; if the classes are the folders in it, give {printable(str(root / folder))}"
    return ""


def subset(listing: Listing, indices: Sequence[int]) -> Listing:
    """The listing with these images only, in this order; classes stay as they are."""
    return replace(
        listing,
        names=tuple(listing.names[i] for i in indices),
        labels=tuple(listing.labels[i] for i in indices),
        folds=None if listing.folds is None else tuple(listing.folds[i] for i in indices),
    )
