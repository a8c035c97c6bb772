from __future__ import annotations

import pytest
import torch
from torch import nn

from secateurs.nets.backbones import build
from secateurs.nets.depth import auto_depths, depth_name, num_depths, split_at, steps
from secateurs.nets.step_names import step_names

SMALL = ["squeezenet1_1", "resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "mnasnet0_5"]


def called_order(model: nn.Module) -> list[str]:
    """Weighted layers in the order in which a real forward pass calls them."""
    order: list[str] = []
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda m, a, o, path=path: order.append(path))
    model.eval()(torch.rand(1, 3, 64, 64))
    return order


@pytest.mark.parametrize("name", SMALL)
def test_a_step_starts_where_its_first_layer_is_called(name: str) -> None:
    model = build(name, 3)
    found = steps(model, name)
    order = called_order(model)
    for step in found:
        within = [place for place, path in enumerate(order) if f"{path}.".startswith(step.path)]
        assert step.depth == min(within)
    depths = [step.depth for step in found]
    assert depths[0] == 0 and depths[-1] == len(order) - 1 and depths == sorted(set(depths))
    assert found[-1].name == "head" and len({step.name for step in found}) == len(found)


@pytest.mark.parametrize("name", SMALL)
def test_the_prefix_at_a_step_is_all_that_comes_before_it(name: str) -> None:
    model = build(name, 3).eval()
    images = torch.rand(2, 3, 64, 64)
    wanted = set(auto_depths(model, name))
    with torch.no_grad():
        expected = model(images)
        for step in steps(model, name):
            prefix, tail = split_at(model, name, step.depth)
            layers = [m for m in prefix.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
            assert len(layers) == step.depth
            if step.depth in wanted:
                assert torch.equal(tail(prefix(images)), expected)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("num", [2, 6, 100])
def test_automatic_depths_go_from_all_trained_to_the_head_only(name: str, num: int) -> None:
    model = build(name, 3)
    found = auto_depths(model, name, num)
    borders = [step.depth for step in steps(model, name)]
    assert found == tuple(sorted(set(found))) and set(found) <= set(borders)
    assert found[0] == 0 and found[-1] == num_depths(model, name) - 1
    assert len(found) == min(num, len(borders))


def test_names_are_those_that_people_use() -> None:
    known = {
        "vit": (
            ["conv_proj", "encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"],
            ["stem", "encoder layer 0", "encoder layer 1"],
        ),
        "convnext": (
            ["features.0", "features.1.0", "features.1.1", "features.2", "features.3.0"],
            [
                *("stem", "stage 1 block 1", "stage 1 block 2"),
                *("stage 2 downsampling", "stage 2 block 1"),
            ],
        ),
        "regnet": (
            ["stem", "trunk_output.block1.block1-0", "trunk_output.block2.block2-1"],
            ["stem", "stage 1 block 1", "stage 2 block 2"],
        ),
        "shufflenet": (["conv1", "stage2.0", "conv5"], ["stem", "stage 2 block 1", "conv5"]),
        "inception": (["Conv2d_1a_3x3", "Mixed_5b"], ["stem", "mixed 5b"]),
        "googlenet": (["conv1", "conv2", "inception3a"], ["stem", "conv2", "inception 3a"]),
        "densenet": (
            ["features.conv0", "features.denseblock1", "features.transition1"],
            ["stem", "dense block 1", "transition 1"],
        ),
        "timm vit": (["patch_embed", "blocks.0", "blocks.1"], ["stem", "block 1", "block 2"]),
        "timm stages": (
            ["stem", "stages.0.blocks.0", "stages.1.downsample", "stages.1.blocks.0"],
            ["stem", "stage 1 block 1", "stage 2 downsample", "stage 2 block 1"],
        ),
        "timm stage of one block": (
            ["stem", "stages.0", "stages.1.downsample", "stages.1.blocks.0", "stages.1.blocks.1"],
            [
                *("stem", "stage 1", "stage 2 downsample"),
                *("stage 2 block 1", "stage 2 block 2"),
            ],
        ),
        "efficientnet": (
            ["conv_stem", "blocks.0.0", "blocks.1.0", "blocks.1.1", "conv_head"],
            ["stem", "stage 1 block 1", "stage 2 block 1", "stage 2 block 2", "conv head"],
        ),
    }
    for paths, names in known.values():
        assert step_names([*paths, "head"]) == (*names, "head")


def test_layers_with_names_of_their_own_keep_them() -> None:
    model = build("alexnet", 3)
    assert [step.name for step in steps(model, "alexnet")] == [
        *(f"conv{number}" for number in range(1, 6)),
        *("fc6", "fc7", "head"),
    ]
    assert depth_name(model, "alexnet", 5) == "up to conv5"
    assert depth_name(model, "alexnet", 7) == "head only"
    assert depth_name(model, "alexnet", 0) == "all trained"


def test_a_depth_inside_of_a_block_is_named_after_its_layer() -> None:
    model = build("resnet18", 3)
    assert depth_name(model, "resnet18", 5) == "up to stage 1 block 2"
    assert depth_name(model, "resnet18", 6) == "up to layer2.0.conv1"
