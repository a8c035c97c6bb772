from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.extras import installed
from secateurs.files import sha256_file
from secateurs.nets.backbones import build
from secateurs.nets.several_depths import BothDepths, SeveralDepths
from secateurs.ship.about import about, read_beside, write_beside
from secateurs.ship.spec import ImageInput, ModelSpec, describe
from secateurs.ship.targets.formats import endings, open_file, target_of
from secateurs.ship.targets.target import FileCheck

IMAGE = ImageInput(64, "straight", (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
Written = Callable[[str], tuple[Path, torch.Tensor, FileCheck]]
CLASSES = ("a", "ü", "c")
CONFIDENCE = {"temperature": 1.5, "threshold": 0.7, "target": 0.9, "coverage": 0.8}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build("squeezenet1_1", 3).eval()


@pytest.fixture(scope="module")
def spec(model: nn.Module) -> ModelSpec:
    extra = {"data": "photos", "weights": "none", "confidence": CONFIDENCE, "config": {"a": 1}}
    return describe(model, "squeezenet1_1", CLASSES, IMAGE, extra=extra)


def if_installed(ending: str, extra: str) -> Any:
    return pytest.param(
        ending, marks=pytest.mark.skipif(not installed(extra), reason=f"needs {extra}")
    )


@pytest.fixture(scope="module")
def written(model: nn.Module, spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A file of each kind, what it was written with, and what its writer says of it."""

    @cache
    def write(ending: str) -> tuple[Path, torch.Tensor, FileCheck]:
        path = tmp_path_factory.mktemp("written") / f"photos{ending}"
        images = torch.rand(3, 3, 64, 64)
        return (
            path,
            images,
            target_of(path).write(model, spec, path, images, card={"accuracy": 0.5}),
        )

    return write


FLOATS = [
    ".onnx",
    ".pt2",
    if_installed(".xml", "openvino"),
    if_installed(".pte", "executorch"),
    if_installed(".tflite", "litert"),
]


@pytest.mark.parametrize("ending", FLOATS)
def test_a_file_opened_gives_pytorch_s_logits_and_says_what_it_needs(
    model: nn.Module, written: Written, ending: str
) -> None:
    path, images, check = written(ending)
    assert check.max_abs_difference is not None and check.max_abs_difference <= 1e-4
    assert check.num_bytes >= path.stat().st_size
    opened = open_file(path)
    with torch.no_grad():
        expected = model(images).numpy()
    np.testing.assert_allclose(opened.run(images.numpy()), expected, atol=1e-4)
    for batch in (1, 64):
        repeated = np.resize(images.numpy(), (batch, *images.shape[1:]))
        wanted = np.resize(expected, (batch, *expected.shape[1:]))
        np.testing.assert_allclose(opened.run(repeated), wanted, atol=1e-4)
    assert opened.spec.classes == CLASSES and opened.spec.preprocessing == IMAGE
    assert opened.spec.extra["confidence"] == CONFIDENCE
    assert opened.spec.extra["card"] == {
        "data": "photos",
        "weights": "none",
        "pruned": False,
        "accuracy": 0.5,
    }


@pytest.mark.parametrize("ending", FLOATS)
def test_a_head_that_reads_several_depths_is_written(
    tmp_path: Path, ending: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a study makes it: several norms without weights, and images in the order of a decoder."""
    torch.manual_seed(0)
    name = "squeezenet1_1+features.8+features.10"
    network = build(name, 3).eval()
    assert isinstance(network, SeveralDepths)
    for both in (part for part in network.modules() if isinstance(part, BothDepths)):
        channels = len(both.norm.state_dict()["running_mean"])
        both.normalise(torch.randn(channels), 0.5 + torch.rand(channels))
    path = tmp_path / f"several{ending}"
    images = torch.rand(3, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    check = target_of(path).write(network, describe(network, name, CLASSES, IMAGE), path, images)
    assert check.max_abs_difference is not None and check.max_abs_difference <= 1e-4
    with torch.no_grad():
        expected = network(images).numpy()
    np.testing.assert_allclose(open_file(path).run(images.numpy()), expected, atol=1e-4)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("ending", FLOATS)
def test_a_damaged_file_is_one_clear_line(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"photos{ending}"
    with pytest.raises(InputError, match=r"photos\.\w+: no such file"):
        open_file(path)
    path.write_bytes(b"not a model")
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"photos\.\w+: not readable as [^\n]*$|photos\.\w+\.json: no such file"
    ):
        open_file(path)


@pytest.mark.parametrize(("ending", "weights"), [(".xml", ".bin"), (".pte", ".pte")])
def test_a_changed_byte_of_the_weights_is_found_before_they_are_used(
    written: Written, tmp_path: Path, ending: str, weights: str
) -> None:
    target = target_of(path := tmp_path / f"photos{ending}")
    if target.EXTRA is not None and not installed(target.EXTRA):
        pytest.skip(f"needs {target.EXTRA}")
    for part in written(ending)[0].parent.iterdir():
        shutil.copy(part, tmp_path)
    file = path.with_suffix(weights)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=rf"photos\{weights}: damaged or of another export"):
        open_file(path)


def test_a_description_names_the_file_that_it_belongs_to(spec: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "photos.pte"
    path.write_bytes(b"program")
    write_beside(path, about(spec), sha256=sha256_file(path))
    assert read_beside(path).classes == spec.classes
    path.write_bytes(b"programs")
    with pytest.raises(
        InputError, match=r"photos\.pte: damaged or of another export \(its SHA-256"
    ):
        read_beside(path)


@pytest.mark.skipif(not installed("coreml"), reason="needs coreml")
@pytest.mark.filterwarnings("ignore")
def test_a_core_ml_package_is_written_and_said_not_to_have_been_run(
    model: nn.Module, spec: ModelSpec, tmp_path: Path
) -> None:
    path = tmp_path / "photos.mlpackage"
    check = target_of(path).write(model, spec, path, torch.rand(1, 3, 64, 64))
    assert check.max_abs_difference is None and check.note is not None
    assert check.note.startswith("not run: Core ML")
    assert check.num_bytes > 4 * sum(value.numel() for value in model.parameters())
    assert "Manifest.json" in {part.name for part in path.iterdir()}
    with pytest.raises(InputError, match="runs on Apple's systems only"):
        open_file(path)


def test_an_unknown_ending_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"m\.txt: expected a file that ends in \.onnx.* or \."):
        target_of(Path("m.txt"))
    for ending in endings():
        assert ending == target_of(Path(f"m{ending}")).ENDING


def test_a_file_of_someone_else_is_refused(written: Written, tmp_path: Path) -> None:
    path = tmp_path / "photos.onnx"
    loaded = onnx.load(written(".onnx")[0])
    for entries, message in (
        ({}, "preprocessing: expected an object, got nothing"),
        ({"classes": "[", "preprocessing": "{}"}, "classes: not readable as JSON"),
        ({"classes": json.dumps(["a", "b"])}, "preprocessing: expected an object"),
    ):
        del loaded.metadata_props[:]
        onnx.helper.set_model_props(loaded, entries)
        onnx.save(loaded, path)
        with pytest.raises(InputError, match=message):
            open_file(path)


@pytest.mark.skipif(not installed("openvino"), reason="needs openvino")
def test_a_full_disk_is_that_of_the_openvino_file_and_not_of_its_draft(
    model: nn.Module, spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.write_bytes

    def full(self: Path, data: Any) -> int:
        if self.parent == tmp_path:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as refused:
        target_of(Path("m.xml")).write(model, spec, tmp_path / "m.xml", torch.rand(1, 3, 64, 64))
    assert "/m." in str(refused.value) and str(tmp_path) in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not installed("openvino"), reason="needs openvino")
def test_openvino_reports_nothing_to_its_makers() -> None:
    code = (
        "import sys; from secateurs.ship.targets import openvino_ir;"
        "openvino_ir._without_telemetry(); import openvino;"
        "from openvino.tools.ovc import telemetry_utils;"
        "print('openvino_telemetry' in sys.modules, telemetry_utils.tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "openvino.tools.ovc.telemetry_stub"]
