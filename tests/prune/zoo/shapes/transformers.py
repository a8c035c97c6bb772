"""Transformers: units of MLPs, heads, query and key dimensions, and the width of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shapes.entry import Entry, Net, any_of, floats, matrix, own, tokens

TOKENS = floats(5, 6)
HEADS, DIM = 3, 4


def with_attention(attend: Callable[[Net, Tensor], Tensor], groups: Any, **parts: Any) -> Entry:
    """An embedding of width 12, some attention, and a head on the mean over tokens."""

    def make() -> Net:
        return Net(
            lambda n, x: n.head(attend(n, n.embed(x)).mean(1)),
            embed=nn.Linear(6, 12),
            **{name: part() for name, part in parts.items()},
            head=nn.Linear(12, 3),
        )

    return Entry(make, TOKENS, groups)


def encoder_layer(**words: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(12, HEADS, 16, batch_first=True, **words)


def encoded(net: Net, x: Tensor) -> Tensor:
    return net.layer(x)


def masked(net: Net, x: Tensor) -> Tensor:
    future = torch.ones(5, 5, dtype=torch.bool, device=x.device).triu(1)
    return net.layer(x, src_mask=future)


def padded(net: Net, x: Tensor) -> Tensor:
    absent = torch.arange(5, device=x.device).expand(len(x), 5) > 3
    return net.layer(x, src_key_padding_mask=absent)


def decoded(net: Net, x: Tensor) -> Tensor:
    return net.layer(net.queries.expand(len(x), -1, -1), x)


def by_module(net: Net, x: Tensor) -> Tensor:
    return x + net.mix(x, x, x, need_weights=False)[0]


def by_module_masked(net: Net, x: Tensor) -> Tensor:
    future = torch.ones(5, 5, dtype=torch.bool, device=x.device).triu(1)
    return x + net.mix(x, x, x, attn_mask=future)[0]


def across(net: Net, x: Tensor) -> Tensor:
    return net.mix(net.queries.expand(len(x), -1, -1), x, x, need_weights=False)[0]


def heads_of(x: Tensor) -> Tensor:
    """As many heads as the width has; each of `DIM` channels."""
    return x.unflatten(-1, (-1, DIM)).transpose(1, 2)


def dims_of(x: Tensor) -> Tensor:
    """`HEADS` heads, each of as many channels as the width has."""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = query @ key.transpose(-2, -1) * DIM**-0.5
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


def fused(net: Net, x: Tensor) -> Tensor:
    query, key, value = map(heads_of, net.qkv(x).chunk(3, -1))
    return x + net.proj(attended(query, key, value))


def fused_by_permuting(net: Net, x: Tensor) -> Tensor:
    parts = net.qkv(x).reshape(len(x), 5, 3, -1, DIM).permute(2, 0, 3, 1, 4)
    return x + net.proj(attended(*parts.unbind(0)))


def separate(net: Net, x: Tensor) -> Tensor:
    query, key, value = (heads_of(layer(x)) for layer in (net.query, net.key, net.value))
    return x + net.proj(attended(query, key, value))


def separate_dims(net: Net, x: Tensor) -> Tensor:
    query, key, value = (dims_of(layer(x)) for layer in (net.query, net.key, net.value))
    return x + net.proj(attended(query, key, value))


def by_kernel(net: Net, x: Tensor) -> Tensor:
    query, key, value = (heads_of(layer(x)) for layer in (net.query, net.key, net.value))
    mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    return x + net.proj(mixed.transpose(1, 2).flatten(2))


def grouped_query(net: Net, x: Tensor) -> Tensor:
    """Two query heads for each head of keys and values."""
    query, key, value = (heads_of(layer(x)) for layer in (net.query, net.key, net.value))
    key, value = (part.repeat_interleave(2, 1) for part in (key, value))
    return x + net.proj(attended(query, key, value))


def multi_query(net: Net, x: Tensor) -> Tensor:
    """One head of keys and values for all query heads."""
    query = heads_of(net.query(x))
    return x + net.proj(attended(query, net.key(x).unsqueeze(1), net.value(x).unsqueeze(1)))


def with_bias(net: Net, x: Tensor) -> Tensor:
    query, key, value = map(heads_of, net.qkv(x).chunk(3, -1))
    scores = query @ key.transpose(-2, -1) * DIM**-0.5 + net.bias
    return x + net.proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


def rotated(x: Tensor) -> Tensor:
    """Rotary embedding: the two halves of each head are turned by the place."""
    angles = torch.arange(x.shape[-2])[:, None] / 10.0 ** torch.arange(DIM // 2)
    cos, sin = angles.cos().to(x).repeat(1, 2), angles.sin().to(x).repeat(1, 2)
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def rotary(net: Net, x: Tensor) -> Tensor:
    query, key, value = (heads_of(layer(x)) for layer in (net.query, net.key, net.value))
    return x + net.proj(attended(rotated(query), rotated(key), value))


def linear_attention(net: Net, x: Tensor) -> Tensor:
    query, key, value = (net.query(x).relu(), net.key(x).relu(), net.value(x))
    return x + net.proj(query @ (key.mT @ value) / 5)


def einsum_attention(net: Net, x: Tensor) -> Tensor:
    query, key, value = net.query(x), net.key(x), net.value(x)
    scores = torch.einsum("bqd,bkd->bqk", query, key).softmax(-1)
    return x + net.proj(torch.einsum("bqk,bkd->bqd", scores, value))


def mixer(net: Net, x: Tensor) -> Tensor:
    x = net.embed(x)
    x = x + net.places_down(F.gelu(net.places_up(net.norm_one(x).mT))).mT
    x = x + net.down(F.gelu(net.up(net.norm_two(x))))
    return net.head(x.mean(1))


def vision(net: Net, x: Tensor) -> Tensor:
    x = net.embed(x).flatten(2).mT
    x = torch.cat([net.token.expand(len(x), -1, -1), x], 1) + net.places
    x = x + fused(net, net.norm_one(x)) - net.norm_one(x)
    x = x + net.down(F.gelu(net.up(net.norm_two(x))))
    return net.head(net.norm(x)[:, 0])


def decoder(net: Net, x: Tensor) -> Tensor:
    """A block of a language model: RMS norms, rotary attention and a gated MLP."""
    x = net.embed(x)
    y = net.norm_one(x)
    query, key, value = (heads_of(layer(y)) for layer in (net.query, net.key, net.value))
    x = x + net.proj(attended(rotated(query), rotated(key), value))
    y = net.norm_two(x)
    x = x + net.down(F.silu(net.gate(y)) * net.up(y))
    return net.head(net.norm(x))


def window(net: Net, x: Tensor) -> Tensor:
    """Attention within windows of two by two tokens."""
    x = net.embed(x.permute(0, 2, 3, 1))
    parts = x.view(len(x), 2, 2, 2, 2, 12).transpose(2, 3).reshape(-1, 4, 12)
    parts = fused(net, parts)
    x = parts.view(len(x), 2, 2, 2, 2, 12).transpose(2, 3).reshape(len(x), 16, 12)
    return net.head(net.down(net.up(x).relu()).mean(1))


def projections(query: int = 12, others: int = 12) -> dict[str, Callable[[], nn.Module]]:
    return {
        "query": lambda: nn.Linear(12, query),
        "key": lambda: nn.Linear(12, others),
        "value": lambda: nn.Linear(12, others),
        "proj": lambda: nn.Linear(query, 12),
    }


FUSED: dict[str, Callable[[], nn.Module]] = {
    "qkv": lambda: nn.Linear(12, 36),
    "proj": lambda: nn.Linear(12, 12),
}

TRANSFORMERS = {
    "transformer_encoder": with_attention(
        encoded,
        {"layer.layers.0.linear1": 16, "layer.layers.0.self_attn": HEADS},
        layer=lambda: nn.TransformerEncoder(encoder_layer(), 2, enable_nested_tensor=False),
    ),
    "transformer_encoder_norm_first": with_attention(
        encoded,
        {"layer.linear1": 16, "layer.self_attn": HEADS},
        layer=lambda: encoder_layer(norm_first=True, activation="gelu"),
    ),
    "transformer_encoder_causal": with_attention(
        masked, {"layer.linear1": 16, "layer.self_attn": HEADS}, layer=encoder_layer
    ),
    "transformer_encoder_padded": with_attention(
        padded, {"layer.linear1": 16, "layer.self_attn": HEADS}, layer=encoder_layer
    ),
    "transformer_decoder": with_attention(
        decoded,
        {"layer.linear1": 16, "layer.self_attn": HEADS, "layer.multihead_attn": HEADS},
        layer=lambda: nn.TransformerDecoderLayer(12, HEADS, 16, batch_first=True),
        queries=lambda: own(1, 4, 12),
    ),
    "multihead_self": with_attention(
        by_module, {"mix": HEADS}, mix=lambda: nn.MultiheadAttention(12, HEADS, batch_first=True)
    ),
    "multihead_masked": with_attention(
        by_module_masked,
        {"mix": HEADS},
        mix=lambda: nn.MultiheadAttention(12, HEADS, batch_first=True, bias=False),
    ),
    "multihead_cross": with_attention(
        across,
        {"mix": HEADS},
        mix=lambda: nn.MultiheadAttention(12, HEADS, batch_first=True),
        queries=lambda: own(1, 4, 12),
    ),
    "attention_fused": with_attention(fused, {"embed": 12, "qkv": HEADS}, **FUSED),
    "attention_fused_permuted": with_attention(
        fused_by_permuting, {"embed": 12, "qkv": HEADS}, **FUSED
    ),
    "attention_separate": with_attention(
        separate, {"embed": 12, "query": HEADS, "value": HEADS}, **projections()
    ),
    # With the number of heads written down, channels go from all heads alike.
    "attention_head_channels": with_attention(
        separate_dims, {"embed": 12, "query": DIM, "value": DIM}, **projections()
    ),
    "attention_kernel": with_attention(
        by_kernel, {"embed": 12, "query": HEADS, "value": HEADS}, **projections()
    ),
    "attention_grouped_query": with_attention(
        grouped_query, {"embed": 12, "query": 2, "key": 2, "value": 2}, **projections(16, 8)
    ),
    "attention_multi_query": with_attention(
        multi_query, {"embed": 12, "query": HEADS}, **projections(12, DIM)
    ),
    "attention_relative_bias": with_attention(
        with_bias, {"embed": 12, "qkv": HEADS}, **FUSED, bias=lambda: own(HEADS, 5, 5)
    ),
    "attention_rotary": with_attention(
        rotary, {"embed": 12, "query": HEADS, "value": HEADS}, **projections()
    ),
    "attention_linear": with_attention(
        linear_attention,
        {"embed": 12, "query": 7, "value": 9},
        query=lambda: nn.Linear(12, 7),
        key=lambda: nn.Linear(12, 7),
        value=lambda: nn.Linear(12, 9),
        proj=lambda: nn.Linear(9, 12),
    ),
    "attention_einsum": with_attention(
        einsum_attention,
        {"embed": 12, "query": 7, "value": 9},
        query=lambda: nn.Linear(12, 7),
        key=lambda: nn.Linear(12, 7),
        value=lambda: nn.Linear(12, 9),
        proj=lambda: nn.Linear(9, 12),
    ),
    "mixer": Entry(
        lambda: Net(
            mixer,
            embed=nn.Linear(6, 12),
            norm_one=nn.LayerNorm(12),
            # Offsets would fill channels that are gone, over which the reference norms.
            places_up=nn.Linear(5, 8, bias=False),
            places_down=nn.Linear(8, 5, bias=False),
            norm_two=nn.LayerNorm(12),
            up=nn.Linear(12, 16),
            down=nn.Linear(16, 12),
            head=nn.Linear(12, 3),
        ),
        TOKENS,
        {"embed": 12, "places_up": 8, "up": 16},
        norm_width=True,
    ),
    "vision_transformer": Entry(
        lambda: Net(
            vision,
            embed=nn.Conv2d(3, 12, 4, stride=4),
            token=own(1, 1, 12),
            places=own(1, 5, 12),
            norm_one=nn.LayerNorm(12),
            **{name: part() for name, part in FUSED.items()},
            norm_two=nn.LayerNorm(12),
            up=nn.Linear(12, 16),
            down=nn.Linear(16, 12),
            norm=nn.LayerNorm(12),
            head=nn.Linear(12, 3),
        ),
        floats(3, 8, 8),
        {"embed": 12, "qkv": HEADS, "up": 16},
        norm_width=True,
    ),
    "language_model": Entry(
        lambda: Net(
            decoder,
            embed=nn.Embedding(20, 12),
            norm_one=nn.RMSNorm(12),
            **{name: part() for name, part in projections().items()},
            norm_two=nn.RMSNorm(12),
            gate=nn.Linear(12, 16),
            up=nn.Linear(12, 16),
            down=nn.Linear(16, 12),
            norm=nn.RMSNorm(12),
            head=nn.Linear(12, 20),
        ),
        tokens(5),
        {"embed": 12, "query": HEADS, "gate": 16, "up": 16},
        norm_width=True,
    ),
    # The width is written down where windows are made: what attends within them can go.
    "window_attention": Entry(
        lambda: Net(
            window,
            embed=nn.Linear(3, 12),
            **{name: part() for name, part in FUSED.items()},
            up=nn.Linear(12, 16),
            down=nn.Linear(16, 12),
            head=nn.Linear(12, 3),
        ),
        floats(3, 4, 4),
        {"qkv": any_of(HEADS), "up": 16},
    ),
    "low_rank_attention": with_attention(
        lambda n, x: x + n.proj((x @ n.keys.mT).softmax(-1) @ n.values),
        {"embed": 12, "values": 9},
        keys=lambda: matrix(6, 12),
        values=lambda: own(6, 9),
        proj=lambda: nn.Linear(9, 12),
    ),
}
