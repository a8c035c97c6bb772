from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
import torch
from torch import nn

from random_values import with_random_values
from secateurs.errors import InputError
from secateurs.nets import chain as module
from secateurs.nets.backbones import (
    Preprocessing,
    build,
    find_layer,
    layers,
    preprocessing,
    weights_entry,
)
from secateurs.nets.chain import chain
from secateurs.nets.trace import skeleton

SMALL = ["squeezenet1_1", "resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "mnasnet0_5"]


def called_order(model: nn.Module, size: int) -> list[str]:
    """Weighted layers in the order in which a real forward pass calls them."""
    order: list[str] = []
    handles = [
        module.register_forward_hook(lambda m, a, o, path=path: order.append(path))
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    model.eval()(torch.rand(1, 3, size, size))
    for handle in handles:
        handle.remove()
    return order


def test_alexnet_layers_have_the_paper_s_names() -> None:
    with torch.device("meta"):
        model = build("alexnet", 7)
    assert [(layer.alias, layer.path) for layer in layers(model, "alexnet")] == [
        ("conv1", "features.0"),
        ("conv2", "features.3"),
        ("conv3", "features.6"),
        ("conv4", "features.8"),
        ("conv5", "features.10"),
        ("fc6", "classifier.1"),
        ("fc7", "classifier.4"),
        ("fc8", "classifier.6"),
    ]
    assert find_layer(model, "alexnet", "fc6").path == "classifier.1"
    assert find_layer(model, "alexnet", "classifier.1").alias == "fc6"


@pytest.mark.parametrize("name", [*SMALL, "googlenet", "efficientnet_b0"])
def test_layers_run_in_the_order_given(name: str) -> None:
    model = build(name, 4)
    paths = [layer.path for layer in layers(model, name)]
    assert paths == called_order(model, 96)


def test_uncalled_layers_stand_where_their_block_runs() -> None:
    with torch.device("meta"):
        model = build("vit_b_32", 4)
    paths = [layer.path for layer in layers(model, "vit_b_32")]
    block = "encoder.layers.encoder_layer_1"
    assert paths[0] == "conv_proj" and paths[-1] == "heads.head"
    place = paths.index(f"{block}.self_attention.out_proj")
    assert paths[place + 1] == f"{block}.mlp.0"


@pytest.mark.parametrize("name", [*SMALL, "densenet121", "googlenet", "regnet_y_400mf"])
def test_chain_gives_the_model_s_output_exactly(name: str) -> None:
    torch.manual_seed(1)
    model = build(name, 4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    steps = chain(model, name)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.eval()
    images = torch.randn(3, 3, 96, 96)
    with torch.no_grad():
        got = images
        for _, step in steps:
            got = step(got)
        assert torch.equal(got, model(images))
    assert len(steps) > 10
    assert sum(p.numel() for _, step in steps for p in step.parameters()) == sum(
        p.numel() for p in model.parameters()
    )


@pytest.mark.parametrize("name", ["resnet18", "mnasnet0_5"])
def test_chain_gives_the_model_s_output_in_train_mode(name: str) -> None:
    images = torch.randn(4, 3, 96, 96)
    torch.manual_seed(0)
    model = build(name, 4)
    steps = chain(model, name)
    torch.manual_seed(5)
    expected = model(images)
    torch.manual_seed(5)
    got = images
    for _, step in steps:
        got = step(got)
    assert torch.equal(got, expected)


def in_place_of(name: str, forward: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> nn.Module:
    """A small network of the same modules with another forward, as if it were built as `name`."""
    kind = type(build(name, 2))
    model = build(name, 2)
    model.__class__ = type(kind.__name__, (kind,), {"forward": forward, "stock": kind.forward})
    module._PLANS.clear()
    return model


@pytest.fixture
def forget_plans() -> Generator[None]:
    yield
    module._PLANS.clear()


def test_a_network_whose_way_depends_on_values_is_one_step(forget_plans: None) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.stock(x) * (2 if x.mean() > 0 else 3)

    model = in_place_of("squeezenet1_1", forward)
    assert [name for name, _ in chain(model, "squeezenet1_1")] == ["model"]


def test_what_a_network_does_between_its_modules_is_a_step(forget_plans: None) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.stock(x)

    model = in_place_of("squeezenet1_1", forward).eval()
    steps = chain(model, "squeezenet1_1")
    assert [name for name, _ in steps][-3:] == [
        "classifier.3",
        *(f"between {len(steps) - left}" for left in (2, 1)),
    ]
    images = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        got = images
        for _, step in steps:
            got = step(got)
        assert torch.equal(got, model(images))


def test_a_network_without_values_is_one_step() -> None:
    with torch.device("meta"):
        model = build("vit_b_32", 4)
    assert [name for name, _ in chain(model, "vit_b_32")] == ["model"]


def test_the_layers_of_a_transformer_are_steps() -> None:
    torch.manual_seed(0)
    model = with_random_values("vit_b_32", 4)
    steps = chain(model, "vit_b_32")
    layers = [name for name, _ in steps if "encoder_layer" in name]
    assert layers == [f"encoder.layers.encoder_layer_{k}" for k in range(12)]
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        got = images
        for _, step in steps:
            got = step(got)
        assert torch.equal(got, model(images))
    given = {id(p) for _, step in steps for p in step.parameters()}
    assert given == {id(p) for p in model.parameters()}


def test_skeleton_has_no_values_and_leaves_the_model() -> None:
    model = build("squeezenet1_1", 3).train()
    bare = skeleton(model)
    assert {p.device.type for p in bare.parameters()} == {"meta"}
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert model.training and not bare.training


def test_preprocessing_is_the_published_weights_own() -> None:
    assert preprocessing("alexnet") == Preprocessing(
        224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    assert preprocessing("efficientnet_b1").size == 240
    assert preprocessing("vit_h_14").size == 224
    assert preprocessing("efficientnet_b0").interpolation == "bicubic"
    assert preprocessing("resnet50").crop_share == pytest.approx(224 / 232)
    assert weights_entry("alexnet").url.endswith("alexnet-owt-7be5be79.pth")


def test_errors_say_what_would_do() -> None:
    with pytest.raises(InputError, match=r"unknown backbone 'resnet81'; did you mean resnet18"):
        build("resnet81", 3)
    with pytest.raises(InputError, match=r"torchvision's classifiers (are known, )?and timm's"):
        build("?", 3)
    with pytest.raises(InputError, match=r"at least 2 classes, got 1"):
        build("resnet18", 1)
    small = build("squeezenet1_1", 3)
    with pytest.raises(InputError, match=r"no weighted layer 'fc9'"):
        find_layer(small, "squeezenet1_1", "fc9")
    with pytest.raises(InputError, match=r"the model given is a SqueezeNet, not a alexnet"):
        layers(small, "alexnet")
    with torch.device("meta"):
        alexnet = build("alexnet", 3)
    with pytest.raises(InputError, match=r"it has conv1, conv2, .*fc8"):
        find_layer(alexnet, "alexnet", "fc9")
