"""A record of a split knows images by content, wherever they are and whatever their names."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from secateurs.data.audit import audit
from secateurs.data.scan import scan
from secateurs.data.splits.split import Split
from secateurs.data.splits.split_record import (
    SplitRecord,
    group_digest,
    image_keys,
    parse_split_record,
    recognise,
    record_split,
)
from secateurs.errors import InputError


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten pictures, a/0..4 and b/0..4, that all differ."""
    root = tmp_path / "data"
    generator = np.random.default_rng(0)
    for label in "ab":
        (root / label).mkdir(parents=True)
        for number in range(5):
            pixels = generator.integers(0, 256, (24, 20, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{number}.png")
    return root


SPLIT = Split("random", 3, rows(0, 1, 5, 6), rows(2, 7), rows(3, 4, 8, 9))


@pytest.fixture
def record(folder: Path) -> SplitRecord:
    return record_split(audit(folder), SPLIT, tuple("pqrstpqrst"))


def sides_of(folder: Path, record: SplitRecord) -> dict[str, str | None]:
    listed = audit(scan(folder, classes=("a", "b")))
    found = recognise(record, listed).sides
    return dict(zip(listed.listing.names, found, strict=True))


def test_an_unchanged_folder_is_recognised_whole(folder: Path, record: SplitRecord):
    found = recognise(record, audit(folder))
    assert found.sides == (
        *("train", "train", "val", "test", "test"),
        *("train", "train", "val", "test", "test"),
    )
    assert found.num_missing == {"train": 0, "val": 0, "test": 0}
    assert (record.rule, record.seed) == ("random", 3)
    assert record.groups is not None
    assert record.groups["val"] == (group_digest("r"),)


def test_renamed_moved_retagged_and_new_files(folder: Path, record: SplitRecord):
    (folder / "a" / "0.png").rename(folder / "b" / "renamed.png")
    with Image.open(folder / "a" / "3.png") as image:
        tags = PngImagePlugin.PngInfo()
        tags.add_text("Author", "somebody")
        image.save(folder / "a" / "3.png", pnginfo=tags, compress_level=1)
        image.convert("L").save(folder / "a" / "grey.png")
    with Image.open(folder / "b" / "2.png") as image:
        image.save(folder / "b" / "2.bmp")  # other bytes, the same pixels
    (folder / "b" / "2.png").unlink()
    (folder / "b" / "4.png").unlink()
    found = sides_of(folder, record)
    assert found["b/renamed.png"] == "train"
    assert found["a/3.png"] == "test"
    assert found["a/grey.png"] is None
    assert found["b/2.bmp"] == "val"
    missing = recognise(record, audit(folder)).num_missing
    assert missing == {"train": 0, "val": 0, "test": 1}


def test_another_decoder_knows_the_files(folder: Path, record: SplitRecord, monkeypatch):
    from secateurs.data.images import hashes

    other = hashes.pixel_digest
    monkeypatch.setattr(hashes, "pixel_digest", lambda image: other(image)[::-1])
    found = recognise(record, audit(folder))
    assert found.sides.count("train") == 4 and found.sides.count("test") == 4
    assert sum(found.num_missing.values()) == 0


def test_copies_across_sides_are_dealt_as_recorded_and_never_to_test(folder: Path):
    shutil.copy(folder / "a" / "0.png", folder / "a" / "2.png")  # training and validation
    shutil.copy(folder / "a" / "1.png", folder / "b" / "4.png")  # training and test
    record = record_split(audit(folder), SPLIT, None)
    found = sides_of(folder, record)
    assert (found["a/0.png"], found["a/2.png"]) == ("train", "val")
    assert (found["a/1.png"], found["b/4.png"]) == ("train", "copy")
    (folder / "a" / "1.png").unlink()  # what is left has been trained on all the same
    assert sides_of(folder, record)["b/4.png"] == "train"
    shutil.copy(folder / "b" / "4.png", folder / "b" / "more.png")
    shutil.copy(folder / "b" / "4.png", folder / "b" / "most.png")
    found = sides_of(folder, record)
    assert "test" not in {found["b/4.png"], found["b/more.png"], found["b/most.png"]}


def test_a_later_record_keeps_what_the_earlier_has_used(folder: Path, record: SplitRecord):
    listed = audit(folder)
    keys = image_keys(listed)
    later = record_split(
        listed, Split("random", 9, rows(0, 3), rows(7), rows(8)), None, earlier=record
    )
    assert set(later.sides["train"]) == {keys[k] for k in (0, 1, 3, 5, 6)}
    assert set(later.sides["val"]) == {keys[2], keys[7]}
    assert set(later.sides["test"]) == {keys[k] for k in (4, 8, 9)}
    assert later.groups == record.groups
    again = record_split(listed, SPLIT, tuple("pqrstpqrst"), earlier=record)
    assert again == record


def test_it_goes_through_json_and_lies_are_refused(record: SplitRecord):
    plain = record.to_json()
    assert parse_split_record(plain, where="split") == record
    for change, message in (
        ({"seed": 1.5}, r"split.seed: expected a whole number"),
        ({"rule": None}, r"split.rule: expected a short text"),
        ({"sides": {"train": []}}, r"split.sides: expected an object with train, val, test"),
        ({"sides": plain["sides"] | {"val": ["xyz"]}}, r"split.sides.val: expected a list of dig"),
        ({"sides": plain["sides"] | {"test": 7}}, r"split.sides.test: expected a list of digests"),
        ({"groups": {"train": 1}}, r"split.groups: expected an object with"),
    ):
        with pytest.raises(InputError, match=message):
            parse_split_record(plain | change, where="split")
    with pytest.raises(InputError, match="split: expected an object"):
        parse_split_record([], where="split")


def test_copies_that_were_compressed_again_look_like_what_was_trained_on(
    folder: Path, tmp_path: Path
):
    other = tmp_path / "other"
    for number in range(5):
        (other / "a").mkdir(parents=True, exist_ok=True)
        (other / "b").mkdir(exist_ok=True)
        # Soft patches: noise of single pixels does not outlive a compression.
        pixels = np.random.default_rng(number).integers(0, 256, (6, 5, 3)).astype(np.uint8)
        picture = Image.fromarray(pixels).resize((80, 96), Image.Resampling.BICUBIC)
        picture.save(folder / "a" / f"{number}.png")
        picture.resize((60, 70)).save(other / "a" / f"{number}.jpg", quality=70)
        flipped = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        flipped.save(other / "b" / f"{number}.jpg", quality=70)
    record = record_split(audit(folder), SPLIT, None)
    found = recognise(record, audit(other))
    assert found.sides == (None,) * 10
    assert found.alike == (True, True, True, False, False) + (False,) * 5  # a/3, a/4: test images
    older = replace(
        record,
        sides={side: tuple(key[:48] for key in keys) for side, keys in record.sides.items()},
    )
    assert not any(recognise(older, audit(other)).alike)
    assert parse_split_record(older.to_json(), where="split") == older
    assert record_split(audit(folder), SPLIT, None, earlier=older) == record


def test_plain_images_do_not_look_like_each_other(folder: Path, tmp_path: Path):
    other = tmp_path / "other"
    for label in "ab":
        (other / label).mkdir(parents=True)
    for number in range(5):
        Image.new("RGB", (40, 40), (50 * number, 30, 90)).save(folder / "a" / f"{number}.png")
        Image.new("RGB", (40, 40), (20, 40 * number, 160)).save(
            other / "ab"[number % 2] / f"{number}.png"
        )
    record = record_split(audit(folder), SPLIT, None)
    found = recognise(record, audit(other))
    assert found.sides == (None,) * 5
    assert not any(found.alike)
