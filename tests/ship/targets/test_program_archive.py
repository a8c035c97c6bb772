"""A `.pt2` file is checked before PyTorch reads it: nothing of it is run, no byte is changed."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from secateurs.errors import InputError
from secateurs.nets.backbones import build
from secateurs.ship.spec import ImageInput, describe
from secateurs.ship.targets.formats import open_file, target_of

IMAGE = ImageInput(64, "straight", (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
GRAPH = "archive/models/model.json"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = build("squeezenet1_1", 3).eval()
    path = tmp_path_factory.mktemp("program") / "good.pt2"
    spec = describe(model, "squeezenet1_1", ("a", "b", "c"), IMAGE, extra={"weights": "a b/../c"})
    target_of(path).write(model, spec, path, torch.rand(1, 3, 64, 64))
    return path


class Marker:
    """What creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def rewritten(program: Path, out: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """A copy with other members."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data if (other := change(name, data)) is None else other)
    return out


def graph_with(program: Path, out: Path, old: str, new: str) -> Path:
    def change(name: str, data: bytes) -> bytes | None:
        if name != GRAPH:
            return None
        assert old.encode() in data
        return data.replace(old.encode(), new.encode())

    return rewritten(program, out, change)


def test_a_copy_of_a_program_is_opened(program: Path, tmp_path: Path):
    copy = rewritten(program, tmp_path / "copy.pt2", lambda name, data: None)
    assert open_file(copy).spec.classes == ("a", "b", "c")


def test_the_file_holds_no_source_paths_and_no_sample_images(program: Path):
    with zipfile.ZipFile(program) as archive:
        graph = archive.read(GRAPH)
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    assert b"stack_trace" not in graph and b"site-packages" not in graph
    assert sum(size for name, size in sizes.items() if "sample_inputs" in name) < 1000


@pytest.mark.parametrize("member", ["sample_inputs/model.pt", "constants/opaque_obj_0"])
def test_a_pickled_object_is_not_unpickled(program: Path, tmp_path: Path, member: str):
    packed = io.BytesIO()
    torch.save(Marker(tmp_path / "ran"), packed)
    name = f"archive/data/{member}"
    bad = rewritten(
        program,
        tmp_path / "bad.pt2",
        lambda found, data: packed.getvalue() if found == name else None,
    )
    with zipfile.ZipFile(bad, "a") as archive:
        if name not in archive.namelist():
            archive.writestr(name, packed.getvalue())
    with pytest.raises(InputError, match=r"bad\.pt2: data/\w+/.*holds more than tensors"):
        open_file(bad)
    assert not (tmp_path / "ran").exists()


def test_no_text_of_the_file_is_evaluated(program: Path, tmp_path: Path):
    size = json.loads(zipfile.ZipFile(program).read(GRAPH))
    [symbol] = {
        value["as_expr"]["expr_str"]
        for tensor in size["graph_module"]["graph"]["tensor_values"].values()
        for value in tensor["sizes"]
        if "as_expr" in value
    }
    ran = tmp_path / "ran"
    for old, new in (
        (symbol, f"__import__('os').mkdir('{ran}')"),
        (symbol, "Pow(Integer(9), Pow(Integer(9), Integer(99)))"),
        (symbol, "9**9999999999"),
        ("torch.ops.aten.cat.default", "torch.hub.load"),
        ('"name": "x"', '"name": "x=print(1)"'),
        ("builtins.tuple", "__enum__"),
    ):
        bad = graph_with(program, tmp_path / "bad.pt2", old, new)
        with pytest.raises(InputError, match=r"bad\.pt2: models/model\.json: .* is not what"):
            open_file(bad)
    assert not ran.exists()


def test_guards_of_the_file_are_not_compiled(program: Path, tmp_path: Path):
    ran = tmp_path / "ran"
    code = f"__import__('os').mkdir('{ran}') is None"
    bad = graph_with(
        program, tmp_path / "bad.pt2", '"guards_code": []', f'"guards_code": {json.dumps([code])}'
    )
    open_file(bad)
    assert not ran.exists()


def test_a_changed_byte_and_compression_are_one_line(program: Path, tmp_path: Path):
    data = bytearray(program.read_bytes())
    data[len(data) // 2] ^= 1
    path = tmp_path / "changed.pt2"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"changed\.pt2: damaged \(archive/data/weights/\w+ does"):
        open_file(path)
    with zipfile.ZipFile(tmp_path / "bomb.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/models/model.json", bytes(10**6))
    with pytest.raises(InputError, match=r"bomb\.pt2: not a program of PyTorch \(compressed"):
        open_file(tmp_path / "bomb.pt2")
