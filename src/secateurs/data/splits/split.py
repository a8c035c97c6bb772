"""Train, validation and test sides: seeded, group-aware, the paper's rule, and what they leak."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from secateurs.data.audit import Audit
from secateurs.data.predefined_splits import SIDES
from secateurs.data.scan import Listing
from secateurs.data.splits.assignment import SplitCost, best_sides
from secateurs.errors import InputError
from secateurs.wording import counted

FRACTIONS = (0.6, 0.2, 0.2)

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Which images are on which side: sorted int64 indices into a listing."""

    rule: str
    seed: int
    train: Indices
    val: Indices
    test: Indices
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Leakage:
    """How many test images a training image gives away; `same_group` None without groups.

    `duplicate` test images have the same pixels as a training image, `near_duplicate` look nearly
    like one.
    """

    num_test: int
    same_group: int | None
    duplicate: int
    near_duplicate: int

    def to_json(self) -> dict[str, int | None]:
        """The record as plain data."""
        return asdict(self)


def make_split(
    listing: Listing,
    *,
    rule: str,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    spared: Collection[int] = (),
) -> Split:
    """Split by `rule`: random (by group when groups are given), paper, or folders.

    The rule auto is folders where the listing has them, else random. In a split by folders groups
    decide only what is taken from the training images, for a side that has no folder. The classes
    `spared` may be missing from the validation side, or from validation and test, when they are
    too small: files of theirs cannot be used.
    """
    if rule == "auto":
        rule = "random" if listing.folds is None else "folders"
    if groups is not None and rule not in ("random", "folders"):
        raise InputError(f"--group-by goes with --split random, not with {rule}")
    options: _Options = {"seed": seed, "classes": listing.classes, "spared": spared}
    if rule == "random" and groups is not None:
        return group_split(listing.labels, groups, **options)
    if rule == "random":
        return random_split(listing.labels, **options)
    if rule == "paper":
        return paper_split(listing.labels)
    if rule == "folders":
        return folder_split(listing, seed=seed, groups=groups, spared=spared)
    raise InputError(
        f"--split must be random, ungrouped, paper or folders, got {rule!r}; auto goes by the tree"
    )


class _Options(TypedDict):
    seed: int
    classes: Sequence[str]
    spared: Collection[int]


def random_split(
    labels: Sequence[int],
    *,
    seed: int,
    fractions: tuple[float, float, float] = FRACTIONS,
    classes: Sequence[str] = (),
    spared: Collection[int] = (),
) -> Split:
    """Every class cut in the same proportions, in a seeded random order.

    Counts are rounded so that each class differs from the proportions by less than one image and
    has at least one on every side. Raises InputError for a class of fewer than three images, unless
    it is one of those `spared`: of two images one is for training and one for the test, a single
    one is for training.

    >>> split = random_split([0] * 10 + [1] * 5, seed=0)
    >>> len(split.train), len(split.val), len(split.test)
    (9, 3, 3)
    """
    array = _labels(labels)
    generator = np.random.default_rng(seed)
    sides: tuple[list[int], ...] = ([], [], [])
    for label in range(int(array.max()) + 1):
        members = generator.permutation(np.flatnonzero(array == label))
        if len(members) < 3 and label not in spared:
            raise InputError(
                f"class {_name(label, classes)} has {counted(len(members), 'usable image')}; a "
                "split needs at least 3, one per side"
            )
        for side, rows in zip(sides, _cut(members, fractions), strict=True):
            side.extend(rows.tolist())
    return _split("random", seed, *sides)


def _cut(members: Indices, fractions: tuple[float, float, float]) -> list[Indices]:
    num = len(members)
    if num < 3:
        return np.split(members, [1, 1])
    num_val, num_test = (max(1, round(num * fraction)) for fraction in fractions[1:])
    while num - num_val - num_test < 1:
        num_val, num_test = max(1, num_val - 1), max(1, num_test - 1)
    num_train = num - num_val - num_test
    return np.split(members, [num_train, num_train + num_val])


