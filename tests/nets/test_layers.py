"""The forms of layers, against impulses sent through them and counts of their multiplications."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateurs.nets.counting import macs
from secateurs.nets.layers import (
    LAYERS,
    TRANSPOSED,
    batched,
    channel_axis,
    cut_axes,
    gone_places,
    groups_of,
    inputs_of,
    kernel_of,
    matrix,
    row_length,
    set_layer_widths,
    weight_axes,
    width_of,
    write_matrix,
)

KERNELS = [(3,), (3, 2), (2, 3, 1)]


def layers(groups: int = 1) -> list[nn.Module]:
    """One of every form, of 4 inputs and 6 outputs, in float64."""
    made: list[nn.Module] = [] if groups > 1 else [nn.Linear(4, 6)]
    for cls in LAYERS[1:]:
        kernel: Any = KERNELS[int(cls.__name__[-2]) - 1]
        made.append(cls(4, 6, kernel, groups=groups))
    return [layer.double() for layer in made]


EVERY = layers() + layers(groups=2)


def names(layer: nn.Module) -> str:
    return f"{type(layer).__name__} in {groups_of(layer)} groups"


def without_bias(layer: nn.Module, x: Tensor) -> Tensor:
    layer = copy.deepcopy(layer)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer(x).detach()


@pytest.mark.parametrize("layer", EVERY, ids=names)
def test_the_matrix_has_the_answers_to_impulses(layer: nn.Module):
    """Of one input at one place: the answers are the weights that it is multiplied with."""
    kernel, groups = kernel_of(layer), groups_of(layer)
    inputs = inputs_of(layer) // groups  # of a group
    expected = torch.zeros(width_of(layer), inputs, math.prod(kernel), dtype=torch.float64)
    for group in range(groups):
        own = slice(group * width_of(layer) // groups, (group + 1) * width_of(layer) // groups)
        for channel in range(inputs):
            for place in range(math.prod(kernel)):
                impulse = torch.zeros(inputs_of(layer), math.prod(kernel), dtype=torch.float64)
                if isinstance(layer, TRANSPOSED):  # one place gives the whole kernel
                    impulse = impulse[:, :1]
                    impulse[group * inputs + channel] = 1
                    answer = without_bias(layer, impulse.view(1, -1, *[1] * len(kernel)))
                    expected[own, channel] = answer[0].flatten(1)[own]
                else:  # the kernel fits once
                    impulse[group * inputs + channel, place] = 1
                    answer = without_bias(layer, impulse.view(1, -1, *kernel))
                    expected[own, channel, place] = answer[0].flatten()[own]
    torch.testing.assert_close(matrix(layer).detach(), expected.flatten(1))
    assert matrix(layer).shape == (width_of(layer), row_length(layer))


@pytest.mark.parametrize("layer", EVERY, ids=names)
def test_a_matrix_is_read_as_it_was_written(layer: nn.Module):
    changed = copy.deepcopy(layer)
    values = torch.randn_like(matrix(layer))
    write_matrix(changed, values)
    assert torch.equal(matrix(changed), values)
    write_matrix(changed, matrix(layer))
    assert all(map(torch.equal, changed.parameters(), layer.parameters()))


@pytest.mark.parametrize("layer", EVERY, ids=names)
def test_channels_are_where_the_axes_say(layer: nn.Module):
    outer, inner = weight_axes(layer)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    of_group = (weight.shape[outer], weight.shape[inner])
    if groups_of(layer) == 1:
        assert of_group == (width_of(layer), inputs_of(layer)) == (6, 4)
    size = [4, *[4, 5, 6][: len(kernel_of(layer))]] if kernel_of(layer) else [7, 4]
    x = torch.randn(2, *size, dtype=torch.float64)
    output = layer(x)
    assert x.shape[channel_axis(layer)] == 4 and output.shape[channel_axis(layer)] == 6
    assert batched(layer, output) is output
    if kernel_of(layer):  # a signal without an axis for samples
        torch.testing.assert_close(layer(batched(layer, x[0])), batched(layer, layer(x[0])))


@pytest.mark.parametrize("layer", EVERY, ids=names)
def test_a_layer_without_some_channels_gives_what_it_gave(layer: nn.Module):
    groups = groups_of(layer)
    made, read = torch.tensor([1, 4]), torch.tensor([0, 3])
    gone = (made, read)
    if groups > 1:  # its second group, which is known by the outputs
        made, read, gone = torch.arange(3, 6), torch.arange(2, 4), (torch.arange(3, 6), None)
    cut = copy.deepcopy(layer)
    for name, tensor in layer.named_parameters():
        values = tensor.detach()
        for axis, places in gone_places(layer, tensor.detach(), *gone):
            assert axis in cut_axes(layer, tensor)
            stays = [k for k in range(values.shape[axis]) if k not in places.tolist()]
            values = values.index_select(axis, torch.tensor(stays))
        setattr(cut, name, nn.Parameter(values))
    set_layer_widths(cut)
    assert (width_of(cut), inputs_of(cut)) == (6 - len(made), 4 - len(read))
    assert groups_of(cut) == (1 if groups == 1 else groups - 1)
    axis = channel_axis(layer)
    size = [4, *[5] * len(kernel_of(layer))] if kernel_of(layer) else [7, 4]
    x = torch.randn(2, *size, dtype=torch.float64).index_fill(axis, read, 0.0)
    stay = [
        torch.tensor([k for k in range(n) if k not in g.tolist()])
        for n, g in ((6, made), (4, read))
    ]
    expected = layer(x).index_select(axis, stay[0])
    torch.testing.assert_close(cut(x.index_select(axis, stay[1])), expected)


def test_other_modules_lose_channels_along_their_first_axis():
    norm = nn.BatchNorm2d(4)
    gone = torch.tensor([1])
    assert gone_places(norm, norm.weight, gone, None) == [(0, gone)]
    assert norm.num_batches_tracked is not None
    assert gone_places(norm, norm.num_batches_tracked, gone, None) == []


@pytest.mark.parametrize("cls", LAYERS[1:], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_multiplications_are_those_counted_one_by_one(cls: type[nn.Module], groups: int):
    """Each output of each place of the kernel that lies within what the kernel runs over."""
    axes = int(cls.__name__[-2])
    words: dict[str, Any] = {"stride": 2, "padding": 1, "dilation": 1, "groups": groups}
    layer = cls(4, 8, 3, **words)  # type: ignore[call-arg]
    size = [5, 4, 3][:axes]
    x = torch.zeros(1, 4, *size)
    # A transposed convolution multiplies each value that it receives, others make each they give.
    places = x[0, 0] if isinstance(layer, TRANSPOSED) else layer(x)[0, 0]
    counted = 0
    for _ in range(places.numel()):
        for output in range(8):
            for given in range(4):
                counted += 3**axes if output * groups // 8 == given * groups // 4 else 0
    assert macs(layer, x) == counted
