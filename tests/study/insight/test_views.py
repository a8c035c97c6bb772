"""The page of views: what training draws, and nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from secateurs.cli.app import app
from secateurs.errors import InputError
from secateurs.study.insight.views import show_views
from secateurs.study.setup.config import StudyConfig
from secateurs.study.setup.trial_context import open_dataset

CONFIG = StudyConfig(
    backbone="mobilenet_v3_small", weights="none", group_by=r"^(\d+)_", rotation_deg=20,
    min_scale=0.5,
)  # fmt: skip


def test_the_pictures_are_the_views_of_the_first_epochs(
    flags: Path, net_cache: Path, tmp_path: Path
):
    found = show_views(
        str(flags), CONFIG, tmp_path / "out", num_images=4, num_views=2, cache=net_cache
    )
    assert [image.label for image in found.images] == ["across", "across", "down", "plain"]
    train = open_dataset(str(flags), CONFIG, cache=net_cache).sides["train"]
    row = np.flatnonzero(train.labels == 2)[:1]
    view = train.train_views(
        row, seed=0, epoch=1, augmentation=CONFIG.augmentation(), device=torch.device("cpu")
    )[0]
    mean, std = torch.tensor(train.mean), torch.tensor(train.std)
    expected = (view.permute(1, 2, 0) * std + mean) * 255
    with Image.open(io.BytesIO(found.images[3].pictures[2])) as opened:
        pixels = np.asarray(opened, dtype=np.float64)
    assert pixels.shape == (224, 224, 3)
    assert np.abs(pixels - expected.numpy()).mean() < 6  # of JPEG
    assert len(found.images[0].pictures) == 3


def test_the_command_writes_one_page_again_and_again(
    flags: Path, net_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    words = ["show", str(flags), "--backbone", "mobilenet_v3_small", "--num-images", "2"]
    words += ["--num-views", "1", "--out", str(out), "--cache", str(net_cache), "--quiet"]
    for _ in range(2):
        app(words, standalone_mode=False)
        assert capsys.readouterr().out.strip() == str(out / "show.html")
    page = (out / "show.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 4
    assert "Training view 1 of across/" in page


def test_bad_numbers_and_other_folders_are_refused(flags: Path, net_cache: Path, tmp_path: Path):
    with pytest.raises(InputError, match="images must be 1 to 100, got 0"):
        show_views(str(flags), CONFIG, tmp_path, num_images=0, cache=net_cache)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a page of views"):
        show_views(str(flags), CONFIG, tmp_path, cache=net_cache)