def group_split(
    labels: Sequence[int],
    groups: Sequence[str],
    *,
    seed: int,
    fractions: tuple[float, float, float] = FRACTIONS,
    classes: Sequence[str] = (),
    spared: Collection[int] = (),
) -> Split:
    """No group on two sides, classes as even as can be.

    Even is: a small sum over sides and classes of the squared deviation from the fraction wanted,
    as a share of the class; an empty side of a class is worse than any deviation. With up to 9
    groups it is the smallest there is, else that of the best of 24 seeded tries. Raises InputError
    when there are fewer than three groups, or a class cannot be on every side and is not `spared`.
    """
    array = _labels(labels)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 3:
        raise InputError(f"--group-by found {len(names)} groups; a split needs at least 3")
    table = np.zeros((len(names), int(array.max()) + 1))  # images of (group, class)
    np.add.at(table, (member, array), 1)
    problem = SplitCost(table, wanted=np.outer(fractions, table.sum(axis=0)))
    side = best_sides(problem, seed=seed)
    counts = problem.counts(side)
    for where, label in np.argwhere(counts == 0):
        if table[:, label].sum() > 0 and (int(label) not in spared or where == 0):
            num_groups = int((table[:, label] > 0).sum())
            raise InputError(
                f"class {_name(int(label), classes)} has no image on the {SIDES[where]} side: "
                f"its images are in {num_groups} groups and groups are not divided"
            )
    sides = [np.flatnonzero(side[member] == k).tolist() for k in range(3)]
    split = _split("random by group", seed, *sides)
    return Split(split.rule, seed, split.train, split.val, split.test, tuple(groups))


def paper_split(labels: Sequence[int], *, seed: int = 1) -> Split:
    """The split of the paper's program: one legacy NumPy generator walked through the classes.

    For each class, in order: a uniform for each file, below 0.6 train; then one for each of the
    rest, below 0.5 validation, else test. Its sides have no fixed size: a class of a few images
    may be missing from one, which raises InputError.

    >>> split = paper_split([0] * 100 + [1] * 75 + [2] * 100)
    >>> len(split.train), len(split.val), len(split.test)
    (161, 51, 63)
    """
    array = _labels(labels)
    # The published split depends on this very generator and its order of draws.
    generator = np.random.RandomState(seed)
    sides: tuple[list[int], ...] = ([], [], [])
    for label in range(int(array.max()) + 1):
        members = np.flatnonzero(array == label)
        in_train = generator.uniform(size=len(members)) < 0.6
        rest = members[~in_train]
        in_val = generator.uniform(size=len(rest)) < 0.5
        for side, rows in zip(sides, (members[in_train], rest[in_val], rest[~in_val]), strict=True):
            side.extend(rows.tolist())
    for name, side in zip(SIDES, sides, strict=True):
        if not side:
            raise InputError(f"the paper's rule leaves no image on the {name} side")
    return _split("paper", seed, *sides)


def folder_split(
    listing: Listing,
    *,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    spared: Collection[int] = (),
) -> Split:
    """The sides of a tree with train, val and test folders.

    Without a validation folder a stratified quarter of the training images is taken, and without a
    test folder likewise; no group is divided by that when `groups` are given. Raises InputError
    when the tree has no such folders, a folder has no usable image, or a class has too few training
    images to take some and is not `spared`.
    """
    if listing.folds is None:
        raise InputError(f"{listing.root}: no train/, val/ and test/ folders for --split folders")
    folds = np.asarray(listing.folds)
    sides = {name: np.flatnonzero(folds == name) for name in SIDES}
    there = {side for side, _ in listing.sides}
    for name in SIDES:
        if len(sides[name]) == 0 and (name == "train" or name in there):
            raise InputError(f"{listing.root}: no usable images in {listing.folder(name)}/")
    rule = "folders"
    missing = [name for name in ("val", "test") if len(sides[name]) == 0]
    for name in missing:
        taken = _take_quarter(listing, sides["train"], name, seed, groups, spared)
        sides["train"], sides[name] = np.setdiff1d(sides["train"], taken), taken
        rule = f"folders, {'validation' if name == 'val' else name} taken from train"
    return _split(rule, seed, *(sides[name] for name in SIDES))


