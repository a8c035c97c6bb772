from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

from secateurs.errors import InputError
from secateurs.nets.backbones import build
from secateurs.ship import export
from secateurs.ship.export import OnnxCheck, export_onnx, onnx_difference
from secateurs.ship.latency import onnx_latency
from secateurs.ship.spec import ImageInput, ModelSpec, describe

CLASSES = ("Angry", "Sad", "Überrascht")
IMAGE = ImageInput(64, "straight", (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, OnnxCheck]:
    torch.manual_seed(0)
    model = build("resnet18", 3).train()
    spec = describe(model, "resnet18", CLASSES, IMAGE)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return model, export_onnx(model, spec, path, torch.randn(5, 3, 64, 64))


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_any_batch_gives_pytorch_s_logits(exported: tuple[nn.Module, OnnxCheck]) -> None:
    model, check = exported
    assert model.training  # as it was given
    assert check.max_abs_difference <= 1e-4 and check.opset == 18
    assert check.num_bytes == check.path.stat().st_size > 4 * 11e6
    assert [p.name for p in check.path.parent.iterdir()] == ["model.onnx"]
    run = session(check.path)
    assert run.get_inputs()[0].name == "images" and run.get_outputs()[0].name == "logits"
    model.eval()
    for batch in (1, 2, 7):
        images = torch.randn(batch, 3, 64, 64)
        (got,) = run.run(None, {"images": images.numpy()})
        with torch.no_grad():
            assert np.abs(got - model(images).numpy()).max() <= 1e-4
    model.train()


def test_the_file_says_what_it_needs_and_nothing_of_where_it_was_made(
    exported: tuple[nn.Module, OnnxCheck],
) -> None:
    path = exported[1].path
    meta = session(path).get_modelmeta().custom_metadata_map
    assert json.loads(meta["classes"]) == list(CLASSES)
    assert json.loads(meta["preprocessing"]) == {
        "size": 64,
        "resize": "straight",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.25, 0.2, 0.3],
        "interpolation": "bilinear",
        "crop_share": 0.875,
    }
    assert meta["backbone"] == "resnet18"
    loaded = onnx.load(path)
    onnx.checker.check_model(loaded)
    assert loaded.producer_name == "secateurs"
    assert b"site-packages" not in path.read_bytes()
    assert not any(node.metadata_props or node.doc_string for node in loaded.graph.node)


