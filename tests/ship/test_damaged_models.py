"""Models that were damaged or made to do harm: one clear error, or the model as it was saved."""

from __future__ import annotations

import json
import random
import resource
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.files import sha256_file
from secateurs.nets.backbones import build
from secateurs.nets.weights import load_pretrained
from secateurs.ship.checkpoint import load, save
from secateurs.ship.spec import ImageInput, bare, describe

NAME = "shufflenet_v2_x0_5"
IMAGE = ImageInput(32, "straight", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
PLANTED: tuple[Any, ...] = (
    *(None, True, -1, 0, 1.5, 1e308, 10**18, "", "x" * 300, "a\nb", "\u202e", [], {}, [[]], [None]),
    *({"in": 1, "out": 1}, {"train": 1}, -(10**30), "resnet18", "regnet_y_400mf", "..", "\x00"),
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("original")
    model = build(NAME, 3).eval()
    extra = {"config": {"backbone": NAME, "lr": 1e-4}, "depth": 3}
    save(model, describe(model, NAME, ["a", "b", "c"], IMAGE, extra=extra), folder)
    return folder


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "model"))


def answers(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32))


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, removed, doubled or cut off."""
    start = rng.randrange(len(data))
    length = min(rng.choice((1, 1, 2, 8, 64)), len(data) - start)
    kind = rng.randrange(5)
    if kind == 0:
        return data[:start] + rng.randbytes(length) + data[start + length :]
    if kind == 1:
        return data[:start] + data[start + length :]
    if kind == 2:
        return data[:start] + data[start : start + length] * 2 + data[start + length :]
    if kind == 3:
        return data[:start]
    return data[:start] + bytes([data[start] ^ (1 << rng.randrange(8))]) + data[start + 1 :]


def planted(data: Any, rng: random.Random) -> Any:
    """JSON with one value of the tree replaced, a key renamed, or a key left out."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict | list):
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                places.append((node, key))
                walk(node[key])

    walk(data)
    node, key = rng.choice(places)
    kind = rng.randrange(4)
    if kind == 0 and isinstance(node, dict):
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[str(rng.choice(PLANTED))] = node.pop(key)
    else:
        node[key] = rng.choice(PLANTED)
    return data


def refused_or_the_same(folder: Path, expected: Tensor, of: str) -> bool:
    """Whether it is refused; anything but an InputError of one line, or other outputs, fails."""
    try:
        loaded = load(folder)
    except InputError as error:
        text = str(error)
        assert text.isprintable(), (of, text)
        assert len(text) < 1000, (of, text)
        return True
    if loaded.spec.backbone == NAME and loaded.spec.preprocessing.size == IMAGE.size:
        assert torch.equal(answers(loaded.model), expected), of
    return False


def resign(folder: Path) -> None:
    """Make model.json vouch for whatever the tensors' file is now."""
    path, tensors = folder / "model.json", folder / "model.safetensors"
    data = json.loads(path.read_text())
    data["tensors"] |= {"sha256": sha256_file(tensors), "num_bytes": tensors.stat().st_size}
    path.write_text(json.dumps(data))


def test_damaged_recipes_are_refused_or_harmless(original: Path, copy: Path):
    expected, rng = answers(load(original).model), random.Random(0)
    whole = (original / "model.json").read_bytes()
    num_refused = 0
    for number in range(200):
        if number % 2:
            content = damaged(whole, rng)
        else:
            content = json.dumps(planted(json.loads(whole), rng)).encode()
        (copy / "model.json").write_bytes(content)
        num_refused += refused_or_the_same(copy, expected, content[:3000].decode(errors="replace"))
    assert 100 < num_refused < 200


def test_damaged_tensors_are_refused_by_their_hash(original: Path, copy: Path):
    expected, rng = answers(load(original).model), random.Random(1)
    whole = (original / "model.safetensors").read_bytes()
    for _ in range(20):
        content = damaged(whole, rng)
        (copy / "model.safetensors").write_bytes(content)
        assert refused_or_the_same(copy, expected, "tensors") or content == whole


