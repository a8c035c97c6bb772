"""Attention whose heads can be cut: torchvision's own insists on as many as it was built with.

Each class here computes what torchvision's module of the same place computes, with ordinary linear
layers, and reads the number of heads off its weights.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from secateurs.closures import deep_copied
from secateurs.nets.trace import attribute_memo


class Lookup(nn.Module):
    """Tables that attention reads and that do not change with its heads."""

    index: Tensor  # (places * places,) into the biases of all distances
    coordinates: Tensor

    def __init__(self, index: Tensor, coordinates: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("index", index.clone())
        if coordinates is not None:
            self.register_buffer("coordinates", coordinates.clone())


class HeadAttention(nn.MultiheadAttention):
    """Attention of nn.MultiheadAttention over (images, places, channels), called as that is.

    It is one, for networks that ask what their layers are, and has none of its parameters. The
    attributes that PyTorch's own transformer layers read are there; they say that the layers' fused
    kernel, which knows no fewer heads, is not to be used.
    """

    def __init__(self, given: nn.MultiheadAttention) -> None:
        nn.Module.__init__(self)
        self._qkv_same_embed_dim = False
        self.bias_k = self.bias_v = None
        self.add_zero_attn = False
        self.head_dim, self.dropout = given.head_dim, given.dropout
        self.batch_first = given.batch_first
        weight, bias = given.in_proj_weight, given.in_proj_bias
        self.qkv = _linear(weight, bias)
        self.proj = _linear(given.out_proj.weight, given.out_proj.bias)
        self.train(given.training)

    @property
    def num_heads(self) -> int:
        """How many heads there are now."""
        return self.qkv.out_features // (3 * self.head_dim)

    @property
    def embed_dim(self) -> int:
        """The channels of what it reads."""
        return self.qkv.in_features

    @property
    def in_proj_weight(self) -> Tensor:
        """Weights of queries, keys and values, one below the other."""
        return self.qkv.weight

    @property
    def in_proj_bias(self) -> Tensor | None:
        """Their biases."""
        return self.qkv.bias

    @property
    def out_proj(self) -> nn.Linear:
        """The layer that mixes the heads."""
        return self.proj

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The attended values, and the weights if they are wanted, as nn.MultiheadAttention's."""
        if not self.batch_first and query.ndim == 3:
            same = key is query and value is query
            turned = query.transpose(0, 1)
            others = (turned, turned) if same else (key.transpose(0, 1), value.transpose(0, 1))
            mixed, weights = self._attend(
                turned, *others, key_padding_mask, need_weights, attn_mask, average_attn_weights
            )
            return mixed.transpose(0, 1), weights
        if query.ndim == 2:  # one image, without an axis for images
            one = self._attend(
                query[None],
                key[None],
                value[None],
                None if key_padding_mask is None else key_padding_mask[None],
                need_weights,
                attn_mask,
                average_attn_weights,
            )
            return one[0][0], None if one[1] is None else one[1][0]
        return self._attend(
            query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights
        )

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        need_weights: bool,
        attn_mask: Tensor | None,
        average_attn_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """The same for (images, places, channels)."""
        if key is query and value is query:
            parts = self.qkv(query).chunk(3, -1)
        else:
            weights_of = self.qkv.weight.chunk(3)
            bias = dict(self.qkv.named_parameters()).get("bias")
            biases = (None,) * 3 if bias is None else bias.chunk(3)
            given = zip((query, key, value), weights_of, biases, strict=True)
            parts = tuple(F.linear(*one) for one in given)
        # (images, heads, places, head_dim)
        q, k, v = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in parts)
        mask = _mask(attn_mask, key_padding_mask, q)
        p = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
            weights = F.softmax(scores if mask is None else scores + mask, -1)
            mixed = F.dropout(weights, p) @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        return self.proj(mixed.transpose(1, 2).flatten(2)), weights


def _mask(attn_mask: Tensor | None, padding: Tensor | None, like: Tensor) -> Tensor | None:
    """What is added to scores (images, heads, places, places); True in a mask forbids a place."""
    found: Tensor | None = None
    if attn_mask is not None:
        found = _added(attn_mask, like)
        if found.ndim == 3:  # one for each image and head
            found = found.unflatten(0, (len(like), -1))
    if padding is not None:
        spread = _added(padding, like)[:, None, None, :]
        found = spread if found is None else found + spread
    return found


