from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import ShuffleNetV2

from secateurs.errors import InputError
from secateurs.files import sha256_file
from secateurs.nets.backbones import build
from secateurs.nets.trace import skeleton
from secateurs.ship import checkpoint
from secateurs.ship.checkpoint import load, save
from secateurs.ship.spec import ImageInput, ModelSpec, describe

IMAGE = ImageInput(64, "straight", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CLASSES = ["Angry", "Sad", "Überrascht"]


NAME = "shufflenet_v2_x0_5"
BRANCH = "stage2.1.branch2"
UNITS = [1, 5, 7, 23]


def cut_branch(model: nn.Module) -> None:
    """Leave four channels between a branch's convolutions, through its depthwise one."""
    branch = model.get_submodule(BRANCH)
    old = list(branch)
    branch[0] = nn.Conv2d(24, 4, 1, bias=False)
    branch[1], branch[4] = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    branch[3] = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
    branch[5] = nn.Conv2d(4, 24, 1, bias=False)
    branch[0].weight.data = old[0].weight.data[UNITS].clone()
    branch[3].weight.data = old[3].weight.data[UNITS].clone()
    branch[5].weight.data = old[5].weight.data[:, UNITS].clone()
    branch[4].running_mean.copy_(torch.randn(4))


@pytest.fixture(scope="module")
def cut() -> tuple[nn.Module, ModelSpec]:
    torch.manual_seed(0)
    model = build(NAME, 3)
    cut_branch(model)
    model.eval()
    spec = describe(
        model,
        NAME,
        CLASSES,
        IMAGE,
        kept={f"{BRANCH}.0": UNITS},
        extra={"note": "a test", "numbers": [1, 2.5]},
    )
    return model, spec


@pytest.fixture
def saved(cut: tuple[nn.Module, ModelSpec], tmp_path: Path) -> Path:
    return save(*cut, tmp_path / "model")


def test_widths_are_found(cut: tuple[nn.Module, ModelSpec]) -> None:
    assert cut[1].widths == {
        f"{BRANCH}.0": {"in": 24, "out": 4},
        f"{BRANCH}.1": {"in": 4, "out": 4},
        f"{BRANCH}.3": {"in": 4, "out": 4, "groups": 4},
        f"{BRANCH}.4": {"in": 4, "out": 4},
        f"{BRANCH}.5": {"in": 4, "out": 24},
    }


def test_a_cut_model_comes_back_bit_for_bit(cut: tuple[nn.Module, ModelSpec], saved: Path) -> None:
    model, spec = cut
    loaded = load(saved.parent)
    assert loaded.spec == spec and load(saved).spec == spec
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.model(images), model(images))
    state = loaded.model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert not loaded.model.training
    assert loaded.model.get_submodule(BRANCH)[3].groups == 4
    assert sorted(p.name for p in saved.parent.iterdir()) == ["model.json", "model.safetensors"]
    assert b"pickle" not in (saved.parent / "model.safetensors").read_bytes()[:4096]


def test_a_loaded_model_can_be_trained_saved_and_does_not_hold_the_file(saved: Path) -> None:
    loaded = load(saved)
    before = loaded.model.fc.weight.detach().clone()
    (saved.parent / "model.safetensors").write_bytes(b"\0" * 100)
    assert torch.equal(loaded.model.fc.weight, before)
    loaded.model.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    assert loaded.model.get_submodule(BRANCH)[3].weight.grad.shape == (4, 1, 3, 3)
    again = load(save(loaded.model, loaded.spec, saved.parent))
    assert torch.equal(again.model.conv1[1].running_mean, loaded.model.conv1[1].running_mean)


