from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.nets.layers import TRANSPOSED, kernel_of, matrix
from secateurs.prune.statistics.patches import (
    count_runs,
    fewest_positions,
    outputs_at,
    rows_of,
    visit_rows,
)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 5, 3),
        nn.Conv2d(3, 5, 3, padding=1, bias=False),
        nn.Conv2d(3, 5, (5, 2), padding=(2, 1), stride=(3, 2)),
        nn.Conv2d(3, 5, (2, 3), dilation=(3, 2), padding=(0, 3)),
        nn.Conv2d(3, 5, 1, stride=2),
    ],
)
def test_rows_times_weights_are_the_outputs(conv: nn.Conv2d):
    x = torch.randn(4, 3, 11, 9)
    output = conv(x).detach()
    total = output.shape[-1] * output.shape[-2]
    position = torch.stack([torch.randperm(total)[:6] for _ in range(4)])
    rows = rows_of(conv, x, output, position)
    made = rows @ conv.weight.detach().flatten(1).T
    if conv.bias is not None:
        made += conv.bias.detach()
    torch.testing.assert_close(made, outputs_at(conv, output, position))
    # Position by position, all images at each.
    across = output.shape[-1]
    row, column = divmod(int(position[2, 5]), across)
    torch.testing.assert_close(made[5 * 4 + 2], output[2, :, row, column])


FORMS: list[nn.Module] = [
    nn.Conv1d(3, 5, 4, stride=2, padding=1),
    nn.Conv1d(3, 5, 3, padding="same", dilation=2, bias=False),
    nn.Conv1d(3, 5, 3, padding=2, padding_mode="circular"),
    nn.Conv3d(3, 5, (2, 3, 1), stride=(1, 2, 3), padding=(1, 0, 2), dilation=(2, 1, 1)),
    nn.Conv3d(3, 5, 3, padding="same", padding_mode="replicate"),
    nn.ConvTranspose1d(3, 5, 3),
    nn.ConvTranspose1d(3, 5, 4, stride=3, padding=2, output_padding=2, dilation=2),
    nn.ConvTranspose2d(3, 5, 2, stride=2),
    nn.ConvTranspose2d(3, 5, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2)),
    nn.ConvTranspose2d(3, 5, 3, stride=(1, 2), dilation=(2, 3), padding=2, bias=False),
    nn.ConvTranspose3d(
        3, 5, (1, 2, 3), stride=(3, 1, 2), padding=(0, 1, 1), output_padding=(2, 0, 1)
    ),
]


def received_by(layer: nn.Module, num: int) -> Tensor:
    return torch.randn(num, 3, *[7, 5, 6][: len(kernel_of(layer))], dtype=torch.float64)


@pytest.mark.parametrize("layer", FORMS, ids=str)
def test_rows_of_every_form_times_its_matrix_are_the_outputs(layer: nn.Module):
    layer = copy.deepcopy(layer).double()
    x = received_by(layer, 4)
    output = layer(x).detach()
    total = output[0, 0].numel()
    position = torch.stack([torch.randperm(total)[:3] for _ in range(4)])
    rows = rows_of(layer, x, output, position)
    made = rows @ matrix(layer).detach().T
    bias = dict(layer.named_parameters()).get("bias")
    if bias is not None:
        made += bias.detach()
    torch.testing.assert_close(made, outputs_at(layer, output, position))
    torch.testing.assert_close(made[2 * 4 + 1], output[1].flatten(1)[:, position[1, 2]])


def test_rows_of_a_convolution_are_what_unfold_gives():
    layer = nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2))
    x = torch.randn(4, 3, 9, 8)
    words = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
    unfolded = F.unfold(x, (3, 2), **words)  # (samples, inputs * kernel, places)
    output = layer(x).detach()
    every = torch.arange(output[0, 0].numel()).expand(4, -1)
    assert torch.equal(rows_of(layer, x, output, every), unfolded.permute(2, 0, 1).flatten(0, 1))


@pytest.mark.parametrize("layer", [form for form in FORMS if isinstance(form, TRANSPOSED)], ids=str)
def test_rows_of_a_transposed_convolution_are_those_over_its_zero_filled_input(layer: Any):
    """Each value of the input at stride times its place, zeros between and around."""
    x, kernel = received_by(layer, 2), layer.kernel_size
    axes = range(len(kernel))
    filled = torch.zeros(2, 3, *((x.shape[2 + a] - 1) * layer.stride[a] + 1 for a in axes)).double()
    filled[(..., *(slice(None, None, layer.stride[a]) for a in axes))] = x
    reach = [layer.dilation[a] * (kernel[a] - 1) - layer.padding[a] for a in axes]
    around = [n for a in reversed(axes) for n in (reach[a], reach[a] + layer.output_padding[a])]
    equal: Any = getattr(nn, f"Conv{len(kernel)}d")(3, 5, kernel, dilation=layer.dilation).double()
    padded = F.pad(filled, around)
    output = equal(padded).detach()
    every = torch.arange(output[0, 0].numel()).expand(2, -1)
    flipped = rows_of(equal, padded, output, every).unflatten(1, (3, -1)).flip(2).flatten(1)
    given = copy.deepcopy(layer).double()
    assert torch.equal(rows_of(given, x, given(x).detach(), every), flipped)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(3, 5),
        nn.Conv1d(3, 5, 3),
        nn.Conv2d(3, 5, 2),
        nn.ConvTranspose3d(3, 5, 2, stride=2),
    ],
    ids=str,
)
def test_a_signal_without_an_axis_for_samples_is_one_sample(layer: nn.Module):
    x = torch.randn(3, *[4, 5, 6][: len(kernel_of(layer))])

    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x[0])

    ((_, rows, outputs, num),) = collected(Alone(), {"layer": 1000}, [x[None]])
    ((_, other, same, _),) = collected(layer, {"": 1000}, [x[None]])
    assert num == 1
    torch.testing.assert_close(rows, other)
    torch.testing.assert_close(outputs, same)


