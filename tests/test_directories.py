"""What `--overwrite` may delete: what the command has written there, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from secateurs.directories import OUTPUTS, clear_output
from secateurs.errors import InputError


def fill(out: Path, kind: str) -> None:
    for pattern in OUTPUTS[kind]:
        path = out / pattern.replace("*", "x")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


@pytest.mark.parametrize("kind", sorted(OUTPUTS))
def test_all_of_an_output_is_deleted_and_nothing_else(kind: str, tmp_path: Path):
    out = tmp_path / "out"
    fill(out, kind)
    mine = [out / "notes.md", out / "trials" / "notes.txt", out / "mine" / "model.json"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    outside = tmp_path / "model.json"
    outside.write_text("mine")
    (out / "link").symlink_to(tmp_path)
    clear_output(out, kind)
    assert sorted(path for path in out.rglob("*") if path.is_file()) == sorted(mine)
    assert outside.exists()
    assert (out / "link").is_symlink()
    clear_output(out, kind)


def test_an_output_of_another_command_is_not_touched(tmp_path: Path):
    fill(tmp_path, "prune")
    before = sorted(tmp_path.rglob("*"))
    for kind in set(OUTPUTS) - {"prune"}:
        clear_output(tmp_path, kind)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_deleted_through_a_link(tmp_path: Path):
    out, other = tmp_path / "out", tmp_path / "other"
    fill(out, "study")
    fill(other, "study")
    for path in (out / "trials").iterdir():
        path.unlink()
    (out / "trials").rmdir()
    (out / "trials").symlink_to(other / "trials")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="trials: a link; --overwrite deletes nothing"):
        clear_output(out, "study")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_is_a_link_goes_and_its_target_stays(tmp_path: Path):
    out, target = tmp_path / "out", tmp_path / "target"
    fill(out, "grid")
    target.write_text("mine")
    (out / "grid.csv").unlink()
    (out / "grid.csv").symlink_to(target)
    clear_output(out, "grid")
    assert target.read_text() == "mine"
    assert not (out / "grid.csv").is_symlink()


def test_a_directory_in_use_is_not_deleted(tmp_path: Path):
    fill(tmp_path, "study")
    before = sorted(tmp_path.rglob("*"))
    with (
        FileLock(tmp_path / "trials" / "x.lock"),
        pytest.raises(InputError, match="another process is at work here"),
    ):
        clear_output(tmp_path, "study")
    assert sorted(tmp_path.rglob("*")) == before
