"""Which split `auto` stands for, and the trees for which it stands for none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secateurs.data.scan import scan
from secateurs.errors import InputError
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import open_context, settle_split


def tree(root: Path, *folders: str) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (12, 9, 9, 3), dtype=np.uint8)
    for folder in folders:
        for number in range(2):
            path = root / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[number]).save(path)
    return root


PARTS = [
    ("imgs_train/a", "imgs_train/b", "imgs_test/a", "imgs_test/b"),
    ("fold0/a", "fold0/b", "fold1/a", "fold1/b", "fold2/a", "fold2/b"),
    ("old/a", "old/b", "new/a", "new/b", "new/c"),
]


@pytest.mark.parametrize("folders", PARTS)
@pytest.mark.parametrize("opening", [scan, lambda root: settle_split(str(root), StudyConfig())])
def test_parts_of_a_set_are_not_taken_for_classes(
    tmp_path: Path, folders: tuple[str, ...], opening: Callable[[Path], object]
):
    with pytest.raises(InputError, match="all hold the same sub-folders"):
        opening(tree(tmp_path, *folders))


def test_sides_inside_the_classes_are_refused(tmp_path: Path):
    root = tree(tmp_path, "a/Train", "a/val", "b/Train", "b/val")
    with pytest.raises(InputError, match=r"every class has folders Train and val of its own"):
        settle_split(str(root), StudyConfig())


@pytest.mark.parametrize("folders", PARTS[:1])
def test_a_split_that_was_asked_for_takes_the_outer_folders(
    tmp_path: Path, folders: tuple[str, ...]
):
    root = tree(tmp_path, *folders)
    config = StudyConfig(split="random")
    assert settle_split(str(root), config) == config
    assert scan(root, split="random").classes == ("imgs_test", "imgs_train")


@pytest.mark.parametrize(
    ("folders", "rule"),
    [
        (("a", "b"), "random"),
        (("a/old", "a/new", "b/old", "b/other", "b/third"), "random"),
        (("Train/a", "Train/b", "EVAL/a", "EVAL/b"), "folders"),
    ],
)
def test_auto_is_settled(tmp_path: Path, folders: tuple[str, ...], rule: str):
    assert settle_split(str(tree(tmp_path, *folders)), StudyConfig()).split == rule


def test_a_study_opens_no_parts(tmp_path: Path):
    config = StudyConfig(backbone="squeezenet1_1", weights="none")
    with pytest.raises(InputError, match="all hold the same sub-folders"):
        open_context(str(tree(tmp_path / "x", *PARTS[0])), config, cache=tmp_path / "cache")