def _added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


class BiasedAttention(nn.Module):
    """What window attentions share: a bias for each head and pair of places in a window.

    Parameters of the module itself have one row a head.
    """

    head_dim: int

    def _heads(self, x: Tensor) -> Tensor:
        """(..., places, channels) as (..., heads, places, head_dim)."""
        return x.unflatten(-1, (-1, self.head_dim)).transpose(-3, -2)


class WindowAttention(BiasedAttention):
    """Attention of Swin within windows, which are shifted in every other block."""

    lookup: Lookup
    table: nn.Parameter

    def __init__(self, given: ShiftedWindowAttention) -> None:
        super().__init__()
        self.window, self.shift = tuple(given.window_size), tuple(given.shift_size)
        self.head_dim = given.qkv.in_features // given.num_heads
        self.attention_dropout, self.dropout = given.attention_dropout, given.dropout
        self.qkv = _linear(given.qkv.weight, given.qkv.bias)
        self.proj = _linear(given.proj.weight, given.proj.bias)
        self._tables(given)
        self.train(given.training)

    def _tables(self, given: ShiftedWindowAttention) -> None:
        self.table = _parameter(given.relative_position_bias_table.T)
        self.lookup = Lookup(_buffer(given.relative_position_index))

    def _bias(self) -> Tensor:
        """(heads, places, places)."""
        places = self.window[0] * self.window[1]
        return self.table[:, self.lookup.index].unflatten(1, (places, places))

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        return (q * self.head_dim**-0.5) @ k.transpose(-2, -1)

    def forward(self, x: Tensor) -> Tensor:
        """(images, height, width, channels) to the same."""
        images, height, width, channels = x.shape
        high, wide = self.window
        x = F.pad(x, (0, 0, 0, -width % wide, 0, -height % high))
        rows, columns = x.shape[1] // high, x.shape[2] // wide
        shift = [s if n > 1 else 0 for s, n in zip(self.shift, (rows, columns), strict=True)]
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), (1, 2))
        x = x.view(images, rows, high, columns, wide, channels).transpose(2, 3)
        x = x.reshape(images * rows * columns, high * wide, channels)
        q, k, v = (self._heads(part) for part in self.qkv(x).chunk(3, -1))
        scores = self._scores(q, k) + self._bias()
        if any(shift):
            mask = _shifted_mask(x, (rows, columns), self.window, shift)
            scores = scores.unflatten(0, (images, rows * columns)) + mask[:, None]
            scores = scores.flatten(0, 1)
        weights = F.dropout(F.softmax(scores, -1), self.attention_dropout, self.training)
        x = (weights @ v).transpose(1, 2).flatten(2)
        x = F.dropout(self.proj(x), self.dropout, self.training)
        x = x.view(images, rows, columns, high, wide, channels).transpose(2, 3)
        x = x.reshape(images, rows * high, columns * wide, channels)
        if any(shift):
            x = x.roll((shift[0], shift[1]), (1, 2))
        return x[:, :height, :width].contiguous()


class CosineWindowAttention(WindowAttention):
    """Attention of Swin V2: cosines, a scale for each head, and a bias that a small network gives.

    The part of the bias of `qkv` that belongs to keys is zero, as torchvision sets it in each run.
    """

    def _tables(self, given: ShiftedWindowAttention) -> None:
        assert isinstance(given, ShiftedWindowAttentionV2)
        self.logit_scale = _parameter(given.logit_scale)
        self.bias_net: nn.Sequential = copy.deepcopy(given.cpb_mlp)
        self.lookup = Lookup(
            _buffer(given.relative_position_index), _buffer(given.relative_coords_table)
        )
        with torch.no_grad():
            for bias in dict(self.qkv.named_parameters()).values():
                if bias.ndim == 1:
                    bias.chunk(3)[1].zero_()

    def _bias(self) -> Tensor:
        places = self.window[0] * self.window[1]
        values = self.bias_net(self.lookup.coordinates).flatten(0, -2)
        found = 16 * torch.sigmoid(values[self.lookup.index])
        return found.T.unflatten(1, (places, places))

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        scale = self.logit_scale.clamp(max=math.log(100.0)).exp()
        return F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * scale


