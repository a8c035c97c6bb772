from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from random_values import with_random_values
from secateurs.errors import InputError
from secateurs.nets.backbones import build, layers
from secateurs.nets.depth import (
    check_depth,
    freeze,
    num_depths,
    split_at,
    tail_path,
    train_mode,
    trained_parameters,
)

SHUFFLENET = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def alexnet() -> nn.Module:
    torch.manual_seed(0)
    return build("alexnet", 5)


def names(part: nn.Module) -> list[str]:
    return [name for name, _ in part.named_children()]


@pytest.mark.parametrize("depth", range(8))
def test_alexnet_freezes_the_first_layers(alexnet: nn.Module, depth: int) -> None:
    freeze(alexnet, "alexnet", depth)
    frozen = [
        not alexnet.get_submodule(layer.path).weight.requires_grad
        for layer in layers(alexnet, "alexnet")
    ]
    assert frozen == [True] * depth + [False] * (8 - depth)
    wanted = [p for p in alexnet.parameters() if p.requires_grad]
    assert list(map(id, trained_parameters(alexnet, "alexnet", depth))) == list(map(id, wanted))


def test_alexnet_tail_starts_with_the_dropout_of_the_first_trained_layer(
    alexnet: nn.Module,
) -> None:
    starts = {
        0: "features/0",
        1: "features/3",
        2: "features/6",
        3: "features/8",
        4: "features/10",
        5: "classifier/0",
        6: "classifier/3",
        7: "classifier/6",
    }
    for depth, start in starts.items():
        prefix, tail = split_at(alexnet, "alexnet", depth)
        assert names(tail)[0] == start
        assert len(prefix) + len(tail) == 22
        assert (len(prefix) == 0) == (depth == 0)


def test_alexnet_dropout_of_the_frozen_part_is_fixed(alexnet: nn.Module) -> None:
    active = {}
    for depth in range(8):
        train_mode(alexnet, "alexnet", depth)
        active[depth] = [alexnet.classifier[0].training, alexnet.classifier[3].training]
    assert [active[d] for d in (0, 5, 6, 7)] == [
        [True, True],
        [True, True],
        [False, True],
        [False, False],
    ]
    train_mode(alexnet, "alexnet", 0, dropout=False)
    assert not alexnet.classifier[0].training and alexnet.features[0].training


def test_prefix_and_tail_are_the_model(alexnet: nn.Module) -> None:
    images = torch.randn(2, 3, 224, 224)
    alexnet.eval()
    with torch.no_grad():
        expected = alexnet(images)
        for depth in range(8):
            prefix, tail = split_at(alexnet, "alexnet", depth)
            assert torch.equal(tail(prefix(images)), expected)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mobilenet_v2", SHUFFLENET)),
    ],
)
def test_every_depth_of_a_network_with_batch_norm(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, 4).eval()
    images = torch.randn(2, 3, 64, 64)
    paths = [layer.path for layer in layers(model, name)]
    lengths = []
    with torch.no_grad():
        expected = model(images)
        for depth in range(num_depths(model, name)):
            prefix, tail = split_at(model, name, depth)
            lengths.append(len(prefix))
            assert torch.equal(tail(prefix(images)), expected)
            freeze(model, name, depth)
            held = {id(p) for p in prefix.parameters()}
            assert all(not p.requires_grad for p in prefix.parameters())
            assert held <= {id(p) for p in model.parameters()}
            trained = {id(p) for p in trained_parameters(model, name, depth)}
            for place, path in enumerate(paths):
                weight = model.get_submodule(path).weight
                assert weight.requires_grad == (place >= depth) == (id(weight) in trained)
    assert lengths == sorted(lengths)
    assert lengths[-1] > len(lengths) // 4


def fit_two_steps(model: nn.Module, name: str, depth: int, images: torch.Tensor) -> None:
    freeze(model, name, depth)
    train_mode(model, name, depth)
    optimizer = torch.optim.Adam(trained_parameters(model, name, depth), lr=1e-2, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(images), torch.tensor([0, 1, 2, 3])).backward()
        optimizer.step()