def test_difference_is_the_largest_over_both_batch_sizes(
    exported: tuple[nn.Module, OnnxCheck],
) -> None:
    model, check = exported
    images = torch.randn(3, 3, 64, 64)

    class Off(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return model.eval()(x) + (0.5 if len(x) == 1 else 0.25)

    assert onnx_difference(Off(), check.path, images) == pytest.approx(0.5, abs=1e-4)
    model.train()


def test_a_file_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("squeezenet1_1", 2)
    spec = describe(model, "squeezenet1_1", ("a", "b"), IMAGE)
    for difference in (1.0, float("nan")):
        monkeypatch.setattr(export, "onnx_difference", lambda *given, d=difference: d)
        monkeypatch.setattr(export, "_write", lambda *given, **sizes: None)
        with pytest.raises(RuntimeError, match=r"model.onnx: ONNX Runtime differs from PyTorch"):
            export_onnx(model, spec, tmp_path / "model.onnx", torch.zeros(1, 3, 64, 64))
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_example_is_refused(tmp_path: Path) -> None:
    spec = ModelSpec("squeezenet1_1", ("a", "b"), IMAGE)
    for shape in ((2, 3, 224, 224), (3, 64, 64), (0, 3, 64, 64)):
        with pytest.raises(InputError, match=r"expected \(n, 3, 64, 64\), got \(\d"):
            export_onnx(nn.Identity(), spec, tmp_path / "m.onnx", torch.zeros(shape))


def test_latency_of_two_files(exported: tuple[nn.Module, OnnxCheck]) -> None:
    path = exported[1].path
    got = onnx_latency(path, path, torch.zeros(1, 3, 64, 64), batch=2, repeats=5)
    assert got.runtime == "onnxruntime" and got.num_rounds == 5
    assert 0 < got.before_ms.p25 <= got.before_ms.median <= got.before_ms.p75


def reference(model: nn.Module, picture: Image.Image, resize: str) -> torch.Tensor:
    """Preprocessing written with torchvision, independently of the example."""
    from torchvision.transforms import functional as F

    picture = (
        F.resize(picture, [64, 64])
        if resize == "straight"
        else F.center_crop(F.resize(picture, 73), [64, 64])
    )
    image = F.normalize(F.to_tensor(picture), IMAGE.mean, IMAGE.std)
    with torch.no_grad():
        return model(image[None])[0].softmax(0)


@pytest.mark.parametrize("resize", ["straight", "crop"])
@pytest.mark.parametrize("shape", [(90, 121), (200, 73)])
def test_the_example_predicts_what_pytorch_predicts(
    exported: tuple[nn.Module, OnnxCheck],
    tmp_path: Path,
    resize: str,
    shape: tuple[int, int],
) -> None:
    model, check = exported
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    picture.save(tmp_path / "picture.png")
    loaded = onnx.load(check.path)
    preprocessing = json.dumps({**describe_image(), "resize": resize})
    onnx.helper.set_model_props(
        loaded, {"classes": json.dumps(CLASSES), "preprocessing": preprocessing}
    )
    onnx.save(loaded, tmp_path / "model.onnx")
    predict = runpy.run_path(str(EXAMPLES / "predict_onnx.py"))["predict"]
    name, probability = predict(session(tmp_path / "model.onnx"), tmp_path / "picture.png")
    expected = reference(model.eval(), picture, resize)
    model.train()
    best = int(expected.argmax())
    assert name == CLASSES[best]
    assert float(probability) == pytest.approx(float(expected[best]), abs=1e-4)


def test_the_examples_lay_transparent_images_on_white(tmp_path: Path) -> None:
    """As Secateurs does; each example prepares images in the same way."""
    Image.new("RGBA", (40, 30), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    texts = set[str]()
    for path in sorted(EXAMPLES.glob("predict_*.py")):
        lines = path.read_text(encoding="utf-8").split("def prepared")[1].splitlines()
        texts.add("\n".join(line for line in lines[:12] if line))
    assert len(texts) == 1
    prepared = runpy.run_path(str(EXAMPLES / "predict_onnx.py"))["prepared"]
    found = prepared(tmp_path / "clear.png", 8, "straight", (0.5,) * 3, (0.25,) * 3)
    assert np.array_equal(found, np.full((1, 3, 8, 8), 2.0, np.float32))


def describe_image() -> dict[str, object]:
    return ModelSpec("resnet18", CLASSES, IMAGE).to_json()["preprocessing"]


def test_the_example_runs_by_itself(exported: tuple[nn.Module, OnnxCheck], tmp_path: Path) -> None:
    Image.new("L", (30, 40), 99).save(tmp_path / "grey.png")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "predict_onnx.py", exported[1].path, tmp_path / "grey.png"],
        capture_output=True,
        encoding="utf-8",
        env={"PYTHONIOENCODING": "utf-8"},
        check=True,
    )
    path, name, probability = done.stdout.split()
    assert path.endswith("grey.png") and name in CLASSES and 1 / 3 <= float(probability) <= 1


def test_the_example_needs_neither_pytorch_nor_secateurs() -> None:
    text = (EXAMPLES / "predict_onnx.py").read_text()
    imported = set(re.findall(r"^(?:from|import) (\w+)", text, re.MULTILINE))
    assert imported == {"json", "sys", "numpy", "onnxruntime", "PIL"}
    assert callable(runpy.run_path(str(EXAMPLES / "predict_onnx.py"))["predict"])


def test_logits_of_any_size_may_differ_by_rounding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build("squeezenet1_1", 2).eval()
    with torch.no_grad():
        model.classifier[1].weight.mul_(1e8)
        model.classifier[1].bias.fill_(1e8)
    images = torch.rand(2, 3, 64, 64)
    image = ImageInput(64, "straight", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    spec = describe(model, "squeezenet1_1", ["a", "b"], image)
    check = export_onnx(model, spec, tmp_path / "large.onnx", images)
    with torch.no_grad():
        assert check.max_abs_difference <= 1e-5 * float(model(images).max())
