from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.swin_transformer import (
    PatchMergingV2,
    ShiftedWindowAttentionV2,
    SwinTransformerBlockV2,
)

from secateurs.nets.attention import HeadAttention, is_open, open_attention
from secateurs.nets.backbones import build

V2 = {
    "block": partial(SwinTransformerBlockV2, attn_layer=ShiftedWindowAttentionV2),
    "downsample_layer": PatchMergingV2,
}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=4),
    "swin": lambda: models.SwinTransformer([4, 4], 24, [2, 2], [3, 6], [4, 4]),
    "swin, other window": lambda: models.SwinTransformer([2, 2], 24, [2, 2], [3, 6], [3, 5]),
    "swin_v2": lambda: models.SwinTransformer([4, 4], 24, [2, 2], [3, 6], [4, 4], **V2),
    "maxvit": lambda: models.MaxVit((32, 32), 16, 2, [16, 32], [1, 1], 8, 0.0),
}


def drawn(model: nn.Module) -> nn.Module:
    """No parameter is constant, so that each has a say; keys of Swin V2 keep a bias of zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("qkv.bias"):
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.double().eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_opened_attention_computes_the_same(name: str):
    model = drawn(NETWORKS[name]())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    opened = open_attention(model)
    assert is_open(opened) and not is_open(model)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(opened(images), model(images), rtol=1e-9, atol=1e-9)
        for parameter in opened.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert sum(p.numel() for p in opened.parameters()) == sum(p.numel() for p in model.parameters())


def test_training_mode_and_what_is_frozen_are_kept():
    model = NETWORKS["vit"]().train()
    model.encoder.layers[0].requires_grad_(False)
    opened = open_attention(model)
    first, second = (opened.encoder.layers[k].self_attention for k in (0, 1))
    assert isinstance(first, HeadAttention) and first.training
    assert not first.qkv.weight.requires_grad and second.qkv.weight.requires_grad
    assert opened(torch.randn(1, 3, 32, 32)).isfinite().all()


def test_networks_without_it_come_back_as_they_are():
    model = build("squeezenet1_1", 2)
    assert open_attention(model) is model
    other = nn.Sequential(nn.MultiheadAttention(8, 2, kdim=6))  # keys of another width
    assert open_attention(other) is other


def encoder(**words: object) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, **words)
    return nn.TransformerEncoder(layer, 2)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    "words", [{}, {"norm_first": True}, {"bias": False}, {"activation": "gelu"}]
)
@pytest.mark.parametrize("mask", ["none", "causal", "padding", "both"])
@pytest.mark.parametrize("grad", [False, True])
def test_pytorchs_own_encoder_computes_the_same(words: dict[str, object], mask: str, grad: bool):
    torch.manual_seed(0)
    model = drawn(encoder(**words))
    opened = open_attention(model)
    assert is_open(opened)
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    more: dict[str, torch.Tensor] = {}
    if mask in ("causal", "both"):
        more["mask"] = torch.ones(5, 5).triu(1).bool()
    if mask in ("padding", "both"):
        more["src_key_padding_mask"] = torch.arange(5).expand(3, 5) > 3
    with torch.set_grad_enabled(grad):
        expected, got = model(x, **more), opened(x, **more)
    places = 4 if mask in ("padding", "both") else 5  # what is padding is anything
    torch.testing.assert_close(got[:, :places], expected[:, :places], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("kind", ["self", "cross", "one image"])
def test_attention_is_called_as_pytorchs_is(need_weights: bool, average: bool, kind: str):
    torch.manual_seed(0)
    given = nn.MultiheadAttention(16, 4, batch_first=True).double().eval()
    opened = open_attention(given)
    x, other = torch.randn(2, 5, 16).double(), torch.randn(2, 7, 16).double()
    parts = {"self": (x, x, x), "cross": (x, other, other), "one image": (x[0],) * 3}[kind]
    mask = torch.randn(5, parts[1].shape[-2]).double()
    for attn_mask in (None, mask, mask > 1):
        words = {
            "need_weights": need_weights,
            "attn_mask": attn_mask,
            "average_attn_weights": average,
        }
        expected, got = given(*parts, **words), opened(*parts, **words)
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert (opened.num_heads, opened.embed_dim) == (4, 16)


@pytest.mark.parametrize("places_first", [False, True])
def test_attention_over_other_inputs_computes_the_same(places_first: bool):
    torch.manual_seed(0)
    given = nn.MultiheadAttention(12, 3, batch_first=not places_first).double().eval()
    model = nn.Sequential(given)
    (opened,) = open_attention(model)
    assert isinstance(opened, HeadAttention)
    query, other = torch.randn(2, 5, 12).double(), torch.randn(2, 7, 12).double()
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[0, 4:] = True
    if places_first:
        query, other = query.transpose(0, 1), other.transpose(0, 1)
    with torch.no_grad():
        for inputs, words in (
            ((query, other, other), {"key_padding_mask": padding}),
            ((query, query, query), {}),
            ((query, other, other), {"average_attn_weights": False}),
        ):
            for ours, expected in zip(
                opened(*inputs, **words), given(*inputs, **words), strict=True
            ):
                torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
        one = tuple(part[:, 0] if places_first else part[0] for part in (query, other, other))
        torch.testing.assert_close(opened(*one)[0], given(*one)[0], rtol=1e-9, atol=1e-9)