@pytest.mark.parametrize(("name", "depth"), [("resnet18", 7), ("mobilenet_v2", 20)])
def test_training_leaves_the_frozen_part_bit_identical(name: str, depth: int) -> None:
    torch.manual_seed(0)
    model = build(name, 4)
    images = torch.randn(4, 3, 64, 64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    frozen = [layer.path for layer in layers(model, name)][:depth]
    fit_two_steps(model, name, depth, images)
    after = model.state_dict()
    same = {key for key in before if torch.equal(before[key], after[key])}
    assert {f"{path}.weight" for path in frozen} <= same
    changed = set(before) - same
    assert {f"{layer.path}.weight" for layer in layers(model, name)[depth:]} <= changed
    # Batch norm stands directly behind its convolution, so as many statistics as layers are fixed.
    fixed = [key for key in same if key.endswith("running_mean")]
    moved = [key for key in changed if key.endswith("running_mean")]
    assert len(fixed) == depth and moved
    prefix, _ = split_at(model, name, depth)
    assert all(
        not module.training
        for step in prefix
        for module in step.modules()
        if next(module.parameters(), None) is not None
    )


def test_prefix_output_does_not_depend_on_its_mode_being_train() -> None:
    torch.manual_seed(0)
    model = build("mobilenet_v2", 4)
    train_mode(model, "mobilenet_v2", 30)
    prefix, _ = split_at(model, "mobilenet_v2", 30)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        first, second = prefix(images), prefix(images)
        model.eval()
        assert torch.equal(first, second)
        assert torch.equal(first, prefix(images))


def test_stochastic_depth_is_fixed_with_its_block() -> None:
    torch.manual_seed(0)
    model = build("efficientnet_b0", 4)
    depth = 60
    train_mode(model, "efficientnet_b0", depth)
    prefix, tail = split_at(model, "efficientnet_b0", depth)
    kind = "StochasticDepth"
    inside = [m for m in prefix.modules() if type(m).__name__ == kind]
    beyond = [m for m in tail.modules() if type(m).__name__ == kind]
    assert inside and not any(m.training for m in inside)
    assert beyond and beyond[-1].training


def test_attention_parameters_are_frozen_with_their_block() -> None:
    with torch.device("meta"):
        model = build("vit_b_32", 4)
    paths = [layer.path for layer in layers(model, "vit_b_32")]
    block = "encoder.layers.encoder_layer_0.self_attention"
    depth = paths.index(f"{block}.out_proj") + 1
    freeze(model, "vit_b_32", depth)
    assert not model.class_token.requires_grad
    assert not model.get_submodule(block).in_proj_weight.requires_grad
    following = model.get_submodule(block.replace("layer_0", "layer_1"))
    assert following.in_proj_weight.requires_grad
    prefix, tail = split_at(model, "vit_b_32", depth)
    assert not any(parameter.requires_grad for parameter in prefix.parameters())
    assert tail.get_submodule(tail_path(tail, "heads.head")) is model.heads.head


def test_prefix_and_tail_of_a_transformer_are_the_model() -> None:
    torch.manual_seed(0)
    model = with_random_values("vit_b_32", 2)
    images = torch.rand(2, 3, 224, 224)
    third = [layer.path for layer in layers(model, "vit_b_32")].index(
        "encoder.layers.encoder_layer_3.self_attention.out_proj"
    )
    with torch.no_grad():
        expected = model(images)
        for depth, last in ((1, "between"), (third, "encoder/layers/encoder_layer_2")):
            prefix, tail = split_at(model, "vit_b_32", depth)
            assert names(prefix)[-1].startswith(last)
            assert "conv_proj.weight" in {path.partition(".")[2] for path in prefix.state_dict()}
            assert torch.equal(tail(prefix(images)), expected)
    freeze(model, "vit_b_32", third)
    assert not any(parameter.requires_grad for parameter in prefix.parameters())
    trained = {id(parameter) for parameter in trained_parameters(model, "vit_b_32", third)}
    assert trained <= {id(parameter) for parameter in tail.parameters()}


def test_tail_path_finds_the_module(alexnet: nn.Module) -> None:
    _, tail = split_at(alexnet, "alexnet", 5)
    assert tail.get_submodule(tail_path(tail, "classifier.4")) is alexnet.classifier[4]
    with pytest.raises(InputError, match=r"features\.0 is not in this part"):
        tail_path(tail, "features.0")


def test_depth_outside_the_range_names_the_layers(alexnet: nn.Module) -> None:
    message = r"depth 9 is outside 0\.\.7 of alexnet \(conv1, conv2, \.\.\., fc7; fc8 is the new"
    for function in (freeze, train_mode, split_at, trained_parameters, check_depth):
        with pytest.raises(InputError, match=message):
            function(alexnet, "alexnet", 9)
    with pytest.raises(InputError, match=r"depth -1 is outside"):
        freeze(alexnet, "alexnet", -1)


def test_depth_0_trains_all_again(alexnet: nn.Module) -> None:
    freeze(alexnet, "alexnet", 7)
    freeze(alexnet, "alexnet", 0)
    assert all(p.requires_grad for p in alexnet.parameters())
