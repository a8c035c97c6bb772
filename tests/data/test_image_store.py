from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

import secateurs.data.image_store
from damage import damaged
from secateurs.data.audit import audit
from secateurs.data.image_store import audit_and_store, eval_pixels, open_store
from secateurs.data.images.decode import Decoded, decoding
from secateurs.data.mapped_arrays import create_arrays, map_arrays
from secateurs.data.scan import scan
from secateurs.errors import InputError
from secateurs.leftovers import temporary_prefix


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

    monkeypatch.setattr(secateurs.data.image_store, "decoding", never)
    monkeypatch.setattr("secateurs.data.audit.decoding", never)
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


def test_a_file_that_changed_since_the_audit(folder: Path, tmp_path: Path):
    checked = audit(folder)
    picture(40, 30, seed=99).save(folder / "b" / "2.png")
    with pytest.raises(InputError, match=r"b/2\.png: changed since the audit; run again"):
        open_store(checked, cache=tmp_path / "cache", side=16, crop=8)
    assert list((tmp_path / "cache" / "images").iterdir()) == []


@pytest.mark.parametrize("kind", ["train", "eval", "checks"])
def test_a_flipped_bit_is_noticed(folder: Path, tmp_path: Path, kind: str):
    checked = audit(folder)
    first = np.array(open_store(checked, cache=tmp_path, side=16, crop=8).train_view)
    (path,) = (tmp_path / "images").glob(f"*-{kind}.npy")
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)
    again = open_store(checked, cache=tmp_path, side=16, crop=8)
    assert np.array_equal(again.train_view, first)
    assert path.read_bytes() != data


@pytest.mark.parametrize("kind", ["train", "eval"])
def test_a_full_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    real = tempfile.mkdtemp

    def with_full_file(**options: Any) -> str:
        made = real(**options)
        (Path(made) / kind).symlink_to(full)
        return made

    monkeypatch.setattr("secateurs.data.mapped_arrays.tempfile.mkdtemp", with_full_file)
    with pytest.raises(InputError, match=r"cache: no space left; 1 MiB are needed .*--cache DIR"):
        open_store(audit(folder), cache=tmp_path / "cache", side=200, crop=100)
    assert list((tmp_path / "cache" / "images").iterdir()) == []
    with pytest.raises(InputError, match="no space left"):
        audit_and_store(folder, cache=tmp_path / "cache", side=200, crop=100)
    assert list((tmp_path / "cache" / "images").iterdir()) == []


def test_a_cache_that_is_a_file(folder: Path, tmp_path: Path):
    (tmp_path / "cache").write_text("x")
    with pytest.raises(InputError, match=r"cache: cannot be written to .*; another place: --cache"):
        open_store(audit(folder), cache=tmp_path / "cache", side=16, crop=8)


def test_nothing_to_store(tmp_path: Path):
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "x.png").write_bytes(b"")
    with pytest.raises(InputError, match="data: no usable images"):
        audit_and_store(tmp_path / "data", cache=tmp_path / "cache")