def _take_quarter(
    listing: Listing,
    train: Indices,
    name: str,
    seed: int,
    groups: Sequence[str] | None,
    spared: Collection[int],
) -> Indices:
    # A quarter of each class, and at least one; of whole groups when they are given.
    labels = np.asarray(listing.labels)[train]
    for label, num in zip(*np.unique(labels, return_counts=True), strict=True):
        if num < 2 and int(label) not in spared:
            what = "validation" if name == "val" else name
            raise InputError(
                f"{listing.root}: no images in {name}/, and class {listing.classes[label]} has 1"
                f" training image, too few to take {what} images from; at least 2 are needed"
            )
    generator = np.random.default_rng(seed)
    if groups is not None:
        return _take_groups(listing, train, groups, seed, spared)
    taken: list[int] = []
    for label in np.unique(labels):
        members = generator.permutation(train[labels == label])
        if len(members) > 1:
            taken.extend(members[: max(1, round(len(members) / 4))].tolist())
    return np.array(sorted(taken), dtype=np.int64)


def _take_groups(
    listing: Listing, train: Indices, groups: Sequence[str], seed: int, spared: Collection[int]
) -> Indices:
    names, member = np.unique(np.asarray([groups[i] for i in train]), return_inverse=True)
    if len(names) < 2:
        raise InputError(f"--group-by found {len(names)} group in train/; a split needs at least 2")
    labels = np.asarray(listing.labels)[train]
    table = np.zeros((len(names), len(listing.classes)))
    np.add.at(table, (member, labels), 1)
    problem = SplitCost(table, wanted=np.outer((0.75, 0.25), table.sum(axis=0)))
    side = best_sides(problem, seed=seed)
    for where, label in np.argwhere(problem.counts(side) == 0):
        if table[:, label].any() and not (where == 1 and int(label) in spared):
            raise InputError(
                f"class {listing.classes[label]}: its training images are in"
                f" {int((table[:, label] > 0).sum())} groups, too few to take whole groups from"
                " train/ for a side that has no folder"
            )
    return train[side[member] == 1]


def _split(rule: str, seed: int, *sides: Sequence[int] | Indices) -> Split:
    train, val, test = (np.sort(np.asarray(side, dtype=np.int64)) for side in sides)
    return Split(rule, seed, train, val, test)


def _labels(labels: Sequence[int]) -> Indices:
    if not len(labels):
        raise InputError("there are no usable images to split")
    return np.asarray(labels, dtype=np.int64)


def _name(label: int, classes: Sequence[str]) -> str:
    return classes[label] if label < len(classes) else str(label)


def leakage(split: Split, audit: Audit, groups: Sequence[str] | None = None) -> Leakage:
    """Count the test images that share a group with, equal or resemble a training image."""
    train, test = set(split.train.tolist()), split.test.tolist()
    same_group = None
    if groups is not None:
        known = {groups[index] for index in train}
        same_group = sum(groups[index] in known for index in test)
    exact = {i for group in audit.exact if train & set(group) for i in group}
    near = {a for i, j in audit.near for a, b in ((i, j), (j, i)) if b in train}
    return Leakage(
        num_test=len(test),
        same_group=same_group,
        duplicate=sum(index in exact for index in test),
        near_duplicate=sum(index in near and index not in exact for index in test),
    )


def split_json(split: Split, listing: Listing) -> dict[str, Any]:
    """The split as plain data: rule, seed, counts, counts per class, file names of each side."""
    labels = np.asarray(listing.labels)
    sides: dict[str, Indices] = {name: getattr(split, name) for name in SIDES}
    return {
        "rule": split.rule,
        "seed": split.seed,
        "counts": {name: len(rows) for name, rows in sides.items()},
        "per_class": {
            name: np.bincount(labels[rows], minlength=len(listing.classes)).tolist()
            for name, rows in sides.items()
        },
        "names": {name: [listing.names[i] for i in rows] for name, rows in sides.items()},
    }
