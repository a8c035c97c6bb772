"""How the images of a folder stand to a saved model: trained on, chosen on, tested on, or new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateurs.data.audit import Audit
from secateurs.data.splits.split import SIDES, Split, leakage
from secateurs.data.splits.split_record import Recognition, SplitRecord, group_digest, recognise
from secateurs.errors import InputError

Rows = NDArray[np.int64]
UNKNOWN = (
    "this model does not say which images it was trained on (it was saved by an older version or "
    "without a split): the split is drawn again, so its test images may have been trained on"
)
UNKNOWN_ALL = (
    "this model does not say which images it was trained on (it was saved by an older version or "
    "without a split): some of these may be among them"
)
TRAINED_ON = (
    "the model was trained on its validation images too, once it was chosen: its accuracy on them "
    "is too optimistic"
)
REFIT = "refit"  # in `extra` of the recipe of such a model: "all"
_SIDE_NAMES = {"train": "training", "val": "validation", "test": "test"}


def is_refitted(extra: Mapping[str, Any]) -> bool:
    """Whether a model's recipe says that it was trained on its validation images too.

    >>> is_refitted({"refit": "all"}), is_refitted({"depth": 5})
    (True, False)
    """
    return extra.get(REFIT) == "all"


@dataclass(frozen=True)
class ImageStatus:
    """Counts of a folder's images by what a saved model did with them, and remarks on them.

    `known` is False for a model without a record; then no image is recognised. `num_copies` counts
    test images with the content of a training or validation image, which are not evaluated;
    `num_new` images that the model has not seen; `missing` its own images, by side, that are not
    in the folder.
    """

    known: bool
    num_train: int = 0
    num_val: int = 0
    num_test: int = 0
    num_copies: int = 0
    num_new: int = 0
    missing: dict[str, int] | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The record as plain data."""
        return asdict(self) | {"notes": list(self.notes)}


