"""What a study refuses, before any work."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from narrow_study import CONFIG

from secateurs.errors import InputError
from secateurs.study.setup.config import StudyConfig
from secateurs.study.study import run_study


def test_both_splits_need_groups(flags: Path, cache: Path, tmp_path: Path):
    config = replace(CONFIG, group_by=None)
    with pytest.raises(InputError, match="groups must be known; give --group-by"):
        run_study(str(flags), config, tmp_path, cache=cache, prune=False, both_splits=True)


def test_another_configuration_in_the_same_directory_is_refused(
    finished: tuple[Path, dict], flags: Path, cache: Path
):
    other = StudyConfig(**{**CONFIG.__dict__, "lr": 5e-3})
    with pytest.raises(InputError, match=r"another configuration: lr \(0.001 there, 0.005 now\)"):
        run_study(str(flags), other, finished[0], cache=cache)


def test_other_images_in_the_same_directory_are_refused(
    finished: tuple[Path, dict], flags: Path, cache: Path, tmp_path: Path
):
    copy = tmp_path / "flags"
    shutil.copytree(flags, copy)
    (next((copy / "plain").iterdir())).unlink()
    with pytest.raises(
        InputError, match="holds a study of other data and split; choose another directory"
    ):
        run_study(str(copy), CONFIG, finished[0], cache=cache)


def test_a_directory_that_is_no_study_is_left_alone(flags: Path, cache: Path, tmp_path: Path):
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a study"):
        run_study(str(flags), CONFIG, tmp_path, cache=cache)
    assert [p.name for p in tmp_path.iterdir()] == ["letters.txt"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"depths": (99,)}, "depth 99 is outside 0..7 of alexnet"),
        ({"backbone": "alexnett"}, "unknown backbone 'alexnett'; did you mean alexnet"),
        ({"batch_size": 64}, "batch size 64 is larger than the"),
        ({"weights": "nowhere.pth"}, "nowhere.pth: no such weights file"),
        ({"group_by": "("}, "not a regular expression"),
        ({"layers": ("fc9",)}, "has no weighted layer 'fc9'"),
    ],
)
def test_bad_input_comes_before_training(
    flags: Path, cache: Path, tmp_path: Path, change: dict, text: str
):
    config = StudyConfig(**{**CONFIG.__dict__, **change})
    with pytest.raises(InputError, match=text):
        run_study(str(flags), config, tmp_path / "out", cache=cache)
    assert not (tmp_path / "out" / "trials").exists()