class GridAttention(BiasedAttention):
    """Attention of MaxViT over (images, groups, places, channels), for windows and for grids."""

    def __init__(self, given: RelativePositionalMultiHeadAttention) -> None:
        super().__init__()
        self.head_dim, self.scale = given.head_dim, given.scale_factor
        self.places = given.max_seq_len
        self.qkv = _linear(given.to_qkv.weight, given.to_qkv.bias)
        self.proj = _linear(given.merge.weight, given.merge.bias)
        self.table = _parameter(given.relative_position_bias_table.T)
        self.lookup = Lookup(_buffer(given.relative_position_index).flatten())
        self.train(given.training)

    def forward(self, x: Tensor) -> Tensor:
        """The attended values, of the same shape."""
        q, k, v = (self._heads(part) for part in self.qkv(x).chunk(3, -1))
        bias = self.table[:, self.lookup.index].unflatten(1, (self.places, self.places))
        weights = F.softmax(q @ (k * self.scale).transpose(-2, -1) + bias, -1)
        return self.proj((weights @ v).transpose(-3, -2).flatten(-2))


OPEN = (HeadAttention, WindowAttention, GridAttention)


def is_open(model: nn.Module) -> bool:
    """Whether a network has attention whose heads can be cut."""
    return any(isinstance(module, OPEN) for module in model.modules())


def open_attention(model: nn.Module) -> nn.Module:
    """A copy of a network with attention whose heads can be cut, where it is of a known kind.

    Weights and outputs are the same but for rounding. Networks without such attention come back as
    they are, not copied.

    >>> from secateurs.nets.backbones import build
    >>> is_open(open_attention(build("vit_b_32", 2)))
    True
    """
    opened = {
        path: made
        for path, module in model.named_modules()
        if (made := _opened(module)) is not None
    }
    if not opened:
        return model
    memo = attribute_memo(model)
    result = deep_copied(model, memo | {id(model.get_submodule(p)): m for p, m in opened.items()})
    for module in result.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # which only the fused kernel takes
    return result


def _opened(module: nn.Module) -> nn.Module | None:
    """What takes a module's place; None for what is no attention, or of another kind."""
    if type(module) is ShiftedWindowAttentionV2:
        return CosineWindowAttention(module)
    if type(module) is ShiftedWindowAttention:
        return WindowAttention(module)
    if type(module) is RelativePositionalMultiHeadAttention:
        return GridAttention(module)
    if type(module) is nn.MultiheadAttention and _is_plain(module):
        return HeadAttention(module)
    return None


def _is_plain(module: nn.MultiheadAttention) -> bool:
    return (
        "in_proj_weight" in dict(module.named_parameters(recurse=False))
        and module.bias_k is None
        and not module.add_zero_attn
    )


def _buffer(given: object) -> Tensor:
    assert isinstance(given, Tensor)
    return given


def _parameter(given: Tensor) -> nn.Parameter:
    return nn.Parameter(given.detach().clone().contiguous(), requires_grad=given.requires_grad)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with copies of these."""
    layer = nn.Linear(1, 1, bias=bias is not None, device="meta")
    layer.out_features, layer.in_features = weight.shape
    layer.weight = _parameter(weight)
    if bias is not None:
        layer.bias = _parameter(bias)
    return layer


def _shifted_mask(
    like: Tensor, windows: tuple[int, int], window: tuple[int, ...], shift: list[int]
) -> Tensor:
    """-100 (windows, places, places) between places that the shift has brought together."""
    region = like.new_zeros(windows[0] * window[0], windows[1] * window[1])
    count = 0
    for down in _bands(window[0], shift[0]):
        for across in _bands(window[1], shift[1]):
            region[down, across] = count
            count += 1
    region = region.view(windows[0], window[0], windows[1], window[1]).transpose(1, 2)
    region = region.reshape(windows[0] * windows[1], -1)
    apart = region[:, None] != region[:, :, None]
    return like.new_zeros(apart.shape).masked_fill(apart, -100.0)


def _bands(window: int, shift: int) -> tuple[slice, ...]:
    return slice(0, -window), slice(-window, -shift if shift else None), slice(-shift or None, None)
