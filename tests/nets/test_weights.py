from __future__ import annotations

import argparse
import os
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.files import sha256_file
from secateurs.nets.backbones import build, layers
from secateurs.nets.download import find_weights
from secateurs.nets.weights import load_pretrained, read_tensors, words

NAME = "squeezenet1_1"


def load(model: nn.Module, path: Path, name: str = NAME):
    return load_pretrained(model, name, path, cache=path.parent / "cache")


def check_loaded(model: nn.Module, published: dict[str, Tensor]) -> None:
    for key, value in model.state_dict().items():
        if key.startswith("classifier.1."):
            assert value.shape[0] == 4
        else:
            assert torch.equal(value, published[key])


@pytest.mark.parametrize("kind", ["pth", "pt", "safetensors", "old pth", "nested", "parallel"])
def test_a_full_file_fills_all_but_the_head(
    model: nn.Module, published: dict[str, Tensor], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "pt":
        path = path.with_suffix(".pt")
    if kind == "safetensors":
        save_file(published, path)
    elif kind == "old pth":
        torch.save(published, path, _use_new_zipfile_serialization=False)
    elif kind == "nested":
        torch.save({"state_dict": published, "epoch": 3}, path)
    elif kind == "parallel":
        torch.save(OrderedDict((f"module.{k}", v) for k, v in published.items()), path)
    else:
        torch.save(published, path)
    head = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("classifier.1.")}
    report = load(model, path)
    check_loaded(model, published)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in head.items())
    assert report.sentence == "25 of 26 layers pretrained (classifier.1 is the new head)"
    assert report.source == "file" and report.detail == path.name
    assert report.sha256 == sha256_file(path)
    assert report.fresh == ("classifier.1",) and len(report.loaded) == 25
    assert report.to_json()["fresh"] == ["classifier.1"]


class Holder(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.model = inner


def prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in tensors.items()}


@pytest.mark.parametrize(
    "container",
    [
        *([], ["state_dict"], ["model_state_dict"], ["model"], ["net"], ["ema"], ["teacher"]),
        *(
            ["state_dict", "model"],
            ["checkpoint"],
            ["model_ema", "module"],
            ["checkpoint", "online"],
        ),
    ],
)
@pytest.mark.parametrize(
    "prefix",
    [
        *("", "module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."),
        *("model.net.", "backbone.", "module.encoder_q.", "base_model.model."),
    ],
)
def test_checkpoints_of_training_programs_are_read(
    model: nn.Module,
    published: dict[str, Tensor],
    tmp_path: Path,
    container: list[str],
    prefix: str,
) -> None:
    content: object = prefixed(published, prefix)
    for key in reversed(container):
        others = {"epoch": 3, "optimizer": {"state": {0: {"step": torch.zeros(1)}}}}
        content = others | {key: content, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "checkpoint.pth")
    load(model, tmp_path / "checkpoint.pth")
    check_loaded(model, published)


def test_what_stands_beside_the_network_in_a_checkpoint_is_left_out(
    model: nn.Module, published: dict[str, Tensor], tmp_path: Path
) -> None:
    content = prefixed(published, "backbone.") | {"head.weight": torch.ones(2, 2)}
    torch.save({"state_dict": content}, tmp_path / "last.ckpt")
    load(model, tmp_path / "last.ckpt")
    check_loaded(model, published)
    two = content | prefixed(published, "momentum.")
    torch.save({"state_dict": two}, tmp_path / "two.ckpt")
    with pytest.raises(InputError, match=r"no tensor of squeezenet1_1's body in it \(its first is"):
        load(model, tmp_path / "two.ckpt")


def test_a_refused_file_says_what_it_refers_to(model: nn.Module, tmp_path: Path) -> None:
    torch.save(build(NAME, 2), tmp_path / "whole.pth")
    with pytest.raises(InputError) as refused:
        load(model, tmp_path / "whole.pth")
    assert str(refused.value).endswith(
        "save the model's state_dict() instead "
        "(it refers to torchvision.models.squeezenet.SqueezeNet)"
    )
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(InputError, match=r"pipe\.pth: not a regular file"):
        load(model, tmp_path / "pipe.pth")


def test_parts_that_were_wrapped_and_modules_that_hold_the_network(
    model: nn.Module, published: dict[str, Tensor], tmp_path: Path
) -> None:
    # The example program of PyTorch wraps the features of AlexNet and VGG alone.
    inner = {re.sub(r"^features\.", "features.module.", k): v for k, v in published.items()}
    torch.save({"state_dict": inner, "arch": "x"}, tmp_path / "inner.pth")
    load(model, tmp_path / "inner.pth")
    check_loaded(model, published)
    holder = Holder(build(NAME, 1000))
    holder.model.load_state_dict(published)
    averaged = torch.optim.swa_utils.AveragedModel(holder)
    torch.save({"model_ema": averaged.state_dict()}, tmp_path / "ema.pth")
    again = build(NAME, 4)
    load(again, tmp_path / "ema.pth")
    check_loaded(again, published)
    twice = published | prefixed(published, "module.")
    save_file({k: v.clone() for k, v in twice.items()}, tmp_path / "twice.safetensors")
    with pytest.raises(InputError, match=r"tensor '.*' is in it twice, as '.*module\..*' too"):
        load(again, tmp_path / "twice.safetensors")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(64, 3, 3, 3).to_sparse(), "sparse, quantized or without values"),
        (torch.zeros(64, 3, 3, 3, device="meta"), "sparse, quantized or without values"),
        (torch.zeros(64, 3, 3, 3, dtype=torch.complex64), "holds complex numbers"),
        (torch.full((64, 3, 3, 3), 1e300, dtype=torch.float64), "values that are not finite"),
        (torch.zeros(()).expand(10**6, 10**6), r"'features.0.weight' is \(1000000, 1000000\)"),
    ],
)
def test_tensors_that_are_no_plain_numbers(
    model: nn.Module, published: dict[str, Tensor], tmp_path: Path, tensor: Tensor, message: str
) -> None:
    torch.save(published | {"features.0.weight": tensor}, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=message):
        load(model, tmp_path / "odd.pth")


