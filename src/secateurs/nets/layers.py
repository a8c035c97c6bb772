"""The layers with weights: linear, convolutions and transposed convolutions, and their forms.

Every other module asks this one where a layer has its outputs, its inputs and its channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
Layer = nn.Linear | Convolution | Transposed


def width_of(layer: nn.Module) -> int:
    """The outputs of a layer.

    >>> width_of(nn.ConvTranspose1d(6, 4, 3, groups=2))
    4
    """
    assert isinstance(layer, LAYERS)
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def inputs_of(layer: nn.Module) -> int:
    """The channels that a layer reads, of all of its groups.

    >>> inputs_of(nn.Conv1d(6, 4, 3, groups=2))
    6
    """
    assert isinstance(layer, LAYERS)
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def groups_of(layer: nn.Module) -> int:
    """The groups of a layer's channels: 1 unless it is a grouped or depthwise convolution.

    >>> groups_of(nn.Linear(3, 4)), groups_of(nn.Conv1d(4, 4, 3, groups=4))
    (1, 4)
    """
    assert isinstance(layer, LAYERS)
    return 1 if isinstance(layer, nn.Linear) else layer.groups


def kernel_of(layer: nn.Module) -> tuple[int, ...]:
    """The size of a layer's kernel along each of its dimensions; () for a linear layer.

    >>> kernel_of(nn.Conv2d(3, 8, (5, 3))), kernel_of(nn.Linear(3, 8))
    ((5, 3), ())
    """
    assert isinstance(layer, LAYERS)
    return () if isinstance(layer, nn.Linear) else tuple(layer.kernel_size)


def row_length(layer: nn.Module) -> int:
    """How many values an output is the weighted sum of: inputs of its group by kernel places.

    >>> row_length(nn.Conv2d(6, 4, 3, groups=2))
    27
    """
    return inputs_of(layer) // groups_of(layer) * math.prod(kernel_of(layer))


def weight_axes(layer: nn.Module) -> tuple[int, int]:
    """The axes of a layer's weight along which its outputs and its inputs are.

    With groups one of the two axes has the channels of one group only: the inputs (axis 1) of a
    convolution, whose weight is (outputs, inputs / groups, ...), the outputs (axis 1) of a
    transposed one, whose weight is (inputs, outputs / groups, ...).

    >>> weight_axes(nn.Conv3d(2, 4, 1)), weight_axes(nn.ConvTranspose3d(2, 4, 1))
    ((0, 1), (1, 0))
    """
    return (1, 0) if isinstance(layer, TRANSPOSED) else (0, 1)


def channel_axis(layer: nn.Module) -> int:
    """The axis of the channels in what a layer receives and gives, counted from the end.

    >>> channel_axis(nn.Linear(3, 4)), channel_axis(nn.Conv2d(3, 4, 1))
    (-1, -3)
    """
    return -1 - len(kernel_of(layer))


def batched(layer: nn.Module, tensor: Tensor) -> Tensor:
    """What a layer receives or gives, with an axis for samples where it has none.

    >>> batched(nn.Conv1d(3, 4, 1), torch.zeros(3, 9)).shape
    torch.Size([1, 3, 9])
    """
    return tensor[None] if tensor.ndim == -channel_axis(layer) else tensor


def matrix(layer: nn.Module) -> Tensor:
    """A layer's weight as (outputs, inputs * kernel places), see `row_length`.

    Columns go input by input, the kernel's places within. Of a grouped convolution the inputs of an
    output are those of its group.

    >>> matrix(nn.ConvTranspose2d(2, 4, 3)).shape
    torch.Size([4, 18])
    """
    assert isinstance(layer, LAYERS)
    weight = layer.weight
    if isinstance(layer, TRANSPOSED):
        grouped = weight.unflatten(0, (layer.groups, -1))  # (groups, inputs, outputs, ...)
        weight = grouped.transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)


@torch.no_grad()
def write_matrix(layer: nn.Module, values: Tensor) -> None:
    """Write (outputs, inputs * kernel places) into a layer's weight, as `matrix` orders them.

    >>> layer = nn.ConvTranspose1d(2, 4, 3)
    >>> write_matrix(layer, torch.arange(24.0).view(4, 6))
    >>> layer.weight[1, 0].tolist()  # of the first output what multiplies the second input
    [3.0, 4.0, 5.0]
    """
    assert isinstance(layer, LAYERS)
    if isinstance(layer, TRANSPOSED):
        shape = (layer.groups, -1, layer.in_channels // layer.groups, *layer.kernel_size)
        values = values.reshape(shape).transpose(1, 2)  # (groups, inputs, outputs, ...)
    layer.weight.copy_(values.reshape(layer.weight.shape))


def cut_axes(layer: nn.Module, tensor: Tensor) -> tuple[int | None, int | None]:
    """The axes along which one of a layer's tensors is cut with its outputs, and with its inputs.

    What has the shape of the weight is cut as the weight, anything else along its first axis with
    the outputs. A grouped convolution loses whole groups, which is along the first axis of its
    weight; of a transposed one those are the inputs of the groups.

    >>> layer = nn.ConvTranspose1d(4, 6, 3)
    >>> cut_axes(layer, layer.weight), cut_axes(layer, layer.bias)
    ((1, 0), (0, None))
    """
    if not tensor.ndim:
        return None, None
    weighted = isinstance(layer, LAYERS) and tensor.shape == layer.weight.shape
    return weight_axes(layer) if weighted and groups_of(layer) == 1 else (0, None)


def gone_places(
    layer: nn.Module, tensor: Tensor, made: Tensor | None, read: Tensor | None
) -> list[tuple[int, Tensor]]:
    """The places of one of a layer's tensors that go with some of its channels, axis by axis.

    `made` are outputs that go, `read` inputs; see `cut_axes`.

    >>> layer = nn.ConvTranspose1d(4, 6, 3, groups=2)
    >>> gone_places(layer, layer.weight, torch.arange(3, 6), None)
    [(0, tensor([2, 3]))]
    """
    outer, inner = cut_axes(layer, tensor)
    if isinstance(layer, TRANSPOSED) and layer.groups > 1 and tensor.shape == layer.weight.shape:
        made = None if made is None else _inputs_beside(layer, made)
    places = [(outer, made), (inner, read)]
    return [(axis, gone) for axis, gone in places if axis is not None and gone is not None]


def _inputs_beside(layer: Transposed, made: Tensor) -> Tensor:
    """The inputs of the groups of some outputs."""
    groups = made.div(layer.out_channels // layer.groups, rounding_mode="floor").unique()
    each = layer.in_channels // layer.groups
    return (groups[:, None] * each + torch.arange(each, device=groups.device)).flatten()


def set_layer_widths(layer: nn.Module) -> None:
    """Set a layer's own record of its widths to what its weight has.

    Of a grouped convolution whole groups have gone, so that each still has its number of outputs.

    >>> layer = nn.ConvTranspose1d(4, 6, 3, groups=2)
    >>> layer.weight = nn.Parameter(layer.weight[:2].detach())
    >>> set_layer_widths(layer)
    >>> layer.in_channels, layer.out_channels, layer.groups
    (2, 3, 1)
    """
    assert isinstance(layer, LAYERS)
    outer, inner = weight_axes(layer)
    outputs, inputs = layer.weight.shape[outer], layer.weight.shape[inner]
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = outputs, inputs
        return
    if layer.groups > 1:
        before = layer.in_channels if isinstance(layer, TRANSPOSED) else layer.out_channels
        layer.groups = len(layer.weight) * layer.groups // before
    transposed = isinstance(layer, TRANSPOSED)
    layer.out_channels = outputs * (layer.groups if transposed else 1)
    layer.in_channels = inputs * (1 if transposed else layer.groups)