def test_hostile_tensors_under_a_valid_hash_are_refused_or_loaded(original: Path, copy: Path):
    """The header damaged; values of another's model may be any that are finite."""
    rng = random.Random(2)
    whole = (original / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    num_refused = 0
    for _ in range(80):
        content = damaged(whole[: 8 + size], rng) + whole[8 + size :]
        (copy / "model.safetensors").write_bytes(content)
        resign(copy)
        try:
            loaded = load(copy)
        except InputError as error:
            assert str(error).isprintable()
            assert len(str(error)) < 1000
            num_refused += 1
            continue
        assert all(bool(torch.isfinite(value).all()) for value in loaded.model.parameters())
    assert num_refused > 40


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 64)
        + b'{"fc.bias":{"dtype":"F32","shape":[4611686018427387904,4],"data'.ljust(64),
    ],
)
def test_hostile_headers(copy: Path, header: bytes):
    (copy / "model.safetensors").write_bytes(header)
    resign(copy)
    with pytest.raises(InputError, match=r"model.safetensors: not readable as safetensors") as told:
        load(copy)
    assert str(told.value).isprintable()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_tensors_that_are_not_finite_are_refused_by_name(copy: Path, value: float):
    tensors = load_file(copy / "model.safetensors")
    tensors["stage3.1.branch2.0.weight"][0, 0] = value
    save_file(tensors, copy / "model.safetensors")
    resign(copy)
    message = r"safetensors: tensor 'stage3.1.branch2.0.weight' holds values that are not finite"
    with pytest.raises(InputError, match=message):
        load(copy)


def test_a_network_that_has_diverged_is_not_saved(tmp_path: Path):
    model = build(NAME, 3).eval()
    spec = describe(model, NAME, ["a", "b", "c"], IMAGE)
    with torch.no_grad():
        model.fc.bias[1] = float("nan")
    with pytest.raises(
        InputError, match=r"model given: tensor 'fc.bias' holds values that are not"
    ):
        save(model, spec, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_small_recipe_that_names_a_huge_network_is_refused_at_once(copy: Path):
    """The network of 2.6 GB was built before its tensors were looked at."""
    recipe = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(recipe | {"backbone": "regnet_y_128gf"}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with pytest.raises(InputError, match=r"tensor 'fc.weight' is|tensor '.*' is missing"):
        load(copy)
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB


def test_regnet_without_values_has_the_shapes_of_the_real_one():
    real, planned = build("regnet_x_400mf", 3), bare("regnet_x_400mf", 3)
    wanted = {key: tuple(value.shape) for key, value in real.state_dict().items()}
    assert {key: tuple(value.shape) for key, value in planned.state_dict().items()} == wanted
    assert all(value.is_meta for value in planned.state_dict().values())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save({"state_dict": build(NAME, 3).state_dict(), "epoch": 3}, path)
    return path


@pytest.mark.parametrize("old", [False, True])
def test_damaged_weights_are_refused_or_hold_finite_tensors(
    checkpoint: Path, tmp_path: Path, old: bool
):
    rng, path = random.Random(3), tmp_path / "weights.pth"
    if old:
        tensors = {k: v for k, v in build(NAME, 3).state_dict().items() if k.startswith("conv1")}
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
        whole = path.read_bytes()
    else:
        whole = checkpoint.read_bytes()
    num_refused = 0
    for number in range(60):
        # The pickle at the beginning and the directory at the end are what can do harm.
        part = slice(0, 20_000) if number % 2 else slice(max(0, len(whole) - 20_000), None)
        piece = whole[part]
        changed = damaged(piece, rng)
        path.write_bytes(changed + whole[20_000:] if number % 2 else whole[: -len(piece)] + changed)
        model = build_once()
        try:
            load_pretrained(model, NAME, path, cache=tmp_path)
        except InputError as error:
            assert str(error).isprintable()
            assert len(str(error)) < 1000
            num_refused += 1
            continue
        assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
    assert num_refused > 10


_BUILT: list[nn.Module] = []


def build_once() -> nn.Module:
    if not _BUILT:
        _BUILT.append(build(NAME, 3))
    return _BUILT[0]


def zip64_locator(data: bytes) -> bytes:
    """The archive with a locator of a 64-bit directory that points nowhere, on another disk."""
    end = data.rindex(b"PK\x05\x06")
    return data[:end] + b"PK\x06\x07" + struct.pack("<LQL", 7, 2**62, 9) + data[end:]


def compressed(data: bytes, tmp_path: Path) -> bytes:
    import io
    import zipfile

    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    return out.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data, _: zip64_locator(data), r"weights.pth: not readable as weights, damaged"),
        (compressed, r"weights.pth: not readable as weights: compressed"),
        (lambda data, _: b"PK\x05\x06" + bytes(18), r"weights.pth: (not readable|refused)"),
        (lambda data, _: b"\x80\x02" + b"(" * 100_000 + b".", r"weights.pth: (not read|refused)"),
    ],
)
def test_hostile_archives(
    checkpoint: Path, tmp_path: Path, change: Callable[[bytes, Path], bytes], message: str
):
    path = tmp_path / "weights.pth"
    path.write_bytes(change(checkpoint.read_bytes(), tmp_path))
    with pytest.raises(InputError, match=message) as told:
        load_pretrained(build_once(), NAME, path, cache=tmp_path)
    assert str(told.value).isprintable()
