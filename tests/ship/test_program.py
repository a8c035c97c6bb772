from __future__ import annotations

import errno
import json
import re
import runpy
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from secateurs.errors import InputError
from secateurs.nets.backbones import build
from secateurs.ship import program
from secateurs.ship.export import export_onnx
from secateurs.ship.program import EXTRA, ProgramCheck, export_program
from secateurs.ship.spec import ImageInput, ModelSpec, describe

CLASSES = ("Angry", "Sad", "Überrascht")
IMAGE = ImageInput(64, "straight", (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
EXAMPLE = Path(__file__).parents[2] / "examples" / "predict_pt2.py"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, ProgramCheck]:
    torch.manual_seed(0)
    model = build("resnet18", 3).train()
    spec = describe(model, "resnet18", CLASSES, IMAGE)
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    return model, export_program(model, spec, path, torch.randn(5, 3, 64, 64))


def test_any_batch_gives_the_model_s_logits(exported: tuple[nn.Module, ProgramCheck]):
    model, check = exported
    assert model.training  # as it was given
    assert check.max_abs_difference <= 1e-4
    assert check.num_bytes == check.path.stat().st_size > 4 * 11e6
    assert [p.name for p in check.path.parent.iterdir()] == ["model.pt2"]
    read = torch.export.load(check.path).module()
    model.eval()
    with torch.no_grad():
        for batch in (1, 2, 7):
            images = torch.randn(batch, 3, 64, 64)
            assert (read(images) - model(images)).abs().max() <= 1e-4
    model.train()


def test_the_file_holds_classes_and_preprocessing_and_weights_as_they_are(
    exported: tuple[nn.Module, ProgramCheck],
):
    extra = {EXTRA: ""}
    torch.export.load(exported[1].path, extra_files=extra)
    found = json.loads(extra[EXTRA])
    assert found["classes"] == list(CLASSES)
    assert found["preprocessing"]["mean"] == list(IMAGE.mean)
    names = zipfile.ZipFile(exported[1].path).namelist()
    # PyTorch keeps the sample input in a file of its own kind; the weights are plain bytes.
    odd = [name for name in names if name.endswith((".pkl", ".pickle", ".pt"))]
    assert all("sample_inputs" in name for name in odd)
    sizes = [
        i.file_size
        for i in zipfile.ZipFile(exported[1].path).infolist()
        if "/weight_" in i.filename
    ]
    assert 64 * 3 * 7 * 7 * 4 in sizes


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of files")
@pytest.mark.parametrize("name", ["model.pt2", "model.onnx"])
def test_where_there_is_no_room_an_error_is_raised_and_nothing_left(name: str, tmp_path: Path):
    import resource

    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3))
    spec = describe(build("squeezenet1_1", 3), "squeezenet1_1", CLASSES, IMAGE)
    write = export_program if name.endswith("2") else export_onnx
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        # Python ignores the signal, and the system answers with an error.
        with pytest.raises(OSError, match="File too large") as raised:
            write(network, spec, tmp_path / name, torch.randn(2, 3, 64, 64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_answers_otherwise_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    spec = ModelSpec("resnet18", CLASSES, ImageInput(8, "straight", IMAGE.mean, IMAGE.std))
    monkeypatch.setattr(program, "_difference", lambda *words: float("nan"))
    with pytest.raises(RuntimeError, match=r"differs from the model by nan, at most 0\.0001"):
        export_program(model, spec, tmp_path / "m.pt2", torch.randn(2, 3, 8, 8))
    with pytest.raises(InputError, match=r"expected \(n, 3, 8, 8\), got \(2, 3, 9, 8\)"):
        export_program(model, spec, tmp_path / "m.pt2", torch.randn(2, 3, 9, 8))
    assert list(tmp_path.iterdir()) == []


def test_the_example_runs_by_itself_with_pytorch_alone(
    exported: tuple[nn.Module, ProgramCheck],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    imported = set(re.findall(r"^(?:from|import) (\w+)", EXAMPLE.read_text(), re.MULTILINE))
    assert imported == {"json", "sys", "torch", "PIL"}
    Image.new("L", (30, 40), 99).save(tmp_path / "grey.png")
    monkeypatch.setattr(
        "sys.argv", [str(EXAMPLE), str(exported[1].path), str(tmp_path / "grey.png")]
    )
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    path, name, probability = capsys.readouterr().out.split()
    assert path.endswith("grey.png")
    model = exported[0].eval()
    grey = torch.full((3, 64, 64), 99 / 255)
    x = (grey - torch.tensor(IMAGE.mean).view(3, 1, 1)) / torch.tensor(IMAGE.std).view(3, 1, 1)
    with torch.no_grad():
        odds = model(x[None])[0].softmax(0)
    model.train()
    assert name == CLASSES[int(odds.argmax())]
    assert float(probability) == pytest.approx(float(odds.max()), abs=1e-3)
    assert callable(runpy.run_path(str(EXAMPLE))["predict"])