# A class that insists on its version, widths built with tensors, tables outside the state_dict.
@pytest.mark.parametrize("name", ["mnasnet0_5", "regnet_y_400mf", "swin_v2_t"])
def test_other_networks_come_back(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(name, 2).eval()
    size = 64
    image = ImageInput.of(name, size=size)
    loaded = load(save(model, describe(model, name, ["a", "b"], image), tmp_path))
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        assert torch.equal(loaded.model(images), model(images))
    assert not any(
        tensor.is_meta for tensor in [*loaded.model.buffers(), *loaded.model.parameters()]
    )


def test_a_linear_cut_of_alexnet(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build("alexnet", 3).eval()
    model.classifier[1] = nn.Linear(9216, 16)
    model.classifier[4] = nn.Linear(16, 8)
    model.classifier[6] = nn.Linear(8, 3)
    spec = describe(model, "alexnet", CLASSES, ImageInput.of("alexnet"))
    assert spec.widths["classifier.4"] == {"in": 16, "out": 8}
    path = save(model, spec, tmp_path)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(load(path).model(images), model(images))
    assert (tmp_path / "model.safetensors").stat().st_size < 12e6


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def put(*keys: str, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(data: dict[str, Any]) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


CONV = f"{BRANCH}.0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("version", value=2), r"version: this Secateurs reads 1, got 2"),
        (put("format", value="other"), r"format: expected 'secateurs-model'"),
        (put("backbone", value="resnet19"), r"backbone: unknown backbone 'resnet19'; did you"),
        (put("backbone", value=7), r"backbone: expected a text, got 7"),
        (put("backbone", value="resnet18"), r"shufflenet|widths.stage2.*resnet18 has no such"),
        (put("classes", value=["a", "b"]), r"'fc.weight' is \(3, 1024\), expected \(2, 1024\)"),
        (put("classes", value=["a", "a", "b"]), r"classes: a name stands in it twice"),
        (put("classes", value="abc"), r"classes: expected a list, got 'abc'"),
        (put("preprocessing", "size", value=True), r"preprocessing.size: expected a whole number"),
        (put("preprocessing", "size", value=0), r"preprocessing.size: expected 1..4096"),
        (put("preprocessing", "resize", value="x"), r"preprocessing.resize: expected 'straight'"),
        (put("preprocessing", "std", value=[1, 1]), r"preprocessing.std: expected 3 finite"),
        (put("preprocessing", "std", value=[0, 1, 1]), r"preprocessing.std: expected positive"),
        (put("preprocessing", "mean", value=[float("nan")] * 3), r"NaN is not a finite number"),
        (
            put("preprocessing", "interpolation", value="cubic"),
            r"preprocessing.interpolation: expected 'bilinear' or 'bicubic', got 'cubic'",
        ),
        (put("preprocessing", "crop_share", value=0), r"preprocessing.crop_share: expected 0.1..1"),
        (put("preprocessing", "crop_share", value=True), r"crop_share: expected 0.1..1, got True"),
        (put("widths", value=[]), r"widths: expected an object"),
        (put("widths", CONV, "out", value=10**15), r"widths.stage2.1.branch2.0.out: 1000.*only 24"),
        (put("widths", CONV, "out", value=0), r"widths.stage2.1.branch2.0: expected whole numbers"),
        (put("widths", CONV, "out", value=5), r"kept.stage2.1.branch2.0: 4 units, but.* 5 wide"),
        (put("widths", CONV, "in", value=23), r"is \(4, 24, 1, 1\), expected \(4, 23, 1, 1\) from"),
        (put("widths", CONV, value={"in": 24}), r'expected \{"in": ..., "out": ...\}'),
        (put("widths", CONV, "groups", value=3), r"groups must divide both widths"),
        (put("widths", CONV, "groups", value=4), r"widths.stage2.1.branch2.0.groups: 4.* only 1"),
        (
            put("widths", "stage9", value={"in": 1, "out": 1}),
            r"widths.stage9: shufflenet_v2_x0_5 has no such",
        ),
        (
            put("widths", "stage2", value={"in": 1, "out": 1}),
            r"widths.stage2: shufflenet_v2_x0_5 has no such",
        ),
        (put("kept", CONV, value=[1, 5, 7, 24]), r"unit 24 is outside 0..23"),
        (
            put("kept", CONV, value=[5, 1, 7, 23]),
            r"kept.stage2.1.branch2.0: expected unit numbers in",
        ),
        (put("kept", "nowhere", value=[1]), r"kept.nowhere: shufflenet_v2_x0_5 has no such layer"),
        (put("tensors", "file", value="../x.safetensors"), r"tensors.file: expected 'model.safe"),
        (put("tensors", "num_bytes", value=1), r"says tensors.num_bytes is 1; cut off"),
        (put("tensors", "sha256", value="0"), r"its SHA-256 is not model.json's tensors.sha256"),
        (put("tensors", value=None), r"tensors.file: expected"),
        (put("preprocessing", "size", value=1), None),
    ],
)
def test_a_recipe_that_lies_is_refused(
    saved: Path, change: Callable[[dict[str, Any]], object], message: str | None
) -> None:
    edit(saved, change)
    if message is None:  # one pixel is small, but this network takes it
        assert load(saved).spec.preprocessing.size == 1
        return
    with pytest.raises(InputError, match=message) as caught:
        load(saved)
    assert str(saved.parent) in str(caught.value) and "\n" not in str(caught.value)


def test_a_recipe_of_0_1_0_says_nothing_of_interpolation_and_crop(saved: Path) -> None:
    def older(data: dict[str, Any]) -> None:
        del data["preprocessing"]["interpolation"], data["preprocessing"]["crop_share"]

    edit(saved, older)
    image = load(saved).spec.preprocessing
    assert image == IMAGE and (image.interpolation, image.crop_share) == ("bilinear", 0.875)


def test_the_whole_recipe_is_kept(cut: tuple[nn.Module, ModelSpec], tmp_path: Path) -> None:
    image = replace(IMAGE, resize="crop", interpolation="bicubic", crop_share=0.95)
    model, spec = cut
    assert (
        load(save(model, replace(spec, preprocessing=image), tmp_path)).spec.preprocessing == image
    )


def resign(path: Path) -> None:
    tensors = path.parent / "model.safetensors"
    edit(path, put("tensors", "sha256", value=sha256_file(tensors)))
    edit(path, put("tensors", "num_bytes", value=tensors.stat().st_size))


def test_tensors_that_were_changed_are_refused(saved: Path) -> None:
    file = saved.parent / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match=r"model.safetensors: its SHA-256 is not"):
        load(saved)
    file.write_bytes(whole[:5000])
    with pytest.raises(InputError, match=r"model.safetensors: 5000 bytes.*cut off or replaced"):
        load(saved)
    resign(saved)
    with pytest.raises(InputError, match=r"model.safetensors: not readable as safetensors"):
        load(saved)
    file.unlink()
    with pytest.raises(InputError, match=r"model.safetensors: no such file, and model.json"):
        load(saved)
    os.mkfifo(file)
    with pytest.raises(InputError, match=r"model.safetensors: not a regular file"):
        load(saved)


