"""Which images a network was trained, chosen and tested on, known by their content."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateurs.data.audit import Audit
from secateurs.data.splits.split import SIDES, Split
from secateurs.errors import InputError

PIXELS = 32  # hexadecimal digits of the SHA-256 of an image's pixels
FILE = 16  # hexadecimal digits of the SHA-256 of its file
LOOK = 16  # hexadecimal digits of its perceptual hash, which older records lack
# Of 338 photographs no two different ones came closer than 9 bits. Copies at JPEG quality 40, or at
# a third of the size, had at most 4.
ALIKE_BITS = 4
_KEY = re.compile(rf"[0-9a-f]{{{PIXELS + FILE}}}(?:[0-9a-f]{{{LOOK}}})?")
_GROUP = re.compile(rf"[0-9a-f]{{{FILE}}}")


@dataclass(frozen=True)
class SplitRecord:
    """The images of each side, and the groups that they belong to, as digests.

    `sides` holds a key of 64 hexadecimal digits for each image: the first 32 of the SHA-256 of its
    pixels, the first 16 of that of its file, and the 16 of its perceptual hash. An image that was
    renamed, moved or tagged again keeps the first part; one that another version of the decoder
    reads keeps the second; one that was compressed again or scaled resembles the third. `groups`
    holds the first 16 digits of the SHA-256 of the names of each side's groups, None when groups
    were not known.
    """

    rule: str
    seed: int
    sides: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, tuple[str, ...]] | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as plain data."""
        groups = self.groups
        return {
            "rule": self.rule,
            "seed": self.seed,
            "sides": {side: list(self.sides[side]) for side in SIDES},
            "groups": None if groups is None else {side: list(groups[side]) for side in SIDES},
        }


@dataclass(frozen=True)
class Recognition:
    """What a record says of the images of a folder.

    `sides` has the recorded side of each image: train, val or test; "copy" for a test image with
    the content of a training or validation image; None for an image that is new. `num_missing`
    counts the recorded images of each side that are not in the folder. `alike` says of each image
    whether it is new and looks like a training or validation image.
    """

    sides: tuple[str | None, ...]
    num_missing: dict[str, int]
    alike: tuple[bool, ...]


def image_keys(audit: Audit) -> list[str]:
    """The key of each image of an audit, as `SplitRecord` holds them."""
    return [
        pixels.hex()[:PIXELS] + f"{int(file):0{FILE}x}{look:0{LOOK}x}"
        for pixels, file, look in zip(audit.pixels, audit.content_ids, audit.hashes, strict=True)
    ]


def group_digest(group: str) -> str:
    """16 hexadecimal digits for the name of a group, which a model file does not disclose.

    >>> group_digest("sender 7")
    '10f5501978b97a8d'
    """
    return hashlib.sha256(group.encode("utf-8", "surrogatepass")).hexdigest()[:FILE]


def record_split(
    audit: Audit,
    split: Split,
    groups: Sequence[str] | None,
    *,
    earlier: SplitRecord | None = None,
) -> SplitRecord:
    """The record of a split; with an `earlier` one that of what both have used.

    What either has trained on counts as trained on, what either has chosen on as validation.
    """
    keys = image_keys(audit)
    rows: dict[str, list[int]] = {side: getattr(split, side).tolist() for side in SIDES}
    sides = {side: [keys[row] for row in rows[side]] for side in SIDES}
    named: dict[str, set[str]] | None = None
    if groups is not None:
        named = {side: {group_digest(groups[row]) for row in rows[side]} for side in SIDES}
    if earlier is not None:
        sides = _merged(sides, earlier.sides)
        if named is not None and earlier.groups is not None:
            named = {side: named[side] | set(earlier.groups[side]) for side in SIDES}
        elif earlier.groups is not None:
            named = {side: set(earlier.groups[side]) for side in SIDES}
    return SplitRecord(
        rule=split.rule,
        seed=split.seed,
        sides={side: tuple(sorted(sides[side])) for side in SIDES},
        groups=None if named is None else {side: tuple(sorted(named[side])) for side in SIDES},
    )


