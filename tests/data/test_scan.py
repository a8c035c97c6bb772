from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateurs.data.scan import EXTENSIONS, Listing, has_sides, scan, subset
from secateurs.errors import InputError


def touch(root: Path, *names: str) -> Path:
    """Empty files: scanning goes by names and opens nothing."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def test_classes_in_alphabetical_order_and_files_by_name(tmp_path: Path):
    root = touch(tmp_path, "b/2.png", "b/10.png", "a/z.jpg", "a/B.jpg", "a/deep/c.jpg")
    listing = scan(root)
    assert listing.classes == ("a", "b")
    assert listing.names == ("a/B.jpg", "a/deep/c.jpg", "a/z.jpg", "b/10.png", "b/2.png")
    assert listing.labels == (0, 0, 0, 1, 1)
    assert listing.folds is None
    assert len(listing) == 5
    assert listing.path(4) == root / "b" / "2.png"


@pytest.mark.parametrize("suffix", sorted(EXTENSIONS))
def test_every_extension_in_either_case(tmp_path: Path, suffix: str):
    root = touch(tmp_path, f"a/x{suffix}", f"a/y{suffix.upper()}", f"b/z{suffix.title()}")
    assert scan(root).per_class == (2, 1)


def test_hidden_files_are_passed_over_and_others_counted(tmp_path: Path):
    root = touch(
        tmp_path, "a/x.png", "b/y.png", "a/.DS_Store", "a/._x.png", ".git/config", "b/.cache/q.png",
        "__MACOSX/a/._x.png", "README.md", "a/notes.txt", "b/later.heic", "b/no_suffix",
    )  # fmt: skip
    listing = scan(root)
    assert listing.names == ("a/x.png", "b/y.png")
    assert dict(listing.ignored) == {".md": 1, ".txt": 1, ".heic": 1, "": 1}
    assert listing.num_ignored == 4


@pytest.mark.parametrize("validation", ["val", "valid", "Validation"])
def test_ready_made_folds(tmp_path: Path, validation: str):
    root = touch(
        tmp_path, "Train/a/2.png", "Train/b/1.png",
        f"{validation}/a/1.png", f"{validation}/b/3.png", "test/a/9.png",
        "test/b/0.png", "test/labels.csv",
    )  # fmt: skip
    listing = scan(root)
    assert listing.classes == ("a", "b")
    assert listing.folds == ("val", "train", "test", "test", "train", "val")
    assert listing.names[0] == f"{validation}/a/1.png"
    assert listing.num_ignored == 1


def test_folds_without_validation(tmp_path: Path):
    root = touch(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/2.png", "test/b/2.png")
    assert scan(root).folds == ("train", "test", "train", "test")


def test_a_class_may_be_called_train(tmp_path: Path):
    root = touch(tmp_path, "train/1.png", "bus/1.png", "test/1.png")
    listing = scan(root)
    assert listing.classes == ("bus", "test", "train")
    assert listing.folds is None


def test_folds_that_disagree(tmp_path: Path):
    root = touch(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/2.png")
    with pytest.raises(InputError, match="class b is in train and not in test"):
        scan(root)
    touch(root, "test/b/2.png", "test/c/2.png")
    with pytest.raises(InputError, match="class c is in test and not in train"):
        scan(root)
    touch(root, "train/c/1.png", "val/a/1.png", "val/b/1.png", "val/c/1.png", "valid/a/1.png")
    with pytest.raises(InputError, match="val and valid are the same fold; keep one"):
        scan(root)
    shutil.rmtree(root / "valid")
    touch(root, "extra/a/1.png")
    with pytest.raises(InputError, match="extra: images beside train/ that belong to no fold"):
        scan(root)


def test_folders_that_cannot_be_used(tmp_path: Path):
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        scan(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no class folders; expected one folder of images per"):
        scan(tmp_path)
    touch(tmp_path, "loose.png")
    with pytest.raises(InputError, match=r"loose\.png: not a folder"):
        scan(tmp_path / "loose.png")
    touch(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(InputError, match=r"1 image outside the class folders .*loose\.png"):
        scan(tmp_path)
    (tmp_path / "loose.png").unlink()
    (tmp_path / "c").mkdir()
    with pytest.raises(InputError, match="c: class folder without images"):
        scan(tmp_path)
    shutil.rmtree(tmp_path / "c")
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(InputError, match=r"one class only \(a\); expected at least 2"):
        scan(tmp_path)


def test_links_are_followed_but_not_in_circles(tmp_path: Path):
    root = touch(tmp_path / "data", "a/1.png")
    touch(tmp_path / "else", "b/1.png", "b/2.png")
    (root / "b").symlink_to(tmp_path / "else" / "b")
    assert scan(root).per_class == (1, 2)
    (root / "a" / "loop").symlink_to(root / "a")
    with pytest.raises(InputError, match="leads back to a folder above it"):
        scan(root)


def test_names_that_are_no_text_are_listed_and_do_not_stop(tmp_path: Path):
    root = touch(tmp_path, "a/1.png", "b/1.png", "b/new\nline.png", "a/Bild\u202fAM.png")
    touch(root, "a/\u0645\u06cc\u200c\u062e.png", "a/\u202egnp.exe.png", "a/back\\slash.png")
    try:
        (root / "b" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    listing = scan(root)
    assert listing.per_class == (5, 1)
    assert [(bad.name, bad.reason, bad.detail, bad.label) for bad in listing.bad] == [
        ("b/caf\\xe9.png", "unusable name", "the name is no valid text; rename it", "b"),
        ("b/new\\nline.png", "unusable name", "the name has control characters; rename it", "b"),
    ]


def test_the_name_of_a_class_has_to_be_text(tmp_path: Path):
    root = touch(tmp_path, "a/1.png", "b\x1b[2J/1.png")
    with pytest.raises(InputError, match=r"b\\x1b\[2J: the name of a class has to be text"):
        scan(root)


def test_a_class_that_loses_all_images_to_their_names_is_named(tmp_path: Path):
    root = touch(tmp_path, "a/1.png", "b/1\n.png")
    with pytest.raises(InputError, match=r"b: class folder without images .*b/1\\n.png: the name"):
        scan(root)


def test_both_spellings_of_an_accent_are_one_class(tmp_path: Path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    root = touch(tmp_path, f"{composed}/1.png", f"{decomposed}/2.png", "tea/1.png")
    listing = scan(root)
    assert listing.classes == (composed, "tea")
    assert listing.labels == (0, 0, 1)
    assert [listing.path(k).exists() for k in range(3)] == [True] * 3
    root = touch(tmp_path / "sides", f"train/{composed}/1.png", f"test/{decomposed}/1.png")
    touch(root, "train/tea/1.png", "test/tea/1.png")
    assert scan(root).classes == (composed, "tea")


SIDES = {
    "train": ("train", "Training", "TRAIN", "trainset"),
    "val": ("val", "Valid", "VALIDATION", "dev"),
    "test": ("test", "Testing", "eval", "Holdout", "hold-out", "TEST"),
}


@pytest.mark.parametrize("train", SIDES["train"])
@pytest.mark.parametrize("test", SIDES["test"])
def test_sides_by_their_usual_names(tmp_path: Path, train: str, test: str):
    root = touch(tmp_path, f"{train}/a/1.png", f"{train}/b/1.png")
    touch(root, f"{test}/a/2.png", f"{test}/b/2.png")
    listing = scan(root)
    assert listing.classes == ("a", "b")
    assert listing.folds == ("train", "test", "train", "test")
    assert listing.folder("test") == test
    assert has_sides(root)
    for name in SIDES["val"]:
        touch(root, f"{name}/a/3.png", f"{name}/b/3.png")
        assert scan(root).folds == ("train", "test", "val", "train", "test", "val")
        shutil.rmtree(root / name)


def test_eval_beside_test_is_validation(tmp_path: Path):
    root = touch(tmp_path, "train/a/1.png", "train/b/1.png", "eval/a/2.png", "eval/b/2.png")
    assert set(scan(root).folds or ()) == {"train", "test"}
    touch(root, "test/a/3.png", "test/b/3.png")
    assert scan(root).folds == ("train", "val", "test", "train", "val", "test")
    touch(root, "val/a/4.png", "val/b/4.png")
    with pytest.raises(InputError, match="eval and test are the same fold; keep one"):
        scan(root)


def test_classes_that_all_hold_the_same_sub_folders_are_refused(tmp_path: Path):
    root = touch(tmp_path, "north/cat/1.png", "north/dog/1.png", "south/cat/2.png")
    touch(root, "south/dog/2.png", "south/owl/2.png")
    with pytest.raises(InputError, match=r"north, south all hold the same .*\(cat, dog\)"):
        scan(root)
    # Whoever names another rule says that the outer folders are the classes.
    assert scan(root, split="random").classes == ("north", "south")
    assert scan(root, classes=("north", "south")).classes == ("north", "south")
    # One sub-folder that all have is no set of classes, and a loose image says that all is one.
    touch(root, "north/3.png")
    assert scan(root).classes == ("north", "south")
    other = touch(tmp_path / "other", "cat/images/1.png", "dog/images/1.png")
    assert scan(other).classes == ("cat", "dog")


def test_sides_without_a_train_folder_are_refused(tmp_path: Path):
    root = touch(tmp_path, "Testing/a/1.png", "Testing/b/1.png", "validation/a/2.png")
    for split in ("auto", "random"):
        with pytest.raises(InputError, match="Testing, validation are sides of a split and there"):
            scan(root, split=split)


def test_one_folder_around_the_classes_is_named(tmp_path: Path):
    root = touch(tmp_path, "photos/a/1.png", "photos/b/1.png")
    with pytest.raises(InputError, match=r"one class only \(photos\).* give .*/photos$"):
        scan(root)


def test_folders_of_the_system_are_left_out_and_said(tmp_path: Path):
    root = touch(tmp_path, "a/1.png", "b/1.png", "a/@eaDir/1.png", "@eaDir/x/1.png", "a/Thumbs.db")
    touch(root, "$RECYCLE.BIN/1.png", "lost+found/1.png", "System Volume Information/1.png")
    touch(root, "a/.ipynb_checkpoints/1.png", "a/.2.png")
    listing = scan(root)
    assert listing.names == ("a/1.png", "b/1.png")
    assert listing.left_out == (
        "Hidden images were left out: 1.",
        "Files and folders of the system were left out: 1 $RECYCLE.BIN, 1 .ipynb_checkpoints, "
        "2 @eaDir, 1 System Volume Information, 1 Thumbs.db, 1 lost+found.",
    )
    assert subset(listing, [0]).left_out == listing.left_out


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, unique=True))
def test_a_subset_keeps_classes_and_order(indices: list[int]):
    labels = tuple(k % 2 for k in range(10))
    folds = tuple("train" if k < 7 else "test" for k in range(10))
    whole = Listing(Path("r"), ("a", "b"), tuple(f"{k}" for k in range(10)), labels, folds)
    part = subset(whole, indices)
    assert part.classes == whole.classes
    assert part.folds is not None
    for row, index in enumerate(indices):
        assert part.names[row] == whole.names[index]
        assert part.labels[row] == whole.labels[index]
        assert part.folds[row] == folds[index]


def test_the_classes_of_a_model_may_lack_images_and_keep_their_order(tmp_path: Path):
    root = touch(tmp_path, "b/2.png", "b/1.png", "a/notes.txt", "empty.txt")
    listing = scan(root, classes=("c", "b", "a"))
    assert listing.classes == ("c", "b", "a")
    assert listing.names == ("b/1.png", "b/2.png") and listing.labels == (1, 1)
    assert listing.per_class == (0, 2, 0)
    with pytest.raises(InputError, match="the model knows the classes a, c; the folder has b"):
        scan(root, classes=("a", "c"))
    with pytest.raises(InputError, match="the model knows the classes a; the folder has no images"):
        scan(touch(tmp_path / "none", "a/notes.txt"), classes=("a",))


def test_a_folder_in_another_unicode_form_is_the_models_class(tmp_path: Path):
    composed, decomposed = "\u00dcber", "U\u0308ber"
    root = touch(tmp_path, f"{decomposed}/1.png", "a/1.png")
    listing = scan(root, classes=("a", composed))
    assert listing.classes == ("a", composed)
    assert listing.names == ("a/1.png", f"{decomposed}/1.png")


def test_folds_of_a_model_need_not_have_the_same_classes(tmp_path: Path):
    root = touch(tmp_path, "train/a/1.png", "train/b/1.png", "test/b/2.png")
    assert scan(root, classes=("a", "b")).folds == ("train", "train", "test")
