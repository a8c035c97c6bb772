from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from secateurs.errors import InputError
from secateurs.files import (
    atomic_folder,
    atomic_path,
    open_regular,
    read_json,
    read_regular,
    scratch_folder,
    sha256_file,
)


def test_only_regular_files_are_opened(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"text"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    for name, message in (
        ("pipe", "not a regular file: a named pipe"),
        ("zero", "not a regular file: a device"),
        (".", "not a regular file: a folder"),
        ("none", "No such file or directory"),
        ("self", "Too many levels of symbolic links"),
        ("nu\0ll", "null"),
    ):
        with pytest.raises(OSError, match=message):
            open_regular(tmp_path / name)
        with pytest.raises(OSError, match=message):
            sha256_file(tmp_path / name)


def test_a_file_replaced_by_a_pipe_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "x"
    path.write_bytes(b"")
    regular = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: regular)
    with pytest.raises(OSError, match="not a regular file: a named pipe"):
        open_regular(path)


def test_files_have_a_limit_where_one_is_given(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"12345")
    assert read_regular(tmp_path / "x", max_bytes=5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_regular(tmp_path / "x", max_bytes=4)


def test_json_is_read_from_regular_files_only(tmp_path: Path):
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(InputError, match=r"x\.json: not readable as JSON .*named pipe"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "too deeply nested"),
        (b'{"a":' * 100_000, "too deeply nested"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b"NaN", "NaN is not a finite number"),
        (b"[-Infinity]", "-Infinity is not a finite number"),
        (b"[1e999]", "1e999 is not a finite number"),
        (b"\xff\xfe{}", "can't decode byte"),
        (b"", "Expecting value"),
    ],
)
def test_hostile_json_is_one_line(content: bytes, message: str, tmp_path: Path):
    path = tmp_path / "model.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as told:
        read_json(path)
    assert str(told.value).startswith(f"{path}: not readable as JSON (")
    assert "\n" not in str(told.value) and len(str(told.value)) < 300 + len(str(path))


def test_json_is_read_up_to_a_bound(tmp_path: Path):
    path = tmp_path / "large.json"
    path.write_bytes(b'"' + b"x" * 100 + b'"')
    assert read_json(path) == "x" * 100
    with pytest.raises(InputError, match=r"larger than 50 bytes"):
        read_json(path, max_bytes=50)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_an_error_of_writing_names_the_file_that_was_asked_for(tmp_path: Path, number: int):
    with pytest.raises(OSError) as raised, atomic_path(tmp_path / "a.json"):
        raise OSError(number, os.strerror(number))  # as `write` raises it: without a name
    assert (raised.value.errno, raised.value.filename) == (number, str(tmp_path / "a.json"))
    with pytest.raises(OSError) as raised, atomic_path(tmp_path / "a.json") as temporary:
        raise OSError(number, os.strerror(number), str(temporary))
    assert raised.value.filename == str(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError) as other, atomic_path(tmp_path / "a.json"):
        (tmp_path / "elsewhere").read_text()
    assert str(other.value.filename) == str(tmp_path / "elsewhere")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path):
    (tmp_path / "a").mkdir()  # an empty one may be there
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        assert list((tmp_path / "a").iterdir()) == []
    assert (tmp_path / "a" / "x").read_text() == "1"
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "b") as folder:
        (folder / "x").write_text("1")
        raise KeyboardInterrupt
    with pytest.raises(OSError), atomic_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("2")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a" / "x").read_text() == "1"


def test_a_scratch_folder_goes_with_what_made_it(tmp_path: Path):
    out = tmp_path / "new" / "m.onnx"
    with scratch_folder(out) as folder:
        (folder / "x").write_text("1")
        assert folder.parent == out.parent
        left = folder.with_name(folder.name.replace(f"-{os.getpid()}-", "-4194305-"))
        left.mkdir()  # of a process that has ended: no system counts so far
        with scratch_folder(out) as other:  # a part of the work with a folder of its own
            assert folder.exists() and not left.exists() and other != folder
    assert list(out.parent.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), scratch_folder(out):
        raise KeyboardInterrupt
    assert list(out.parent.iterdir()) == []


def test_where_only_free_names_can_be_taken_an_empty_folder_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "a").mkdir()
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        assert not target.exists(), "Windows refuses"
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("1")
        monkeypatch.setattr("secateurs.files.os.name", "nt")
    monkeypatch.undo()
    assert (tmp_path / "a" / "x").read_text() == "1"
