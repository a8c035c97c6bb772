"""One model in every format gives the same answers; files that are no such model are refused."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from secateurs.data.images.decode import decode
from secateurs.errors import InputError
from secateurs.extras import installed
from secateurs.nets.backbones import build
from secateurs.ship.checkpoint import save
from secateurs.ship.spec import ImageInput, ModelSpec, describe
from secateurs.ship.targets.formats import target_of
from secateurs.study.saved.prediction import predict_saved
from secateurs.study.saved.prediction_model import open_classifier, read_pixels

IMAGE = ImageInput(64, "crop", (0.5, 0.4, 0.3), (0.25, 0.2, 0.3), "bicubic", 0.95)
EXAMPLES = Path(__file__).parents[3] / "examples"
CLASSES = ("across", "down", "plain")
FORMATS = {
    ".onnx": "onnx",
    ".pt2": None,
    ".xml": "openvino",
    ".pte": "executorch",
    ".tflite": "litert",
}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return build("squeezenet1_1", 3).eval()


@pytest.fixture(scope="module")
def spec(network: nn.Module) -> ModelSpec:
    known = {"temperature": 0.1, "threshold": 0.5}
    return describe(network, "squeezenet1_1", CLASSES, IMAGE, extra={"confidence": known})


@pytest.fixture(scope="module")
def files(flags: Path) -> list[Path]:
    return [sorted((flags / name).iterdir())[0] for name in CLASSES]


@pytest.fixture(scope="module")
def expected(network: nn.Module, files: list[Path]) -> np.ndarray[Any, Any]:
    """Probabilities by PyTorch alone, without Secateurs's preprocessing and softmax."""
    rows: list[np.ndarray[Any, Any]] = []
    for file in files:
        pixels = torch.from_numpy(IMAGE.pixels(decode(file)).copy()).permute(2, 0, 1)[None] / 255
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGE.mean, IMAGE.std))
        with torch.no_grad():
            rows.append(torch.softmax(network((pixels - mean) / std).double() / 0.1, 1).numpy()[0])
    return np.stack(rows)


@pytest.fixture(scope="module")
def onnx_file(
    network: nn.Module, spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("export") / "photos.onnx"
    target_of(path).write(network, spec, path, torch.rand(2, 3, 64, 64))
    return path


def consumer(path: Path) -> Callable[[str], tuple[str | None, float]]:
    """The example that classifies with a file of this format."""
    names = {".xml": "openvino", ".pte": "executorch", ".tflite": "litert"}
    name = names.get(path.suffix, path.suffix[1:])
    example = runpy.run_path(str(EXAMPLES / f"predict_{name}.py"))
    if path.suffix == ".onnx":
        session = example["onnxruntime"].InferenceSession(path)
        return lambda image: example["predict"](session, image)
    if path.suffix == ".xml":
        model, about = example["opened"](path)
        return lambda image: example["predict"](model, about, image)
    if path.suffix == ".pte":
        method = example["Runtime"].get().load_program(path.read_bytes()).load_method("forward")
        about = json.loads(Path(f"{path}.json").read_text())
        return lambda image: example["predict"](method, about, image)
    if path.suffix == ".tflite":
        model = example["Interpreter"](str(path))
        model.allocate_tensors()
        about = json.loads(Path(f"{path}.json").read_text())
        return lambda image: example["predict"](model, about, image)
    extra = {"secateurs.json": ""}
    program: Any = torch.export.load(path, extra_files=extra).module()
    about = json.loads(extra["secateurs.json"])
    return lambda image: example["predict"](program, about, image)


@pytest.mark.parametrize("name", ["folder", *(f"photos{ending}" for ending in FORMATS)])
def test_every_format_gives_the_answers_of_pytorch(
    network: nn.Module,
    spec: ModelSpec,
    files: list[Path],
    expected: np.ndarray[Any, Any],
    onnx_file: Path,
    tmp_path: Path,
    name: str,
):
    path = onnx_file if name == onnx_file.name else tmp_path / name
    extra = FORMATS.get(path.suffix)
    if extra is not None and not installed(extra):
        pytest.skip(f"needs {extra}")
    if name == "folder":
        save(network, spec, path)
    elif path != onnx_file:
        target_of(path).write(network, spec, path, torch.rand(2, 3, 64, 64))
    rows = predict_saved(path, files)["predictions"]
    for row, wanted in zip(rows, expected, strict=True):
        assert [a["label"] for a in row["answers"]] == [CLASSES[k] for k in np.argsort(-wanted)]
        got = [answer["probability"] for answer in row["answers"]]
        np.testing.assert_allclose(got, np.sort(wanted)[::-1], atol=1e-3)
        assert row["unsure"] is bool(wanted.max() < 0.5)
        if name != "folder":  # what needs its runtime only says the same
            label, probability = consumer(path)(row["name"])
            assert label == (None if row["unsure"] else row["answers"][0]["label"])
            assert float(probability) == pytest.approx(row["answers"][0]["probability"], abs=1e-3)
    sure = open_classifier(path, threshold=1.0)
    [pixels] = [read_pixels(spec, files[0])]
    assert sure.answer(sure.probabilities([pixels])[0], top=1)["unsure"] is True


def test_files_that_do_not_fit_what_they_say_are_refused(onnx_file: Path, tmp_path: Path):
    import onnx

    loaded = onnx.load(onnx_file)

    def rewritten(key: str, value: Any) -> Path:
        copy = onnx.ModelProto.FromString(loaded.SerializeToString())
        [entry] = [entry for entry in copy.metadata_props if entry.key == key]
        entry.value = json.dumps(value)
        (tmp_path / "other.onnx").write_bytes(copy.SerializeToString())
        return tmp_path / "other.onnx"

    with pytest.raises(InputError, match="expected 2 outputs, one per class, got"):
        open_classifier(rewritten("classes", ["a", "b"]))
    wrong = replace(IMAGE, size=65).to_json()
    with pytest.raises(InputError, match=r"it does not run on an image of 65 x 65 pixels \("):
        open_classifier(rewritten("preprocessing", wrong))
    with pytest.raises(InputError, match="expected a file that ends in"):
        open_classifier(Path(__file__))
