"""Networks whose head reads several depths: what they compute, names, weights and depths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.backbones import bare, build, check_name, find_layer, layers, preprocessing
from secateurs.nets.chain import chain
from secateurs.nets.depth import num_depths, split_at, steps
from secateurs.nets.several_depths import (
    EPSILON,
    SeveralDepths,
    both_depths,
    readable_depths,
    stock_path,
    stock_tensors,
)
from secateurs.nets.stock import build_stock
from secateurs.nets.trace import eval_mode
from secateurs.nets.weights import load_pretrained

# The network, the modules that the head reads too, and what gives the last features.
NETWORKS = [
    ("squeezenet1_1", ("features.4", "features.7"), "classifier.0"),
    ("mobilenet_v3_small", ("features.8",), "classifier.2"),
    ("resnet18", ("layer1.1", "layer2.0", "layer3.1"), "avgpool"),
    ("timm:vit_tiny_patch16_224", ("blocks.1",), "head_drop"),
]


def _loaded(name: str) -> tuple[nn.Module, SeveralDepths]:
    """A stock network and the one that reads several depths, with the same weights."""
    stock, *paths = name.split("+")
    torch.manual_seed(0)
    base, made = build_stock(stock, 3), build(name, 3)
    assert isinstance(made, SeveralDepths)
    own = made.state_dict()
    for key, place in stock_tensors(base, stock, paths).items():
        own[place].copy_(base.state_dict()[key])
    return base.eval(), made.eval()


def _given(model: nn.Module, paths: tuple[str, ...], batch: Tensor) -> list[NDArray[np.float64]]:
    """What some modules give."""
    seen: dict[str, Tensor] = {}

    def keep(path: str) -> None:
        model.get_submodule(path).register_forward_hook(
            lambda module, args, result: seen.update({path: result})
        )

    for path in paths:
        keep(path)
    with torch.no_grad():
        model(batch)
    return [seen[path].double().numpy() for path in paths]


@pytest.mark.parametrize(("stock", "paths", "last"), NETWORKS)
def test_the_head_reads_the_last_features_and_statistics_of_earlier_maps(
    stock: str, paths: tuple[str, ...], last: str
):
    base, made = _loaded("+".join([stock, *paths]))
    size = 224 if "vit" in stock else 64
    batch = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    *earlier, features = _given(base, (*paths, last), batch)
    read = [features.reshape(3, features.shape[1], -1).mean(2)]
    for maps, both in zip(earlier[::-1], both_depths(made), strict=True):
        center = torch.rand(both.norm.num_features, generator=generator)
        scale = 0.5 + torch.rand(both.norm.num_features, generator=generator)
        both.normalise(center, scale)
        positions = maps.reshape(*maps.shape[:2], -1)
        if "vit" in stock:
            positions = maps.transpose(0, 2, 1)
        statistics = [positions.mean(2), np.sqrt(positions.var(2) + EPSILON)]
        read.append((np.concatenate(statistics, axis=1) - center.numpy()) / scale.numpy())
    expected = np.concatenate(read, axis=1) @ made.head.weight.detach().double().numpy().T
    expected += made.head.bias.detach().numpy()
    with torch.no_grad():
        np.testing.assert_allclose(made(batch).numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("stock", "paths", "last"), NETWORKS)
def test_depths_and_layers_are_those_of_the_stock_network(
    stock: str, paths: tuple[str, ...], last: str
):
    name = "+".join([stock, *paths])
    base, made = build_stock(stock, 3), build(name, 3)
    assert num_depths(made, name) == num_depths(base, stock)
    expected = [(step.name, step.depth) for step in steps(base, stock)]
    assert [(step.name, step.depth) for step in steps(made, name)] == expected
    aliases = [layer.alias for layer in layers(base, stock)]
    assert [layer.alias for layer in layers(made, name)] == aliases
    assert stock_path(find_layer(made, name, aliases[-2]).path, made) == aliases[-2]
    assert preprocessing(name) == preprocessing(stock)
    shapes = {key: value.shape for key, value in made.state_dict().items()}
    assert {key: value.shape for key, value in bare(name, 3).state_dict().items()} == shapes


def test_a_frozen_prefix_and_the_rest_give_what_the_network_gives():
    name = "resnet18+layer3.1"
    _, made = _loaded(name)
    batch = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert [path for path, _ in chain(made, name)][-3:] == ["early.layer3.1", "both", "head"]
    for depth in (0, 3, 15, 17, 20):
        prefix, tail = split_at(made, name, depth)
        with eval_mode(made), torch.no_grad():
            assert torch.equal(tail(prefix(batch)), made(batch)), depth


def test_published_weights_go_to_their_places(tmp_path: Path):
    stock, name = "squeezenet1_1", "squeezenet1_1+features.7"
    torch.manual_seed(3)
    published = build_stock(stock, 1000)
    save_file(published.state_dict(), tmp_path / "weights.safetensors")
    made = build(name, 3)
    before = made.head.weight.clone()
    report = load_pretrained(made, name, tmp_path / "weights.safetensors", cache=tmp_path)
    own = made.state_dict()
    for key, place in stock_tensors(build_stock(stock, 2), stock, ["features.7"]).items():
        assert torch.equal(own[place], published.state_dict()[key]), key
    assert report.fresh == ("classifier.1",)
    assert len(report.loaded) == 25
    assert torch.equal(made.head.weight, before)


def test_what_a_head_cannot_read_is_refused():
    with pytest.raises(
        InputError, match=r"no module 'features\.99' to read; did you mean features"
    ):
        build("squeezenet1_1+features.99", 3)
    with pytest.raises(InputError, match=r"a head cannot read 'classifier\.0' too"):
        build("squeezenet1_1+classifier.0", 3)
    with pytest.raises(InputError, match=r"features\.7, features\.4 once, in running order"):
        build("squeezenet1_1+features.7+features.4", 3)
    with pytest.raises(InputError, match=r"features\.7 is named more than once"):
        build("squeezenet1_1+features.7+features.7", 3)
    for many in ("+features.7" * 1000, "+" + "x" * 100_000):  # as a damaged model.json may say
        with pytest.raises(InputError) as refused:
            build(f"squeezenet1_1{many}", 3)
        assert len(str(refused.value)) < 250
    with pytest.raises(InputError, match=r"unknown backbone 'alexnett'"):
        check_name("alexnett+features.3")
    for path in ("", "nonsense", "features.13 "):  # from the name, before anything is read
        with pytest.raises(InputError, match=r"vit_b_16 has no module .* made of conv_proj"):
            check_name(f"vit_b_16+{path}")
    with pytest.raises(InputError, match="at least 2 classes"):
        build("squeezenet1_1+features.7", 1)
    whole = build_stock("timm:deit_tiny_distilled_patch16_224", 3)
    assert readable_depths(whole, "timm:deit_tiny_distilled_patch16_224") == ()


def test_constant_maps_have_gradients_and_a_single_image_is_enough():
    made = build("squeezenet1_1+features.7", 3).train()
    made(torch.zeros(1, 3, 64, 64)).sum().backward()
    gradients = [parameter.grad for parameter in made.parameters() if parameter.grad is not None]
    assert gradients and all(bool(torch.isfinite(one).all()) for one in gradients)