def test_settings_do_not_share_a_store(folder: Path, tmp_path: Path):
    checked = audit(folder)
    keys = {
        open_store(checked, cache=tmp_path, side=side, crop=crop, resize=resize).key
        for side, crop, resize in (
            (16, 8, "straight"),
            (16, 8, "crop"),
            (16, 9, "crop"),
            (17, 8, "crop"),
        )
    }
    assert len(keys) == 4


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded from here on."""
    names: list[str] = []

    def watched(path: Path, **options: int) -> AbstractContextManager[Decoded]:
        names.append(f"{path.parent.name}/{path.name}")
        return decoding(path, **options)

    monkeypatch.setattr("secateurs.data.image_store.decoding", watched)
    monkeypatch.setattr("secateurs.data.audit.decoding", watched)
    return names


def test_one_pass_decodes_each_file_once_for_audit_and_store(
    folder: Path, tmp_path: Path, decoded: list[str]
):
    (folder / "a" / "0b.png").write_bytes(b"")  # unusable, in the middle
    checked, store = audit_and_store(folder, cache=tmp_path / "one", side=16, crop=8, workers=3)
    assert sorted(decoded) == sorted(set(scan(folder).names) - {"a/0b.png"})
    decoded.clear()
    _, again = audit_and_store(folder, cache=tmp_path / "one", side=16, crop=8)
    assert decoded == []
    apart = open_store(audit(folder), cache=tmp_path / "two", side=16, crop=8)
    for other in (again, apart):
        assert other.key == store.key
        assert np.array_equal(other.train_view, store.train_view)
        assert np.array_equal(other.eval_view, store.eval_view)
        assert np.array_equal(other.ids, store.ids)
    assert len(checked.bad) == 1
    assert len(list((tmp_path / "one" / "images").iterdir())) == 3


def test_a_new_file_among_known_ones(folder: Path, tmp_path: Path):
    audit_and_store(folder, cache=tmp_path / "one", side=16, crop=8)
    picture(31, 41, seed=5).save(folder / "a" / "1b.png")
    _, store = audit_and_store(folder, cache=tmp_path / "one", side=16, crop=8)
    whole = open_store(audit(folder), cache=tmp_path / "two", side=16, crop=8)
    assert np.array_equal(store.train_view, whole.train_view)
    assert store.key == whole.key


def test_the_same_file_twice(folder: Path, tmp_path: Path):
    shutil.copy(folder / "a" / "0.png", folder / "b" / "0.png")
    checked, store = audit_and_store(folder, cache=tmp_path, side=16, crop=8)
    assert len(checked.exact) == len(checked.conflicts) == 1
    assert np.array_equal(store.train_view[0], store.train_view[3])
    assert store.ids[0] == store.ids[3]


def test_several_at_once(folder: Path, tmp_path: Path):
    checked = audit(folder)
    with ThreadPoolExecutor(4) as pool:
        stores = list(
            pool.map(lambda _: open_store(checked, cache=tmp_path, side=16, crop=8), range(8))
        )
    for store in stores:
        assert np.array_equal(store.train_view, stores[0].train_view)
    assert len(list((tmp_path / "images").iterdir())) == 3


def test_what_killed_processes_left_is_removed(folder: Path, tmp_path: Path):
    old = tmp_path / "images" / ".part-old"  # of a version that did not say whose it is
    mine = tmp_path / "images" / f"{temporary_prefix('images')}x.part"
    for left in (old, mine):
        left.mkdir(parents=True)
        (left / "train").write_bytes(b"x")
    open_store(audit(folder), cache=tmp_path, side=16, crop=8)
    assert not old.exists()
    assert mine.exists()  # a living process may still write it


def test_a_store_above_the_usual_limit_of_pixels(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("secateurs.data.image_store.MAX_PIXELS", 100)
    checked = audit(folder, max_pixels=2000)
    assert len(open_store(checked, cache=tmp_path, side=16, crop=8).ids) == 6


@pytest.mark.parametrize("kind", ["train", "eval", "checks"])
def test_a_store_damaged_in_any_way_gives_the_same_images(
    folder: Path, tmp_path: Path, kind: str, decoded: list[str]
):
    checked = audit(folder)
    first = open_store(checked, cache=tmp_path, side=16, crop=8)
    images = np.array(first.train_view), np.array(first.eval_view)
    (path,) = (tmp_path / "images").glob(f"*-{kind}.npy")
    whole = path.read_bytes()
    for name, content in damaged(whole, flips=15):
        path.unlink()  # what is mapped stays as it is
        path.write_bytes(content)
        decoded.clear()
        again = open_store(checked, cache=tmp_path, side=16, crop=8)
        assert np.array_equal(again.train_view, images[0]), name
        assert np.array_equal(again.eval_view, images[1]), name
        assert len(decoded) == 6, name
        assert path.read_bytes() == whole
    decoded.clear()
    open_store(checked, cache=tmp_path, side=16, crop=8)
    assert decoded == []


def test_every_row_is_checked(tmp_path: Path):
    num, shapes = 3000, ((3000, 2, 2, 3), (3000, 1, 1, 3))
    rng = np.random.default_rng(0)
    with create_arrays(tmp_path) as shelf:
        for identity in range(num):
            rows = [rng.integers(0, 256, shape[1:]).astype(np.uint8) for shape in shapes]
            shelf.append(identity, *rows)
        shelf.commit("k")
    assert map_arrays(tmp_path, "k", shapes) is not None
    path = tmp_path / "k-eval.npy"
    whole = path.read_bytes()
    for row in rng.integers(0, num, 12).tolist():
        changed = bytearray(whole)
        changed[len(whole) - 3 * row - 1] ^= 1
        path.write_bytes(changed)
        assert map_arrays(tmp_path, "k", shapes) is None, row


def test_a_store_is_on_the_disk_before_it_has_its_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    events: list[str] = []
    replace = Path.replace

    def watched(path: Path, target: Path) -> Path:
        events.append("named")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", lambda handle: events.append("synced"))
    monkeypatch.setattr(Path, "replace", watched)
    open_store(audit(folder), cache=tmp_path, side=16, crop=8)
    assert events == ["synced"] * 3 + ["named"] * 3 + ["synced"]  # the folder last