def _merged(
    new: Mapping[str, Sequence[str]], old: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    # A key of an older record is the start of today's.
    full = {key[: PIXELS + FILE]: key for side in SIDES for key in (*old[side], *new[side])}
    counts = {
        side: Counter(full[key[: PIXELS + FILE]] for key in new[side])
        | Counter(full[key[: PIXELS + FILE]] for key in old[side])
        for side in SIDES
    }
    used = counts["train"].keys() | counts["val"].keys()
    counts["test"] = Counter({key: n for key, n in counts["test"].items() if key not in used})
    return {side: list(counts[side].elements()) for side in SIDES}


def recognise(record: SplitRecord, audit: Audit) -> Recognition:
    """Find the images of an audit in a record, by their pixels or else by their files."""
    by_pixels = {side: Counter(key[:PIXELS] for key in record.sides[side]) for side in SIDES}
    pixels_of_file = {
        key[PIXELS : PIXELS + FILE]: key[:PIXELS]
        for side in reversed(SIDES)
        for key in record.sides[side]
    }
    left = {side: counts.copy() for side, counts in by_pixels.items()}
    found: list[str | None] = []
    present: set[str] = set()
    keys = image_keys(audit)
    for key in keys:
        pixels = key[:PIXELS]
        if not any(pixels in counts for counts in by_pixels.values()):
            # Another version of the decoder gives other pixels for the same file.
            pixels = pixels_of_file.get(key[PIXELS : PIXELS + FILE], "")
        present.add(pixels)
        # Copies of one picture are put on its sides as often as they were recorded there.
        sides = [side for side in SIDES if pixels in by_pixels[side]]
        side = next((side for side in sides if left[side][pixels] > 0), next(iter(sides), None))
        if side is not None:
            left[side][pixels] -= 1
        found.append("copy" if side == "test" and len(sides) > 1 else side)
    num_missing = {
        side: sum(num for pixels, num in by_pixels[side].items() if pixels not in present)
        for side in SIDES
    }
    return Recognition(tuple(found), num_missing, _alike(record, keys, found))


def _alike(
    record: SplitRecord, keys: Sequence[str], sides: Sequence[str | None]
) -> tuple[bool, ...]:
    seen = {*record.sides["train"], *record.sides["val"]}
    looks = np.array([_look(key) for key in seen if len(key) > PIXELS + FILE], np.uint64)

    def is_alike(key: str) -> bool:
        look = _look(key)
        # Plain images have no bit or one, whatever their colour: a hash near these says nothing.
        if np.bitwise_count(look) <= ALIKE_BITS + 1:
            return False
        return bool((np.bitwise_count(looks ^ look) <= ALIKE_BITS).any())

    # One hash at a time: a folder and a record may have thousands of images each.
    return tuple(side is None and is_alike(key) for key, side in zip(keys, sides, strict=True))


def _look(key: str) -> np.uint64:
    return np.uint64(int(key[PIXELS + FILE :], 16))


def parse_split_record(data: Any, *, where: str) -> SplitRecord:
    """A record out of untrusted JSON; raises InputError that names `where` and the field."""
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected an object")
    rule, seed = data.get("rule"), data.get("seed")
    if not isinstance(rule, str) or len(rule) > 100:
        raise InputError(f"{where}.rule: expected a short text")
    if type(seed) is not int:
        raise InputError(f"{where}.seed: expected a whole number")
    groups = data.get("groups")
    return SplitRecord(
        rule=rule,
        seed=seed,
        sides=_digests(data.get("sides"), _KEY, f"{where}.sides"),
        groups=None if groups is None else _digests(groups, _GROUP, f"{where}.groups"),
    )


def _digests(data: Any, pattern: re.Pattern[str], where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(data, dict) or set(data) != set(SIDES):
        raise InputError(f"{where}: expected an object with {', '.join(SIDES)}")
    found: dict[str, tuple[str, ...]] = {}
    for side in SIDES:
        values = data[side]
        good = isinstance(values, list) and all(
            isinstance(value, str) and pattern.fullmatch(value) for value in values
        )
        if not good:
            raise InputError(f"{where}.{side}: expected a list of digests in hexadecimal digits")
        found[side] = tuple(values)
    return found
