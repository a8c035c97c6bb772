from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateurs.nets.strided import safe_strides


@pytest.mark.parametrize(("channels", "stride"), [(3, 2), (8, (2, 1)), (15, 3), (2, 2)])
def test_results_and_gradients_are_those_of_the_convolution(channels: int, stride: object) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(channels, 6, 1, stride=stride)
    x = torch.rand(2, channels, 7, 9, requires_grad=True)
    expected = F.conv2d(x, layer.weight, layer.bias, layer.stride)
    wanted = torch.autograd.grad(expected.square().sum(), [x, layer.weight])
    before = dict(vars(layer))
    with safe_strides(nn.Sequential(layer)):
        assert layer.stride == (1, 1)
        found = layer(x)
        given = torch.autograd.grad(found.square().sum(), [x, layer.weight])
    assert torch.allclose(found, expected, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(given, wanted, strict=True))
    assert layer.stride == before["stride"] and not layer._forward_pre_hooks


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 4, 1, stride=2),
        nn.Conv2d(1, 4, 1, stride=2),
        nn.Conv2d(3, 4, 1),
        nn.Conv2d(3, 4, 3, stride=2),
        nn.Conv2d(3, 4, 1, stride=2, padding=1),
        nn.Conv1d(3, 4, 1, stride=2),
    ],
)
def test_other_convolutions_run_as_they_are(layer: nn.Conv2d) -> None:
    stride = layer.stride
    with safe_strides(layer):
        assert layer.stride == stride and not layer._forward_pre_hooks


def test_the_model_is_restored_after_an_error() -> None:
    layer = nn.Conv2d(3, 4, 1, stride=2)
    with pytest.raises(ZeroDivisionError), safe_strides(layer):
        raise ZeroDivisionError
    assert layer.stride == (2, 2) and not layer._forward_pre_hooks


def test_a_process_that_would_die_lives() -> None:
    code = (
        "import torch; from torch import nn; from secateurs.nets.strided import safe_strides;"
        "torch.manual_seed(0);"
        "layer = nn.Conv2d(3, 48, 1, stride=2, bias=False).to(memory_format=torch.channels_last);"
        "x = torch.rand(3, 3, 96, 96).contiguous(memory_format=torch.channels_last)\n"
        "for _ in range(20):\n"
        "    with safe_strides(layer):\n"
        "        layer(x).square().mean().backward()\n"
        "print('lives')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "lives"
