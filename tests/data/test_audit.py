from __future__ import annotations

import os
import shutil
import struct
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from damage import damaged
from secateurs.data.audit import audit
from secateurs.data.content_cache import load_records
from secateurs.data.image_store import open_store
from secateurs.data.images.decode import MAX_PIXELS, Decoded, DecodeError, decode, decoding
from secateurs.data.images.hashes import close_pairs
from secateurs.data.scan import scan
from secateurs.data.splits.image_groups import groups_from_csv, groups_from_pattern, parse_group_by
from secateurs.errors import InputError


def scene(seed: int, side: int = 96) -> Image.Image:
    """A smooth random picture, unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for number, label in enumerate(("cat", "dog")):
        (root / label).mkdir(parents=True)
        for k in range(4):
            scene(10 * number + k).save(root / label / f"{k}.png")
    return root


def bomb(path: Path) -> None:
    """A PNG whose header promises 100,000 x 100,000 pixels."""
    import zlib

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0)
        + b"IEND"
        + struct.pack(">I", zlib.crc32(b"IEND"))
    )


def test_a_clean_folder_has_no_duplicates(folder: Path):
    found = audit(folder)
    assert (found.bad, found.exact, found.near, found.conflicts) == ((), (), (), ())
    plain = found.to_json()
    assert plain["num_images"] == 8
    assert plain["per_class"] == [4, 4]
    assert plain["height_px"] == {"min": 96, "median": 96, "max": 96}


def test_every_bad_file_is_named_with_its_reason(folder: Path):
    (folder / "cat" / "empty.png").write_bytes(b"")
    (folder / "cat" / "words.jpg").write_text("not an image")
    scene(1).save(folder / "cat" / "cut.jpg", quality=95)
    whole = (folder / "cat" / "cut.jpg").read_bytes()
    (folder / "cat" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    bomb(folder / "dog" / "bomb.png")
    found = audit(folder)
    assert {bad.name: bad.reason for bad in found.bad} == {
        "cat/empty.png": "zero-byte",
        "cat/words.jpg": "unreadable",
        "cat/cut.jpg": "truncated",
        "dog/bomb.png": "oversized",
    }
    assert len(found.listing) == 8
    assert "10000000000 pixels" in next(b.detail for b in found.bad if b.reason == "oversized")
    assert any("4 files" in sentence for sentence in found.findings)


def test_duplicates_near_duplicates_and_two_labels(folder: Path):
    shutil.copy(folder / "cat" / "0.png", folder / "cat" / "copy.png")
    # The same pixels in another file format under another label.
    Image.open(folder / "cat" / "1.png").save(folder / "dog" / "again.bmp")
    Image.open(folder / "dog" / "0.png").save(folder / "dog" / "near.jpg", quality=80)
    Image.open(folder / "dog" / "1.png").resize((64, 64)).save(folder / "cat" / "small.png")
    found = audit(folder)
    names = found.listing.names

    def named(groups: tuple[tuple[int, ...], ...]) -> set[frozenset[str]]:
        return {frozenset(names[i] for i in group) for group in groups}

    assert named(found.exact) == {
        frozenset({"cat/0.png", "cat/copy.png"}),
        frozenset({"cat/1.png", "dog/again.bmp"}),
    }
    assert named(found.near) == {
        frozenset({"dog/0.png", "dog/near.jpg"}),
        frozenset({"dog/1.png", "cat/small.png"}),
    }
    assert named(found.conflicts) == {
        frozenset({"cat/1.png", "dog/again.bmp"}),
        frozenset({"dog/1.png", "cat/small.png"}),
    }


def test_near_pairs_agree_with_a_double_loop():
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**63, 40).astype(np.uint64)
    hashes[7] = hashes[3] ^ np.uint64(0b111)
    hashes[30] = hashes[3] ^ np.uint64(1 << 60)
    thumbs = generator.integers(0, 256, (40, 32, 32, 3)).astype(np.uint8)
    thumbs[7] = thumbs[3]
    thumbs[30] = 255 - thumbs[3]  # alike in hash, opposite in looks
    expected = []
    for i in range(40):
        for j in range(i + 1, 40):
            bits = bin(int(hashes[i]) ^ int(hashes[j])).count("1")
            grey = [thumbs[k].astype(float).mean(axis=2).ravel() for k in (i, j)]
            if bits <= 10 and np.corrcoef(*grey)[0, 1] >= 0.92:
                expected.append((i, j))
    found = close_pairs(hashes, thumbs, max_bits=10, min_similarity=0.92)
    assert [tuple(int(x) for x in pair) for pair in found] == expected == [(3, 7)]


def test_a_second_audit_decodes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bomb(folder / "dog" / "bomb.png")
    first = audit(folder, cache=tmp_path / "cache")

    def never(*args: object, **options: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("secateurs.data.audit.decoding", never)
    assert audit(folder, cache=tmp_path / "cache").to_json() == first.to_json()


def test_the_fingerprint_is_of_content_names_and_labels(folder: Path):
    before = audit(folder).fingerprint
    assert audit(folder).fingerprint == before
    (folder / "cat" / "0.png").rename(folder / "dog" / "0b.png")
    assert audit(folder).fingerprint != before


SMALL = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("L", "png"),
        ("P", "png"),
        ("1", "png"),
        ("LA", "png"),
        ("RGBA", "webp"),
        ("CMYK", "jpg"),
        ("CMYK", "tiff"),
        ("RGB", "bmp"),
        ("L", "tiff"),
    ],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str):
    path = tmp_path / f"x.{suffix}"
    image = Image.fromarray(SMALL).convert(mode)
    image.save(path, **({"lossless": True} if suffix == "webp" else {}))
    got = decode(path)
    assert got.mode == "RGB"
    assert got.size == (4, 4)
    expected = np.asarray(image.convert("RGB")).astype(int)
    tolerance = 12 if suffix == "jpg" else 1
    assert np.abs(np.asarray(got).astype(int) - expected).max() <= tolerance


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path):
    ramp = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for suffix in ("png", "tiff"):
        Image.fromarray(ramp).save(tmp_path / f"x.{suffix}")
        assert np.asarray(decode(tmp_path / f"x.{suffix}"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_alpha_is_laid_on_white(tmp_path: Path):
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0, :, 3] = [0, 128, 255]
    Image.fromarray(pixels).save(tmp_path / "x.png")
    assert np.asarray(decode(tmp_path / "x.png"))[0, :, 0].tolist() == [255, 127, 0]


def test_exif_orientation_is_applied(tmp_path: Path):
    image = Image.fromarray(np.zeros((20, 40, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.jpg", exif=exif)
    assert decode(tmp_path / "x.jpg").size == (20, 40)


def test_decode_errors_name_file_and_reason(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DecodeError, match=r"x\.png: zero-byte \(the file is empty\)"):
        decode(tmp_path / "x.png")
    with pytest.raises(DecodeError, match=r"none\.png: unreadable"):
        decode(tmp_path / "none.png")
    scene(0).save(tmp_path / "big.png")
    with pytest.raises(DecodeError, match=r"oversized \(96 x 96 pixels, more than the limit of 99"):
        decode(tmp_path / "big.png", max_pixels=99)


def test_scan_reads_classes_and_ignores_the_rest(folder: Path):
    (folder / "cat" / "notes.txt").write_text("hello")
    (folder / ".hidden").mkdir()
    (folder / "dog" / "more").mkdir()
    scene(77).save(folder / "dog" / "more" / "x.JPEG")
    listing = scan(folder)
    assert listing.classes == ("cat", "dog")
    assert listing.per_class == (4, 5)
    assert listing.num_ignored == 1
    assert "dog/more/x.JPEG" in listing.names


def test_scan_reads_ready_made_sides(folder: Path, tmp_path: Path):
    root = tmp_path / "sides"
    for side in ("train", "valid", "test"):
        shutil.copytree(folder, root / side)
    listing = scan(root)
    assert listing.classes == ("cat", "dog")
    assert listing.folds is not None
    assert sorted(set(listing.folds)) == ["test", "train", "val"]


def test_folders_that_cannot_be_used(tmp_path: Path):
    with pytest.raises(InputError, match="none"):
        scan(tmp_path / "none")
    with pytest.raises(InputError, match="no class folders"):
        scan(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file"):
        scan(tmp_path / "file")
    (tmp_path / "file").unlink()
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match="cat: class folder without images"):
        scan(tmp_path)
    scene(0).save(tmp_path / "cat" / "a.png")
    with pytest.raises(InputError, match=r"one class only \(cat\); expected at least 2"):
        scan(tmp_path)
    scene(0).save(tmp_path / "loose.png")
    with pytest.raises(InputError, match=r"1 image outside the class folders .*loose\.png"):
        scan(tmp_path)


def test_groups(tmp_path: Path):
    names = ["a/01_x.png", "b/02_y.png"]
    assert groups_from_pattern(names, r"^(\d+)_") == ("01", "02")
    assert groups_from_pattern(names, r"\d+") == ("01", "02")
    with pytest.raises(InputError, match=r"a/01_x\.png"):
        groups_from_pattern(names, "z+")
    with pytest.raises(InputError, match="not a regular expression"):
        groups_from_pattern(names, "(")
    table = tmp_path / "groups.csv"
    table.write_text("name,group\na/01_x.png,anna\nb/02_y.png,ben\nc/other.png,carl\n")
    assert parse_group_by(names, str(table)) == ("anna", "ben")
    table.write_text("name,group\na/01_x.png,anna\n")
    with pytest.raises(InputError, match=r"b/02_y\.png"):
        groups_from_csv(names, table)
    with pytest.raises(InputError, match=r"none\.csv: no such file"):
        groups_from_csv(names, tmp_path / "none.csv")


def test_a_link_to_nothing_is_an_unreadable_file(folder: Path, tmp_path: Path):
    (folder / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = audit(folder, cache=tmp_path / "cache")
    assert [(bad.name, bad.reason) for bad in found.bad] == [("cat/gone.png", "unreadable")]
    # It has no content to remember it by.
    again = audit(folder, cache=tmp_path / "cache")
    assert again.to_json() == found.to_json()


def test_damaged_records_are_made_again(folder: Path, tmp_path: Path):
    first = audit(folder, cache=tmp_path)
    for path in (tmp_path / "audit").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    assert audit(folder, cache=tmp_path).to_json() == first.to_json()


def test_records_damaged_in_any_way_give_the_same_audit(folder: Path, tmp_path: Path):
    first = audit(folder, cache=tmp_path)
    (path,) = (tmp_path / "audit").iterdir()
    whole = path.read_bytes()
    # The directory of the archive is at its end.
    for content in (whole, whole[-700:]):
        for name, changed in damaged(content, flips=25):
            path.write_bytes(whole[: len(whole) - len(content)] + changed)
            known = load_records(tmp_path, max_pixels=MAX_PIXELS)
            assert len(known) in (0, 8), name
            remembered = {(r.sha256, r.pixels, r.hash, r.thumb.tobytes()) for r in known.values()}
            path.write_bytes(whole)
            right = load_records(tmp_path, max_pixels=MAX_PIXELS).values()
            assert remembered <= {(r.sha256, r.pixels, r.hash, r.thumb.tobytes()) for r in right}
    assert audit(folder, cache=tmp_path).to_json() == first.to_json()


def test_only_new_files_are_decoded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    audit(folder, cache=tmp_path)
    scene(99).save(folder / "dog" / "new.png")
    decoded: list[str] = []

    def watched(path: Path, **options: int) -> AbstractContextManager[Decoded]:
        decoded.append(path.name)
        return decoding(path, **options)

    monkeypatch.setattr("secateurs.data.audit.decoding", watched)
    assert audit(folder, cache=tmp_path).to_json() == audit(folder).to_json()
    assert decoded.count("new.png") == 2  # with the cache, and without
    assert len(decoded) == 1 + 9


def test_the_limit_of_pixels_is_part_of_what_is_remembered(folder: Path, tmp_path: Path):
    assert audit(folder, cache=tmp_path).bad == ()
    refused = audit(folder, cache=tmp_path, max_pixels=96 * 96 - 1)
    assert {bad.reason for bad in refused.bad} == {"oversized"}
    assert refused.to_json()["height_px"] == {"min": None, "median": None, "max": None}
    assert "Class cat has no usable image." in refused.findings


def test_threads_do_not_matter(folder: Path):
    (folder / "cat" / "empty.png").write_bytes(b"")
    one, four = audit(folder, workers=1), audit(folder, workers=4)
    assert one.to_json() == four.to_json()
    assert np.array_equal(one.content_ids, four.content_ids)


def test_special_files_are_bad_files_and_nothing_waits(folder: Path):
    os.mkfifo(folder / "cat" / "pipe.png")
    (folder / "cat" / "endless.jpg").symlink_to("/dev/zero")
    (folder / "dog" / "self.png").symlink_to(folder / "dog" / "self.png")
    found = audit(folder)
    assert [(bad.name, bad.reason, bad.label) for bad in found.bad] == [
        ("cat/endless.jpg", "unreadable", "cat"),
        ("cat/pipe.png", "unreadable", "cat"),
        ("dog/self.png", "unreadable", "dog"),
    ]
    assert all("regular file" in bad.detail for bad in found.bad[:2])
    assert found.listing.per_class == (4, 4)


def test_what_scan_could_not_read_is_bad_or_a_finding(folder: Path):
    scene(5).save(folder / "cat" / "two\nlines.png")
    (folder / "cat" / "phone.heic").write_bytes(b"")
    (folder / "dog" / "@eaDir").mkdir()
    found = audit(folder)
    assert [bad.name for bad in found.bad] == ["cat/two\\nlines.png"]
    assert found.findings[0] == (
        "1 file cannot be used: 1 unusable name (first: cat/two\\nlines.png)."
    )
    assert "Images of formats that are not read were left out: 1 .heic." in found.findings
    assert "Files and folders of the system were left out: 1 @eaDir." in found.findings


def test_classes_that_differ_only_in_case_or_spaces(folder: Path):
    shutil.copytree(folder / "cat", folder / "Cat ")
    assert "Classes Cat  and cat differ only in case or spaces." in audit(folder).findings


def test_classes_without_a_usable_image_are_named(folder: Path):
    audit(folder).check_classes()
    for path in (folder / "dog").iterdir():
        path.write_bytes(b"")
    found = audit(folder)
    assert found.short_classes == (1,)
    message = r"no usable image of class dog \(first: dog/0\.png: zero-byte, the file is empty\)"
    with pytest.raises(InputError, match=message):
        found.check_classes()
    for path in (folder / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="no usable images: 8 files cannot be used"):
        audit(folder).check_classes()


def test_a_file_that_a_pipe_replaces_after_the_audit_is_an_error(folder: Path, tmp_path: Path):
    found = audit(folder)
    (folder / "cat" / "0.png").unlink()
    os.mkfifo(folder / "cat" / "0.png")
    with pytest.raises(InputError, match=r"cat/0\.png: unreadable \(not a regular file"):
        open_store(found, cache=tmp_path / "cache", side=8, crop=8)
