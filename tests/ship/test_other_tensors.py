"""Cut networks with parameters outside of layers: saved, read back, refused where they lie."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from secateurs.errors import InputError
from secateurs.nets.attention import open_attention
from secateurs.nets.backbones import bare, build, preprocessing
from secateurs.nets.batches import forward
from secateurs.prune.coupling.groups import find_groups
from secateurs.prune.surgery.checked_groups import checked
from secateurs.prune.surgery.narrow import narrow
from secateurs.ship.checkpoint import load, save
from secateurs.ship.spec import ImageInput, describe

# Layer scale and norms over channels; Conv1d; biases of attention, two heads; batch norms with an
# activation in them.
NETWORKS = ["convnext_atto", "eca_resnext26ts", "levit_128s", "mobilenetv4_conv_small_050"]


def cut_in_half(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    size = preprocessing(name).size
    model = open_attention(build(name, 2)).eval()
    found = find_groups(model, torch.empty(1, 3, size, size)).found
    assert found
    stay = {group.name: torch.arange(0, group.num_units, 2) for group in found}
    return narrow(model, found, stay), torch.rand(1, 3, size, size)


def check_saved(
    name: str, folder: Path, cut: torch.nn.Module | None = None, images: torch.Tensor | None = None
) -> Path:
    if cut is None or images is None:
        cut, images = cut_in_half(name)
    path = save(cut, describe(cut, name, ["a", "b"], ImageInput.of(name)), folder)
    loaded = load(path)
    with torch.no_grad():
        assert torch.equal(loaded.model(images), cut(images))
    tensors = (*loaded.model.parameters(), *loaded.model.buffers())
    assert not any(tensor.is_meta for tensor in tensors)
    for where, module in cut.named_modules():
        numbers = {key: v for key, v in vars(module).items() if type(v) is int}
        other = vars(loaded.model.get_submodule(where))
        assert all(other[key] == value for key, value in numbers.items()), where
    return path


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_cut_network_of_timm_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    check_saved(name, tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_a_number_of_heads_comes_back(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    torch.manual_seed(0)
    model, images = build(name, 2).eval(), torch.rand(2, 3, 224, 224)
    groups = find_groups(model, images)
    heads = [group for group in groups.found if group.name.startswith("blocks.3.attn")]
    found = checked(model, replace(groups, found=tuple(heads)), images, run=forward).found
    cut = narrow(model, found, {group.name: torch.arange(1) for group in found})
    plain = json.loads(check_saved(name, tmp_path, cut, images).read_text())
    assert plain["attributes"]["blocks.3.attn"]["num_heads"] == 1


@pytest.fixture(scope="module")
def convnext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return check_saved("convnext_tiny", tmp_path_factory.mktemp("convnext"))


def test_the_recipe_names_what_no_layer_s_width_says(convnext: Path) -> None:
    plain = json.loads(convnext.read_text())
    scale = "features.1.0.layer_scale"
    assert plain["shapes"][scale] == [48, 1, 1] and bare("convnext_tiny", 2) is not None
    assert {key.rpartition(".")[2] for key in plain["shapes"]} == {"layer_scale"}
    assert plain["widths"]["features.1.0.block.2"] == {"in": 48, "out": 48}  # a layer norm


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("shapes", "features.1.0.layer_scale", [97, 1, 1], r"layer_scale: \(97, 1, 1\), convnext_"),
        ("shapes", "features.1.0.layer_scale", [48, 1], r"layer_scale: \(48, 1\), convnext_tiny h"),
        ("shapes", "features.1.0.layer_scale", [47, 1, 1], r"is \(48, 1, 1\), expected \(47, 1, 1"),
        ("shapes", "features.1.0.layer_scale", [0, 1, 1], r"shapes.features.1.0.layer_scale: exp"),
        ("shapes", "features.1.0.layer_scale", "x" * 300, r"expected whole numbers of at least 1"),
        ("shapes", "nowhere", [1], r"shapes.nowhere: convnext_tiny has no such tensor"),
        ("attributes", "features.1.0", {"n": 1}, r"attributes.features.1.0.n: 1, convnext_tiny ha"),
        ("attributes", "nowhere", {"n": 1}, r"attributes.nowhere.n: 1, convnext_tiny has nothing"),
        ("attributes", "features.1.0", {"n": -1}, r"expected whole numbers by name"),
        ("attributes", "features.1.0", {"a b": 1}, r"expected whole numbers by name"),
        ("attributes", "features.0.0", {"training": 1}, r"features.0.0.training: 1, convnext_tiny"),
        (
            "attributes",
            "features.0.0",
            {"out_channels": 97},
            r"out_channels: 97, convnext_tiny has",
        ),
    ],
)
def test_recipes_that_lie_are_refused(
    convnext: Path, part: str, key: str, value: object, message: str
) -> None:
    whole = convnext.read_text()
    data = json.loads(whole)
    data.setdefault(part, {})[key] = value
    convnext.write_text(json.dumps(data))
    try:
        with pytest.raises(InputError, match=message) as caught:
            load(convnext)
        assert "\n" not in str(caught.value)
    finally:
        convnext.write_text(whole)


def test_shapes_must_be_an_object(convnext: Path) -> None:
    whole = convnext.read_text()
    convnext.write_text(json.dumps(json.loads(whole) | {"shapes": []}))
    with pytest.raises(InputError, match=r"shapes: expected an object, got \[\]"):
        load(convnext)
    convnext.write_text(whole)
