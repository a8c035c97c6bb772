"""The folder that a word of the command line names, and the split of its images.

Nothing here needs a network: checking a folder starts without PyTorch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from secateurs.data.audit import Audit
from secateurs.data.faces.dataset import embedded_faces
from secateurs.data.predefined_splits import SIDES
from secateurs.data.scan import Listing
from secateurs.data.splits.image_groups import joined_groups, parse_group_by
from secateurs.data.splits.split import Split, make_split
from secateurs.errors import InputError
from secateurs.paths import FACES
from secateurs.progress import SILENT, Progress

FACES_GROUPS = r"^(\d+)_"


def data_folder(data: str, *, cache: Path, progress: Progress = SILENT) -> Path:
    """The folder for the word `faces` (rendered into the cache once) or for a path."""
    return embedded_faces(cache, progress=progress) if data == FACES else Path(data)


def split_listing(
    listing: Listing,
    *,
    rule: str,
    group_by: str | None,
    seed: int,
    spared: Collection[int] = (),
    copies: Sequence[Sequence[int]] = (),
) -> tuple[Split, tuple[str, ...] | None]:
    """The split by `rule`, and the groups; those decide a random split and count leakage in all.

    Under the rule `ungrouped` images are split at random although their groups are known. The
    classes `spared` may be missing from a side when they are too small for all three. `copies` are
    the images of identical pixels: a random split keeps them on one side, as if of one group.
    """
    groups = None if group_by is None else parse_group_by(listing.names, group_by)
    if rule in ("random", "ungrouped"):
        used = groups if rule == "random" else None
        made = _random_split(listing, used, copies, seed=seed, spared=spared)
        if rule == "ungrouped":
            made = replace(made, rule="random, groups ignored")
        return made, groups
    used = None if rule == "paper" else groups
    return make_split(listing, rule=rule, groups=used, seed=seed, spared=spared), groups


def _random_split(
    listing: Listing,
    groups: tuple[str, ...] | None,
    copies: Sequence[Sequence[int]],
    *,
    seed: int,
    spared: Collection[int],
) -> Split:
    """A random split, copies on one side; apart where a class has too few images for that."""
    if copies:
        together = joined_groups(groups, copies, len(listing))
        with contextlib.suppress(InputError):
            made = make_split(listing, rule="random", groups=together, seed=seed, spared=spared)
            return replace(made, groups=groups)
    return make_split(listing, rule="random", groups=groups, seed=seed, spared=spared)


def split_audit(
    audit: Audit, *, rule: str, group_by: str | None, seed: int
) -> tuple[Split, tuple[str, ...] | None]:
    """The split of usable images for training, as `split_listing`.

    A class that has become small because some of its files cannot be used may be missing from a
    side. Raises InputError for a class of which no image can be used.
    """
    audit.check_classes()
    spared = audit.short_classes
    return split_listing(
        audit.listing, rule=rule, group_by=group_by, seed=seed, spared=spared, copies=audit.exact
    )


def split_notes(listing: Listing, split: Split) -> list[str]:
    """What someone may not expect of a split: that it is by folders, and classes not on a side."""
    notes: list[str] = []
    if split.rule.startswith("folders"):
        folders = ", ".join(folder for _, folder in listing.sides)
        notes.append(f"split by {split.rule} ({folders}); --split random splits all images again")
    labels = np.asarray(listing.labels)
    for side in SIDES:
        there = set(labels[getattr(split, side)].tolist())
        lacking = [name for label, name in enumerate(listing.classes) if label not in there]
        if lacking:
            notes.append(f"too few usable images: {', '.join(lacking)} not on the {side} side")
    return notes