def test_a_recipe_may_begin_with_a_byte_order_mark(saved: Path) -> None:
    saved.write_bytes(b"\xef\xbb\xbf" + saved.read_bytes())
    assert load(saved).spec.backbone


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("fc.bias"), r"tensor 'fc.bias' is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), r"tensor 'extra' has no place"),
        (lambda t: t.update({"fc.bias": torch.zeros(4)}), r"'fc.bias' is \(4,\), expected \(3,\)"),
        (lambda t: t.update({"fc.bias": torch.zeros(3).half()}), r"'fc.bias' is None, expected"),
        (lambda t: t.update({"fc.bias": torch.zeros(3).double()}), r"is torch.float64, expected"),
    ],
)
def test_other_tensors_under_a_valid_hash_are_refused(
    saved: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    file = saved.parent / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    resign(saved)
    with pytest.raises(InputError, match=message):
        load(saved)


def test_widths_that_fit_the_tensors_but_not_each_other_are_refused(saved: Path) -> None:
    file = saved.parent / "model.safetensors"
    tensors = load_file(file)
    tensors[f"{BRANCH}.5.weight"] = torch.zeros(24, 3, 1, 1)
    save_file(tensors, file)
    edit(saved, put("widths", f"{BRANCH}.5", "in", value=3))
    resign(saved)
    with pytest.raises(InputError, match=r"do not make a network that runs \(.*channel"):
        load(saved)


def test_a_network_is_run_once_however_often_it_is_loaded(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(saved)
    ran: list[torch.device] = []
    whole = ShuffleNetV2.forward

    def counted(self: ShuffleNetV2, x: torch.Tensor) -> torch.Tensor:
        ran.append(x.device)
        return whole(self, x)

    monkeypatch.setattr(ShuffleNetV2, "forward", counted)
    load(saved)
    assert ran == []
    edit(saved, put("preprocessing", "size", value=96))  # another network: run
    load(saved)
    assert [device.type for device in ran] == ["meta"]


def test_missing_and_broken_recipes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model.json: no such file"):
        load(str(tmp_path))
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(InputError, match=r"model.json: not readable as JSON"):
        load(tmp_path)
    (tmp_path / "m.onnx").write_bytes(b"\x95")
    with pytest.raises(InputError, match=r"m.onnx: an exported file; expected the model that it"):
        load(tmp_path / "m.onnx")
    (tmp_path / "model.json").write_text("[]")
    with pytest.raises(InputError, match=r"model.json: format: expected"):
        load(tmp_path)


def test_a_recipe_of_another_model_is_not_saved(
    cut: tuple[nn.Module, ModelSpec], tmp_path: Path
) -> None:
    model, spec = cut
    stock = build(NAME, 3)
    with pytest.raises(InputError, match=r"the model given: tensor 'stage2.1.branch2.0.weight' is"):
        save(stock, spec, tmp_path)
    with pytest.raises(InputError, match=r"recipe given: extra: not plain data"):
        save(model, ModelSpec(NAME, ("a", "b", "c"), IMAGE, extra={"x": IMAGE}), tmp_path)
    with pytest.raises(InputError, match=r"classes: a name stands in it twice"):
        save(model, ModelSpec(NAME, ("a", "a", "c"), IMAGE), tmp_path)
    with pytest.raises(InputError, match=r"is not a resnet18: its modules differ"):
        describe(stock, "resnet18", CLASSES, IMAGE)
    with pytest.raises(InputError, match=r"the model given: tensor '.*' has a shape and no values"):
        save(skeleton(model), spec, tmp_path)
    stock.fc = nn.Identity()
    with pytest.raises(InputError, match=r"is not a shufflenet_v2_x0_5: fc is a Identity"):
        describe(stock, NAME, CLASSES, IMAGE)
    assert list(tmp_path.iterdir()) == []


def test_stopped_between_the_two_files_no_model_is_left(
    cut: tuple[nn.Module, ModelSpec], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "write_json", full)
    with pytest.raises(OSError, match="disk full"):
        save(*cut, saved.parent)
    with pytest.raises(InputError, match=r"model.json: no such file"):
        load(saved.parent)
    assert [p.name for p in saved.parent.iterdir()] == ["model.safetensors"]
