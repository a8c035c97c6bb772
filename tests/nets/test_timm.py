"""timm's networks as backbones, by a few small ones of different families."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.nets.backbones import (
    bare,
    build,
    check_size,
    find_layer,
    layers,
    num_heads,
    preprocessing,
    source_of,
    weights_entry,
)
from secateurs.nets.depth import depth_name, freeze, num_depths, split_at, steps, trained_parameters

timm = pytest.importorskip("timm")

FAMILIES = [
    *("mobilenetv3_small_050", "timm:resnet18", "convnext_atto", "vit_tiny_patch16_224"),
    *("levit_128s", "repvgg_a0", "edgenext_xx_small"),
]


def test_a_name_that_both_have_is_torchvision_s_unless_it_says_otherwise() -> None:
    assert source_of("resnet18") == "torchvision" and source_of("timm:resnet18") == "timm"
    assert source_of("tf_efficientnet_lite0") == "timm"
    ours, theirs = build("resnet18", 3), build("timm:resnet18", 3)
    assert type(ours).__module__.startswith("torchvision")
    assert type(theirs).__module__.startswith("timm")
    assert weights_entry("timm:resnet18") is None


def test_preprocessing_is_timm_s_own() -> None:
    from timm.data import resolve_model_data_config

    for name in ("tf_efficientnet_lite2", "mobilenetv3_small_050", "resnet18.tv_in1k"):
        wanted = resolve_model_data_config(timm.create_model(name), use_test_size=False)
        found = preprocessing(name)
        assert found.size == wanted["input_size"][1]
        assert found.mean == wanted["mean"] and found.std == wanted["std"]
        assert found.interpolation == wanted["interpolation"]
        assert found.crop_share == wanted["crop_pct"]


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_are_borders_at_which_the_network_splits(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, 3).eval()
    order: list[str] = []
    hooks = [
        module.register_forward_hook(lambda m, a, o, path=path: order.append(path))
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    images = torch.rand(2, 3, preprocessing(name).size, preprocessing(name).size)
    with torch.no_grad():
        expected = model(images)
        for hook in hooks:
            hook.remove()
        assert [layer.path for layer in layers(model, name)] == order
        found = steps(model, name)
        assert len(found) > 5 and found[0].depth == 0 and found[-1].name == "head"
        assert found[-1].depth == num_depths(model, name) - 1
        for step in found[:: len(found) // 3]:
            prefix, tail = split_at(model, name, step.depth)
            inner = [m for m in prefix.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
            assert len(inner) == step.depth
            assert torch.equal(tail(prefix(images)), expected)


def test_a_distilled_network_has_two_heads() -> None:
    name = "deit_tiny_distilled_patch16_224"
    model = bare(name, 3)
    assert num_heads(model, name) == 2
    last = num_depths(model, name) - 1
    assert depth_name(model, name, last) == "head only"
    model = build(name, 3)
    freeze(model, name, last)
    shapes = [tuple(p.shape) for p in trained_parameters(model, name, last)]
    assert shapes == [(3, 192), (3,)] * 2
    assert model.head.weight.requires_grad and model.head_dist.weight.requires_grad


def test_names_that_are_near_come_from_both_sources() -> None:
    with pytest.raises(InputError, match=r"did you mean tf_efficientnet_lite0"):
        build("tf_eficientnet_lite0", 3)
    with pytest.raises(InputError, match=r"did you mean resnet18"):
        build("resnet81", 3)
    with pytest.raises(InputError, match=r"'timm:resnet81'; did you mean timm:resnet"):
        build("timm:resnet81", 3)
    with pytest.raises(InputError, match=r"resnet18 has no weights named 'tv'"):
        build("resnet18.tv", 3)
    with pytest.raises(InputError, match=r"a AlexNet, not a convnext_atto"):
        layers(build("alexnet", 3), "convnext_atto")


def test_a_size_that_the_network_does_not_take_is_said() -> None:
    check_size("convnext_atto", 128)
    with pytest.raises(InputError, match=r"vit_tiny_patch16_224 does not take images of 96 pixels"):
        check_size("vit_tiny_patch16_224", 96)


def test_layers_are_found_by_path() -> None:
    assert find_layer(bare("convnext_atto", 3), "convnext_atto", "head.fc").path == "head.fc"


@pytest.mark.slow
def test_timm_is_imported_when_it_is_needed() -> None:
    code = (
        "import sys; from secateurs.nets.backbones import build; build('squeezenet1_1', 2);"
        "print('timm' in sys.modules); build('convnext_atto', 2); print('timm' in sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.split() == ["False", "True"]