@pytest.mark.parametrize("shape", [(6,), (7, 6), (2, 3, 6)])
def test_rows_of_a_linear_layer_are_its_tokens(shape: tuple[int, ...]):
    layer, x = nn.Linear(6, 4), torch.randn(5, *shape)
    output = layer(x).detach()
    tokens = output[0].numel() // 4
    position = torch.arange(tokens).flip(0).expand(5, -1)
    made = rows_of(layer, x, output, position) @ layer.weight.detach().T + layer.bias.detach()
    torch.testing.assert_close(made, outputs_at(layer, output, position))
    torch.testing.assert_close(made[1], output.reshape(5, -1, 4)[1, -1])


class Watched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.reached = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x))
        self.reached += 1
        return self.third(x)


def collected(model: nn.Module, layers: dict[str, int], batches: list[Tensor], **words: object):
    found: list[tuple[str, Tensor, Tensor, int]] = []
    visit_rows(model, layers, batches, lambda *seen: found.append(seen), **words)  # type: ignore[arg-type]
    return found


def test_batches_run_no_further_than_the_last_layer():
    model = Watched().train()
    counted: list[int] = []
    batches = [torch.randn(2, 3, 4, 4), torch.randn(1, 3, 4, 4)]
    found = collected(model, {"second": 3, "first": 100}, batches, advance=counted.append)
    assert model.reached == 0 and counted == [2, 1]
    assert [(path, len(rows), images) for path, rows, _, images in found] == [
        ("first", 32, 2),
        ("second", 6, 2),
        ("first", 16, 1),
        ("second", 3, 1),
    ]
    assert model.training and not any(m._forward_hooks for m in model.modules())
    assert not found[0][1].requires_grad


def test_the_same_places_are_looked_at_again_and_in_other_networks():
    batches = [torch.randn(3, 3, 6, 6)]
    model, other = Watched(), Watched()
    other.load_state_dict(model.state_dict())
    first = collected(model, {"second": 5}, batches, seed=4)[0]
    again = collected(other, {"second": 5}, batches, seed=4)[0]
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], collected(model, {"second": 5}, batches, seed=5)[0][1])
    # Another layer, at the places of the second.
    drawn = collected(model, {"third": 5}, batches, seed=4, drawn_as={"third": "second"})[0]
    torch.testing.assert_close(drawn[1], first[2])


def test_a_layer_that_does_not_run_or_runs_twice_is_told():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(self.used(x))

    with pytest.raises(InputError, match="layer used runs more often for some samples"):
        collected(Odd(), {"used": 1, "idle": 1}, [torch.randn(2, 4)])
    with pytest.raises(InputError, match="layer idle does not run"):
        collected(Odd(), {"idle": 1}, [torch.randn(2, 4)])
    assert count_runs(Odd(), ["used", "idle"], [torch.randn(2, 4)]) == {"used": [2], "idle": [0]}


def test_rows_of_a_layer_that_runs_twice_come_together():
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 4), torch.randn(3, 5, 4)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    found: list[tuple[Tensor, Tensor, int]] = []
    visit_rows(model, {"0": 9}, [x], lambda _, *seen: found.append(seen), repeats={"0": 2})
    ((rows, outputs, images),) = found
    with torch.no_grad():
        second = layer(x).tanh()
        expected = torch.cat([part.transpose(0, 1).flatten(0, 1) for part in (x, second)])
        torch.testing.assert_close(rows, expected)
        torch.testing.assert_close(outputs, layer(expected))
    assert images == 3
    with pytest.raises(InputError, match="layer 0 runs more often for some samples"):
        visit_rows(model, {"0": 9}, [x], lambda *_: None, repeats={"0": 3})


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    "words",
    [
        {"padding": "same", "kernel_size": (4, 3)},
        {"padding": "same", "kernel_size": 3, "dilation": (1, 2)},
        {"padding": "valid", "kernel_size": 3, "stride": 2},
        {"padding": (1, 2), "kernel_size": (3, 5), "stride": (2, 1)},
    ],
)
def test_patches_with_borders_of_any_kind(mode: str, words: dict[str, Any]):
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, padding_mode=mode, **words)
    x = torch.randn(4, 2, 7, 9)
    output = layer(x)
    every = torch.arange(output[0, 0].numel()).expand(4, -1)
    rows = rows_of(layer, x, output, every)
    expected = rows @ layer.weight.flatten(1).T + layer.bias
    torch.testing.assert_close(expected, outputs_at(layer, output, every), rtol=1e-4, atol=1e-5)


def test_the_fewest_positions_over_samples_of_several_sizes():
    model = Watched()
    batches = [torch.randn(2, 3, 4, 4), torch.randn(1, 3, 2, 7), torch.randn(3, 3, 5, 5)]
    assert fewest_positions(model, ["first", "third"], batches) == {"first": 14, "third": 14}
    assert fewest_positions(model, ["first"], batches[:1] * 2) == {}