def test_a_partial_file_leaves_the_rest_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build("alexnet", 3)
    places = [layer.path for layer in layers(model, "alexnet")][:5]
    given = {
        key: torch.randn_like(value)
        for key, value in model.state_dict().items()
        if key.rpartition(".")[0] in places
    }
    fc7 = model.classifier[4].weight.detach().clone()
    save_file(given, tmp_path / "features.safetensors")
    report = load(model, tmp_path / "features.safetensors", "alexnet")
    assert report.sentence == "5 of 8 layers pretrained, fc6 and fc7 new (fc8 is the new head)"
    assert report.loaded == ("conv1", "conv2", "conv3", "conv4", "conv5")
    assert report.fresh == ("fc6", "fc7", "fc8")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in given.items())
    assert torch.equal(model.classifier[4].weight, fc7)


def test_half_precision_is_widened(
    model: nn.Module, published: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file({k: v.half() for k, v in published.items()}, tmp_path / "half.safetensors")
    load(model, tmp_path / "half.safetensors")
    weight = model.features[0].weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, published["features.0.weight"].half().float())


def test_old_names_of_densenet_and_auxiliary_heads_are_understood(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", key): value
        for key, value in build("densenet121", 1000).state_dict().items()
    }
    assert any(".norm.1." in key for key in old)
    torch.save(old, tmp_path / "densenet.pth")
    report = load(build("densenet121", 3), tmp_path / "densenet.pth", "densenet121")
    assert report.sentence.startswith("120 of 121 layers pretrained (classifier")
    inception = build("googlenet", 1000).state_dict()
    inception["aux1.conv.conv.weight"] = torch.zeros(128, 512, 1, 1)
    torch.save(inception, tmp_path / "googlenet.pth")
    report = load(build("googlenet", 3), tmp_path / "googlenet.pth", "googlenet")
    assert report.fresh == ("fc",)


def test_none_means_random_weights(model: nn.Module, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_pretrained(model, NAME, "none", cache=tmp_path)
    assert report.sentence.startswith("random weights, as asked: 0 of 26 layers pretrained")
    assert report.source == "none" and report.sha256 is None and report.loaded == ()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_words_stay_short_for_many_new_layers() -> None:
    fresh = tuple(f"l{i}" for i in range(40))
    assert words(("a",), fresh) == "1 of 41 layers pretrained, 39 new (l39 is the new head)"
    assert words(("a", "b"), ("c", "d")) == "2 of 4 layers pretrained, c new (d is the new head)"
    assert words((), ("c", "d")) == "0 of 2 layers pretrained (d is the new head)"


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch code-has-run",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"other.weight": torch.zeros(1)}, r"no tensor of squeezenet1_1's body.*other"),
        (lambda t: {}, r"no tensor of squeezenet1_1's body in it \(it holds no tensors\)"),
        (lambda t: {**t, "extra": torch.zeros(1)}, r"tensor 'extra' has no place in squeezenet"),
        (
            lambda t: {**t, "features.0.weight": torch.zeros(64, 3, 7, 7)},
            r"'features.0.weight' is \(64, 3, 7, 7\), squeezenet1_1 needs \(64, 3, 3, 3\)",
        ),
        (
            lambda t: {**t, "features.0.bias": torch.full((64,), float("nan"))},
            r"'features.0.bias' holds values that are not finite",
        ),
        (
            lambda t: {k: v for k, v in t.items() if k != "features.3.squeeze.bias"},
            r"'features.3.squeeze.bias' is missing beside",
        ),
        (lambda t: [torch.zeros(1)], r"expected tensors by name \(a state_dict\), got a list"),
        (lambda t: {"features.0.weight": Evil()}, r"refused, it holds more than tensors"),
    ],
)
def test_a_bad_file_is_named_and_changes_nothing(
    model: nn.Module,
    published: dict[str, Tensor],
    tmp_path: Path,
    change,
    message: str,
    monkeypatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    torch.save(change(dict(published)), path)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=message) as caught:
        load(model, path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not Path("code-has-run").exists()


def test_damaged_and_missing_files(published: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(published, tmp_path / "cut.pth")
    save_file(published, tmp_path / "cut.safetensors")
    for name in ("cut.pth", "cut.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for length in (0, 10, len(whole) // 2):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(InputError, match=rf"{name}: (not readable|refused).*damaged"):
                read_tensors(tmp_path / name)
    with pytest.raises(InputError, match=r"gone\.pth: no such weights file"):
        find_weights(NAME, tmp_path / "gone.pth", cache=tmp_path)
    with pytest.raises(InputError, match=r"gone\.pth: no such weights file"):
        read_tensors(tmp_path / "gone.pth")
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(InputError, match=r"weights\.h5: expected a \.pth, .*or \.safetensors"):
        read_tensors(tmp_path / "weights.h5")
