from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

import secateurs.data.store
from secateurs.data.audit import audit
from secateurs.data.store import eval_pixels, open_store
from secateurs.errors import InputError


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8)).resize((width, height))


SHAPES = [(300, 200), (200, 300), (231, 517), (517, 232), (90, 90), (257, 256)]


@pytest.mark.parametrize("shape", SHAPES)
def test_straight_is_torchvisions_resize(shape: tuple[int, int]):
    image = picture(*shape)
    expected = np.asarray(transforms.Resize((224, 224))(image))
    assert np.array_equal(eval_pixels(image, crop=224, resize="straight"), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_crop_is_torchvisions_resize_and_centre_crop(shape: tuple[int, int]):
    image = picture(*shape)
    steps = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    assert np.array_equal(eval_pixels(image, crop=224, resize="crop"), np.asarray(steps(image)))


def test_unknown_resize():
    with pytest.raises(InputError, match="resize must be straight or crop, got 'stretch'"):
        eval_pixels(picture(9, 9), crop=8, resize="stretch")  # pyright: ignore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for k in range(3):
            picture(40 + k, 30, seed=k + (label == "b") * 10).save(root / label / f"{k}.png")
    return root


def test_the_store_holds_what_the_files_hold(folder: Path, tmp_path: Path):
    checked = audit(folder)
    store = open_store(checked, cache=tmp_path / "cache", side=16, crop=8)
    assert store.train_view.shape == (6, 16, 16, 3)
    for index, name in enumerate(checked.listing.names):
        image = Image.open(folder / name).convert("RGB")
        square = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR))
        assert np.array_equal(store.train_view[index], square)
        assert np.array_equal(store.eval_view[index], eval_pixels(image, crop=8, resize="straight"))
        assert tuple(store.sizes[index]) == (image.height, image.width)
    assert isinstance(store.train_view, np.memmap)


def test_a_second_run_decodes_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cache = tmp_path / "cache"
    first = open_store(audit(folder, cache=cache), cache=cache, side=16, crop=8)

    def never(*args: object, **options: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(secateurs.data.store, "decode", never)
    monkeypatch.setattr("secateurs.data.audit.decode", never)
    # The same pictures in another place have the same content.
    folder.rename(folder.with_name("moved"))
    checked = audit(folder.with_name("moved"), cache=cache)
    again = open_store(checked, cache=cache, side=16, crop=8)
    assert again.key == first.key
    assert np.array_equal(again.eval_view, first.eval_view)


def test_threads_do_not_matter(folder: Path, tmp_path: Path):
    checked = audit(folder)
    one = open_store(checked, cache=tmp_path / "one", side=16, crop=8, workers=1)
    four = open_store(checked, cache=tmp_path / "four", side=16, crop=8, workers=4)
    assert np.array_equal(one.train_view, four.train_view)


def test_a_damaged_store_is_made_again(folder: Path, tmp_path: Path):
    checked = audit(folder)
    first = np.array(open_store(checked, cache=tmp_path, side=16, crop=8).train_view)
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    again = open_store(checked, cache=tmp_path, side=16, crop=8)
    assert np.array_equal(again.train_view, first)


def test_a_file_that_broke_since_the_audit_leaves_nothing_behind(folder: Path, tmp_path: Path):
    checked = audit(folder)
    (folder / "b" / "2.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"b/2\.png: zero-byte"):
        open_store(checked, cache=tmp_path / "cache", side=16, crop=8)
    assert list((tmp_path / "cache" / "images").iterdir()) == []


def test_a_full_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(secateurs.data.store.os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"no space left; 0 MiB are needed .*--cache DIR"):
        open_store(audit(folder), cache=tmp_path / "cache", side=16, crop=8)
    assert list((tmp_path / "cache" / "images").iterdir()) == []
