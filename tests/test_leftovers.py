from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from secateurs import leftovers
from secateurs.directories import open_output, sweep_output
from secateurs.errors import InputError
from secateurs.files import atomic_path, write_json, write_text
from secateurs.leftovers import sweep, temporary_prefix


def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_by(process: int, folder: Path, name: str = "a.json", *, token: str = "000000") -> Path:
    path = folder / f".{name}.{leftovers._host()}-{process}-{token}.x1y2z3.part"
    path.write_text("half")
    return path


def test_what_a_killed_process_left_is_swept_and_a_living_one_keeps_its_own(tmp_path: Path):
    deep = tmp_path / "trials"
    deep.mkdir()
    gone = [left_by(ended(), tmp_path), left_by(ended(), deep), left_by(os.getpid(), tmp_path)]
    folder = tmp_path / f".images.{leftovers._host()}-{ended()}-000000.x.part"
    folder.mkdir()
    (folder / "train").write_text("rows")
    older = tmp_path / ".study.json.x.part"  # a name without a process: an older version's
    older.write_text("")
    mine = tmp_path / (temporary_prefix("b.json") + "x.part")
    parent = left_by(os.getppid(), tmp_path, "c.json")
    others = [tmp_path / "notes.part", tmp_path / ".hidden", tmp_path / "a.json"]
    for path in (mine, *others):
        path.write_text("")
    sweep(tmp_path)
    assert not any(path.exists() for path in (*gone, folder, older))
    assert all(path.exists() for path in (mine, parent, *others))


def test_what_another_machine_writes_stays_for_an_hour(tmp_path: Path):
    path = tmp_path / ".a.json.ffffff-1-000000.x.part"
    path.write_text("half")
    sweep(tmp_path)
    assert path.exists()
    before = time.time() - 2 * leftovers.ELSEWHERE_S
    os.utime(path, (before, before))
    sweep(tmp_path)
    assert not path.exists()


def test_a_link_is_not_followed(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    kept = left_by(ended(), outside)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(outside)
    sweep(tmp_path / "out")
    assert kept.exists()


def test_writing_a_file_again_removes_what_was_left_of_it_alone(tmp_path: Path):
    same, other = left_by(ended(), tmp_path), left_by(ended(), tmp_path, "b.json")
    write_json(tmp_path / "a.json", {})
    assert (same.exists(), other.exists()) == (False, True)


def test_a_long_name_can_be_written(tmp_path: Path):
    path = tmp_path / ("x" * 250 + ".json")
    write_text(path, "{}")
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_without_signals_to_ask_for_a_process_age_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = left_by(ended(), tmp_path)
    real = path.stat()
    monkeypatch.setattr(leftovers.os, "name", "nt")
    monkeypatch.setattr(leftovers.os, "kill", lambda *_: pytest.fail("ends a process on Windows"))
    assert not leftovers._abandoned(path.name, real)


def test_what_is_written_is_synced_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    modes: list[int] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        modes.append(os.fstat(handle).st_mode & 0o170000)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(b"1")
    assert modes == [0o100000, 0o040000]  # the file, then its folder


def test_a_folder_that_cannot_be_opened_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = os.open

    def refuse(path: Path, flags: int, *more: int, **words: int) -> int:
        if Path(path) == tmp_path:
            raise PermissionError(13, "Permission denied")  # as Windows says
        return real(path, flags, *more, **words)

    monkeypatch.setattr(os, "open", refuse)
    write_text(tmp_path / "a", "1")
    assert (tmp_path / "a").read_text() == "1"


def test_a_directory_killed_while_it_was_claimed_can_be_used(tmp_path: Path):
    out = tmp_path / "o"
    out.mkdir()
    (out / ".study.json.x.part").write_text("")
    (out / ".DS_Store").write_text("")
    open_output(out, marker="study.json", kind="a study")
    assert [path.name for path in out.iterdir()] == [".DS_Store"]


def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "holiday.jpg").write_text("")
    (tmp_path / ".a.json.x.part").write_text("")
    with pytest.raises(InputError, match="not empty and not a study; choose a new directory"):
        open_output(tmp_path, marker="study.json", kind="a study")
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_written_before_the_marker_is_known(tmp_path: Path):
    (tmp_path / "grid.csv").write_text("")
    open_output(tmp_path, marker="grid.json", kind="a grid", early=("grid.csv",))
    with pytest.raises(InputError, match="not a grid"):
        open_output(tmp_path, marker="grid.json", kind="a grid")


def test_a_file_and_a_link_to_itself_are_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="expected a directory, got a file"):
        open_output(tmp_path / "file", marker="m", kind="a study")
    with pytest.raises(InputError, match="a broken link"):
        open_output(tmp_path / "loop", marker="m", kind="a study")


def test_a_file_older_than_the_process_of_its_number_was_left_by_another(tmp_path: Path):
    if leftovers._started(os.getppid()) is None:
        pytest.skip("this system does not say when a process started")
    old, new = left_by(os.getppid(), tmp_path), left_by(os.getppid(), tmp_path, "b.json")
    os.utime(old, (1, 1))
    sweep(tmp_path)
    assert (old.exists(), new.exists()) == (False, True)


def test_where_a_system_says_nothing_of_starts_a_living_number_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = left_by(os.getppid(), tmp_path)
    os.utime(path, (1, 1))
    monkeypatch.setattr(Path, "read_bytes", lambda _: (_ for _ in ()).throw(FileNotFoundError()))
    sweep(tmp_path)
    assert path.exists()


def test_files_of_other_programs_beside_a_model_are_left_alone(tmp_path: Path):
    """A model may be written into any folder, which other programs use too."""
    (tmp_path / "documents").mkdir()
    (tmp_path / "trials").mkdir()
    others = [tmp_path / ".film.part", tmp_path / "documents" / ".thesis.part"]
    others.append(left_by(ended(), tmp_path / "documents"))
    for path in others[:2]:
        path.write_text("mine")
    gone = [left_by(ended(), tmp_path), left_by(ended(), tmp_path / "trials")]
    sweep_output(tmp_path)
    assert all(path.exists() for path in others)
    assert not any(path.exists() for path in gone)


def test_folders_are_not_searched_deeper_than_outputs_are(tmp_path: Path):
    deep = tmp_path.joinpath(*"abcde")
    deep.mkdir(parents=True)
    far, near = left_by(ended(), deep), left_by(ended(), deep.parent)
    sweep(tmp_path)
    assert (far.exists(), near.exists()) == (True, False)


@pytest.mark.parametrize(
    ("marker", "what"),
    [
        ("study.json", "a study"),
        ("plan.json", "a search"),
        ("paper.plan.json", "a run of the paper"),
    ],
)
def test_a_model_is_not_written_among_the_files_of_a_study(tmp_path: Path, marker: str, what: str):
    (tmp_path / marker).write_text("{}")
    with pytest.raises(InputError, match=f"is the directory of {what}; choose another --out"):
        sweep_output(tmp_path)