@dataclass(frozen=True)
class Recognised:
    """A folder's images with the side of each in a model's record; see `Recognition`.

    `refitted` says that the model was trained on its validation images too.
    """

    record: SplitRecord
    audit: Audit
    groups: tuple[str, ...] | None
    found: Recognition
    refitted: bool = False

    @classmethod
    def of(
        cls,
        record: SplitRecord,
        audit: Audit,
        groups: tuple[str, ...] | None,
        *,
        refitted: bool = False,
    ) -> Recognised:
        """Look an audit's images up in a record."""
        return cls(record, audit, groups, recognise(record, audit), refitted)

    def rows(self, *sides: str | None) -> Rows:
        """Rows of the listing whose recorded side is one of `sides`; None is a new image."""
        return np.flatnonzero([side in sides for side in self.found.sides])

    def own_split(self) -> Split:
        """The model's own sides, as far as they are in the folder; new images are test images.

        In a tree that was split by its folders only the new images of the test folder are.
        """
        new, folds = self.rows(None), self.audit.listing.folds
        if folds is not None and self.record.rule.startswith("folders"):
            new = new[np.asarray(folds)[new] == "test"]
        return Split(
            self.record.rule,
            self.record.seed,
            self.rows("train"),
            self.rows("val"),
            np.union1d(self.rows("test"), new),
        )

    def restricted(self, drawn: Split) -> Split:
        """Another split, without the images that its sides must not have.

        Not on the validation side are images that the model was trained on, not on the test side
        those nor the ones that it was chosen on; its test images are on no other side.
        """
        seen, test = self.rows("train", "val", "copy"), self.rows("test")
        trained = seen if self.refitted else self.rows("train", "copy")
        return Split(
            drawn.rule,
            drawn.seed,
            np.setdiff1d(drawn.train, np.union1d(self.rows("val", "copy"), test)),
            np.setdiff1d(drawn.val, np.union1d(trained, test)),
            np.setdiff1d(drawn.test, seen),
        )

    def filled(self, split: Split, drawn: Split) -> Split:
        """A split whose training or validation side, where empty, is filled with new images.

        `drawn` says which of them.
        """
        new = self.rows(None)
        sides = {side: getattr(split, side) for side in ("train", "val")}
        for side, rows in sides.items():
            if not len(rows):
                sides[side] = np.intersect1d(getattr(drawn, side), new)
        used = np.union1d(sides["train"], sides["val"])
        return Split(split.rule, split.seed, **sides, test=np.setdiff1d(split.test, used))

    def image_status(self, split: Split, notes: Sequence[str] = ()) -> ImageStatus:
        """The counts of the folder, with remarks on what is evaluated as `split`'s test side."""
        own = self.found.sides
        counts = {side: own.count(side) for side in (*SIDES, "copy", None)}
        refitted = [TRAINED_ON] if self.refitted and counts["val"] else []
        said = [
            *notes,
            *refitted,
            *self._missing(),
            *self._copies(counts["copy"]),
            *self._new(split),
        ]
        return ImageStatus(
            known=True,
            num_train=counts["train"],
            num_val=counts["val"],
            num_test=counts["test"],
            num_copies=counts["copy"],
            num_new=counts[None],
            missing=dict(self.found.num_missing),
            notes=tuple(said),
        )

    def _missing(self) -> list[str]:
        missing, recorded = self.found.num_missing, self.record.sides
        if not any(missing.values()) or not any(self.found.sides):
            return []
        parts = [
            f"{missing[side]} of its {len(recorded[side])} {_SIDE_NAMES[side]} images"
            for side in SIDES
            if missing[side]
        ]
        return [f"not in the folder, of the images that the model knows: {', '.join(parts)}"]

    def _copies(self, num: int) -> list[str]:
        if not num:
            return []
        are = "image has" if num == 1 else "images have"
        return [f"{num} test {are} the pixels of a training or validation image: not evaluated"]

    def _new(self, split: Split) -> list[str]:
        new = self.rows(None)
        if not len(new):
            return self._near(split)
        tested = np.intersect1d(new, split.test)
        said = [
            f"{len(new)} of the {len(self.found.sides)} images are new to the model; "
            f"{len(tested)} of them are test images"
        ]
        num = self._of_seen_groups(tested)
        if num:
            said.append(
                f"{num} of the new test images belong to a group that the model was trained or "
                "chosen on: the accuracy on them is too optimistic"
            )
        return said + self._near(split)

    def _of_seen_groups(self, rows: Rows) -> int:
        if self.groups is None:
            return 0
        recorded = self.record.groups or {}
        digests = {*recorded.get("train", ()), *recorded.get("val", ())}
        names = {self.groups[row] for row in self.rows("train", "val", "copy")}
        groups = [self.groups[row] for row in rows]
        return sum(name in names or group_digest(name) in digests for name in groups)

    def _near(self, split: Split) -> list[str]:
        seen = Split(split.rule, split.seed, self.rows("train", "val"), split.val[:0], split.test)
        alike = np.intersect1d(split.test, np.flatnonzero(self.found.alike))
        others = replace(seen, test=np.setdiff1d(split.test, alike))
        num = len(alike) + leakage(others, self.audit).near_duplicate
        if not num:
            return []
        are = "image is" if num == 1 else "images are"
        return [
            f"{num} test {are} nearly the same as a training or validation image: the accuracy is "
            "too optimistic"
        ]


def check_side(split: Split, side: str, *, where: str) -> None:
    """Raise InputError when a side that is needed has no images."""
    if len(getattr(split, side)):
        return
    if side == "test":
        raise InputError(
            f"{where}: no unseen image to test on: the model was trained or chosen on all of "
            "these, or they are not its test images; give images that it has not seen, or --side "
            "train or val"
        )
    raise InputError(
        f"{where}: no image is on the {_SIDE_NAMES[side]} side: none of the model's own is in the "
        "folder, or the split that was asked for has them elsewhere"
    )
