"""Where the images of a saved model are."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateurs.errors import InputError
from secateurs.files import write_json
from secateurs.study.saved.location import images_of


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    root = tmp_path / "study"
    for place in ("model", "models/net"):
        (root / place).mkdir(parents=True)
    write_json(root / "study.json", {"data": str(tmp_path / "photos"), "identity": {}})
    return root


@pytest.mark.parametrize("place", ["", "model", "models/net"])
def test_a_study_and_its_networks_know_their_images(study: Path, tmp_path: Path, place: str):
    assert images_of(study / place, None, command="evaluate MODEL") == str(tmp_path / "photos")
    assert images_of(study / place, "faces", command="evaluate MODEL") == "faces"


def test_other_models_need_them(tmp_path: Path, study: Path):
    with pytest.raises(InputError, match="say where they are: `secateurs trust MODEL DATA`"):
        images_of(tmp_path / "other", None, command="trust MODEL")
    (tmp_path / "photos").rmdir()
    with pytest.raises(InputError, match="photos: the study's images are no longer there"):
        images_of(study, None, command="trust MODEL")
