"""What a layer multiplies its weights with, place by place: patches of its input, as rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.nets.layers import (
    LAYERS,
    TRANSPOSED,
    Convolution,
    Transposed,
    batched,
    channel_axis,
    groups_of,
)


def rows_of(layer: nn.Module, received: Tensor, output: Tensor, position: Tensor) -> Tensor:
    """The rows (positions * samples, inputs) that `layer` multiplied with its weights.

    `position` (samples, positions) are places in the flattened space of the output. Rows are
    ordered position by position, all samples at each: `positions` copies of the samples.
    Inputs are channels by kernel places, as the columns of `matrix`; a place outside the input, or
    between the strides of a transposed convolution, is zero. Grouped convolutions are not known
    here.

    >>> from secateurs.nets.layers import matrix
    >>> conv, x = nn.Conv2d(2, 3, 3, padding=1), torch.rand(4, 2, 5, 5)
    >>> rows = rows_of(conv, x, conv(x), torch.tensor([[0, 24]] * 4))
    >>> torch.allclose(rows[4] @ matrix(conv)[1] + conv.bias[1], conv(x)[0, 1, 4, 4])
    True
    """
    assert isinstance(layer, LAYERS) and groups_of(layer) == 1
    received, output = batched(layer, received), batched(layer, output)
    if isinstance(layer, nn.Linear):
        flat = by_place(layer, received)
        index = position[:, :, None].expand(-1, -1, flat.shape[-1])
        return flat.gather(1, index).transpose(0, 1).flatten(0, 1)
    inside = None
    if isinstance(layer, TRANSPOSED):
        place, inside = _touching(layer, received, output, position)
    else:
        received = _padded(layer, received)
        place = _under(layer, received, output, position)
    images, positions, kernel = place.shape
    flat = received.flatten(2)
    index = place.flatten(1)[:, None].expand(-1, flat.shape[1], -1)
    found = flat.gather(2, index).view(images, -1, positions, kernel)
    if inside is not None:
        found = found.where(inside[:, None], 0.0)
    return found.permute(2, 0, 1, 3).reshape(positions * images, -1)


def _under(layer: Convolution, padded: Tensor, output: Tensor, position: Tensor) -> Tensor:
    """Places (samples, positions, kernel) of the flattened padded input under the kernel."""
    place = torch.zeros_like(position)[..., None]
    for axis, start in enumerate(_coordinates(position, output.shape[2:])):
        reach = torch.arange(layer.kernel_size[axis], device=start.device) * layer.dilation[axis]
        along = (start * layer.stride[axis])[..., None] + reach
        place = (place[..., None] * padded.shape[2 + axis] + along[..., None, :]).flatten(2)
    return place


def _touching(
    layer: Transposed, received: Tensor, output: Tensor, position: Tensor
) -> tuple[Tensor, Tensor]:
    """Places (samples, positions, kernel) of the flattened input, and which of them there are.

    A place of the input touches with kernel place k the output at stride * place + dilation * k -
    padding. Output padding adds places at the end, which follow the same rule.
    """
    place = torch.zeros_like(position)[..., None]
    inside = torch.ones_like(place, dtype=torch.bool)
    for axis, reached in enumerate(_coordinates(position, output.shape[2:])):
        size, stride = received.shape[2 + axis], layer.stride[axis]
        kernel = torch.arange(layer.kernel_size[axis], device=reached.device)
        start = reached[..., None] + _number(layer.padding, axis) - kernel * layer.dilation[axis]
        along = start.div(stride, rounding_mode="floor")
        within = (start % stride == 0) & (along >= 0) & (along < size)
        along = along.clamp(0, size - 1)
        place = (place[..., None] * size + along[..., None, :]).flatten(2)
        inside = (inside[..., None] & within[..., None, :]).flatten(2)
    return place, inside


def _coordinates(position: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Places in a flattened space as coordinates along each of its axes."""
    found: list[Tensor] = []
    for size in reversed(sizes):
        found.append(position % size)
        position = position.div(size, rounding_mode="floor")
    return found[::-1]


def _padded(layer: Convolution, received: Tensor) -> Tensor:
    """What the kernel of a convolution runs over: the input with its borders, of any kind."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    around: list[int] = []  # from the last axis to the first, before and after
    for axis in reversed(range(len(layer.kernel_size))):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        if isinstance(layer.padding, str):
            missing = reach if layer.padding == "same" else 0
        else:
            missing = 2 * layer.padding[axis]
        around += [missing // 2, missing - missing // 2]
    return F.pad(received, around, mode)


def _number(padding: str | tuple[int, ...], axis: int) -> int:
    assert not isinstance(padding, str)  # a transposed convolution has none in words
    return padding[axis]


def outputs_at(layer: nn.Module, output: Tensor, position: Tensor) -> Tensor:
    """The outputs (positions * samples, outputs) at the same places, rows in the same order."""
    flat = by_place(layer, output)
    index = position[:, :, None].expand(-1, -1, flat.shape[-1])
    return flat.gather(1, index).transpose(0, 1).flatten(0, 1)


def by_place(layer: nn.Module, output: Tensor) -> Tensor:
    """A layer's output, or what a linear layer received, as (samples, places, outputs)."""
    output = batched(layer, output).movedim(channel_axis(layer), -1)
    return output.flatten(1, -2) if output.ndim > 2 else output[:, None]


def mean_rows(layer: nn.Module, received: Tensor, output: Tensor) -> Tensor | None:
    """The mean (samples, inputs) over all places of a sample of the rows of `rows_of`.

    None for transposed convolutions, where it is not known.

    >>> conv, x = nn.Conv2d(2, 3, 3, padding=1, stride=2), torch.rand(4, 2, 5, 5)
    >>> every_row = rows_of(conv, x, conv(x), torch.arange(9).expand(4, -1))
    >>> found = mean_rows(conv, x, conv(x))
    >>> torch.allclose(found, every_row.unflatten(0, (9, 4)).mean(0), atol=1e-6)
    True
    """
    assert isinstance(layer, LAYERS) and groups_of(layer) == 1
    received, output = batched(layer, received), batched(layer, output)
    if isinstance(layer, nn.Linear):
        return by_place(layer, received).mean(1)
    if isinstance(layer, TRANSPOSED):
        return None
    # One axis after the other, so that each value is read as often as the kernel is long.
    found = _padded(layer, received)
    for axis, size in reversed([*enumerate(output.shape[2:])]):
        stride, steps = layer.stride[axis], layer.dilation[axis]
        reach = (size - 1) * stride + 1
        along = found.movedim(2 + axis, -1)
        found = torch.stack(
            [
                along[..., k * steps : k * steps + reach : stride].mean(-1)
                for k in range(layer.kernel_size[axis])
            ],
            2 + axis,
        )
    return found.flatten(1)
