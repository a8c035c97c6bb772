from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secateurs.data.folders import image_files
from secateurs.errors import InputError


def picture(path: Path, kind: str = "PNG", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels).save(path, kind, **options)
    return path


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in image_files(folder).paths]


def test_hidden_and_system_files_are_left_out(tmp_path: Path):
    for name in ("a.png", "deep/b.JPG", "@eaDir/a.png", "$Recycle.Bin/x.png", "lost+found/y.png"):
        picture(tmp_path / name)
    for name in (".hidden.png", "._a.png", "__MACOSX/z.png", ".ipynb_checkpoints/a-checkpoint.png"):
        picture(tmp_path / name)
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    found = image_files(tmp_path)
    assert names(tmp_path) == ["a.png", "deep/b.JPG"]
    assert found.bad == ()
    assert found.sentences == (
        "Hidden images were left out: 1.",
        "Files and folders of the system were left out: 1 $Recycle.Bin, 1 .ipynb_checkpoints, "
        "1 @eaDir, 1 Thumbs.db, 1 __MACOSX, 1 lost+found.",
    )


def test_one_file_is_taken_whatever_its_name(tmp_path: Path):
    path = picture(tmp_path / ".odd")
    assert image_files(path).paths == (path,)


def test_every_extension_of_a_format_that_is_read(tmp_path: Path):
    for name in ("1.jfif", "2.jpe", "3.PGM", "4.ppm", "5.pnm", "6.pbm", "7.dib", "8.apng"):
        picture(tmp_path / name)
    assert len(names(tmp_path)) == 8


def test_files_without_an_extension_are_known_by_their_content(tmp_path: Path):
    picture(tmp_path / "IMG_0001")
    picture(tmp_path / "Screenshot 10.32.15", "JPEG")
    picture(tmp_path / "pnm", "PPM")
    picture(tmp_path / "web.p", "WEBP")
    picture(tmp_path / "old.jpg_large", "JPEG")
    picture(tmp_path / "film", "GIF")
    (tmp_path / "README").write_text("BM is how a bitmap begins")
    (tmp_path / "photo").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "notes.txt").write_text("P5 is not")
    found = image_files(tmp_path)
    assert names(tmp_path) == ["IMG_0001", "Screenshot 10.32.15", "pnm"]
    assert found.sentences == (
        "Images of formats that are not read were left out: 1 .gif, 1 .heic.",
        "Images with another extension were left out: 1 .jpg_large, 1 .p; rename them.",
    )


def test_ordinary_unicode_names_are_read_and_others_listed(tmp_path: Path):
    good = ("Screenshot 10.32\u202fAM.png", "\u0645\u06cc\u200c\u062e.png", "back\\slash.png")
    for name in (*good, "line\nbreak.png", os.fsdecode(b"caf\xe9.png")):
        picture(tmp_path / "a" / name)
    found = image_files(tmp_path)
    assert {path.name for path in found.paths} == set(good)
    assert [(bad.name, bad.reason) for bad in found.bad] == [
        ("a/caf\\xe9.png", "unusable name"),
        ("a/line\\nbreak.png", "unusable name"),
    ]


def test_a_folder_with_an_unusable_name_has_its_images_listed(tmp_path: Path):
    picture(tmp_path / "fine.png")
    picture(tmp_path / "two\nlines" / "1.png")
    found = image_files(tmp_path)
    assert names(tmp_path) == ["fine.png"]
    assert [bad.name for bad in found.bad] == ["two\\nlines/1.png"]


@pytest.fixture
def nested(tmp_path: Path) -> Iterator[Path]:
    """1,200 folders within folders, which are removed by steps: `rmtree` cannot."""
    # One step at a time: the whole path is longer than the system takes at once.
    root = tmp_path / "nested"
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("deeper", dir_fd=here)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    yield root
    while (root / "deeper").exists():
        (root / "deeper").rename(tmp_path / "next")
        if (tmp_path / "next" / "deeper").exists():
            (tmp_path / "next" / "deeper").rename(root / "deeper")
        (tmp_path / "next").rmdir()


def test_nested_folders_have_a_limit(nested: Path):
    picture(nested / "a.png")
    found = image_files(nested)
    assert names(nested) == ["a.png"]
    assert [(bad.reason, bad.detail) for bad in found.bad] == [
        ("too deep", "more than 32 folders within folders; nothing there was read")
    ]


def test_a_folder_is_read_once_however_many_links_lead_to_it(tmp_path: Path):
    # Two links in each of twenty folders to the next: a million ways to the last.
    for number in range(20):
        folder = tmp_path / "store" / str(number)
        folder.mkdir(parents=True)
        for link in ("x", "y"):
            (folder / link).symlink_to(tmp_path / "store" / str(number + 1))
    picture(tmp_path / "store" / "20" / "1.png")
    found = image_files(tmp_path / "store" / "0")
    assert len(found.paths) == 1
    assert {bad.reason for bad in found.bad} == {"repeated folder"}


def test_links_that_lead_in_a_circle(tmp_path: Path):
    picture(tmp_path / "a.png")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    assert names(tmp_path) == ["a.png", "self.png"]  # the second is unreadable
    (tmp_path / "above").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads back to a folder above it"):
        image_files(tmp_path)


def test_what_is_no_file_or_folder(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: neither a regular file nor a folder"):
        image_files(tmp_path / "pipe")
    with pytest.raises(InputError, match="none: no such file or folder"):
        image_files(tmp_path / "none")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    with pytest.raises(InputError, match="self: no such file or folder"):
        image_files(tmp_path / "self")
    with pytest.raises(InputError, match="no image in it"):
        image_files(tmp_path)


def test_pipes_and_sockets_do_not_stop_the_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(tmp_path / "pipe")
    picture(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)  # the path of a socket is limited to some hundred bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert names(tmp_path) == ["a.png"]


def test_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    picture(tmp_path / "a.png")
    picture(tmp_path / "shut" / "b.png")
    listed = os.scandir

    def refused(path: Path):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", refused)
    found = image_files(tmp_path)
    assert [path.name for path in found.paths] == ["a.png"]
    assert [(bad.name, bad.reason, bad.detail) for bad in found.bad] == [
        ("shut/", "unreadable folder", "Permission denied")
    ]
    with pytest.raises(InputError, match=r"shut: cannot be listed \(Permission denied\)"):
        image_files(tmp_path / "shut")
