from __future__ import annotations

from typing import Any

import pytest
import torch
from onnx import helper
from torch.nn import functional

from secateurs.ship.int8.layer_moments import LayerShape, Moments


def convolution(**attributes: Any) -> Any:
    return helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)


@pytest.mark.parametrize(
    ("shape", "attributes", "options"),
    [
        ((6, 4, 3, 3), {"pads": [1, 1, 1, 1]}, {"padding": 1}),
        ((6, 2, 3, 3), {"group": 2, "strides": [2, 2]}, {"groups": 2, "stride": 2}),
        ((8, 1, 3, 1), {"group": 4, "dilations": [2, 1]}, {"groups": 4, "dilation": (2, 1)}),
    ],
)
def test_samples_times_the_weight_are_the_convolution(
    shape: tuple[int, ...], attributes: dict[str, Any], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    weight, inputs = torch.randn(shape), torch.randn(2, 4, 9, 7)
    outputs = functional.conv2d(inputs, weight, **options)
    layer = LayerShape.of(convolution(**attributes), shape)
    assert layer is not None
    picked = torch.randperm(outputs[0, 0].numel())[:11]
    x, y = layer.samples(inputs, outputs, picked)
    rows = layer.rows_of(weight)
    torch.testing.assert_close(x @ rows.transpose(1, 2), y, atol=1e-5, rtol=1e-5)
    assert y.shape == (layer.groups, 22, shape[0] // layer.groups)
    assert torch.equal(layer.weight_of(rows, weight), weight)


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_linear_layer_s_weight_stands_either_way(transposed: int) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=transposed)
    layer = LayerShape.of(node, (2, 3))
    assert layer is not None
    rows = layer.rows_of(weight)
    assert torch.equal(rows[0], weight if transposed else weight.T)
    assert torch.equal(layer.weight_of(rows, weight), weight)


def test_what_is_not_handled_is_left_alone() -> None:
    assert LayerShape.of(convolution(), (4, 3, 3)) is None  # along one axis
    assert LayerShape.of(convolution(auto_pad="SAME_UPPER"), (4, 3, 3, 3)) is None
    assert LayerShape.of(helper.make_node("Gemm", ["x", "w"], ["y"], alpha=2.0), (4, 3)) is None


@pytest.mark.parametrize("centred", [True, False])
def test_moments_and_error_are_those_of_all_samples(centred: bool) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(5, 3).double() + 1, torch.randn(4, 3).double() + 1]
    outputs = [torch.randn(len(one), 2).double() for one in inputs]
    layer = LayerShape("Gemm", 1, (), (), (), (), transposed=False)
    found = Moments.of(
        layer,
        [one.numpy() for one in inputs],
        [one.numpy() for one in outputs],
        centred=centred,
        generator=torch.Generator().manual_seed(0),
    )
    x, y = torch.cat(inputs), torch.cat(outputs)
    if centred:
        torch.testing.assert_close(found.xx[0], torch.cov(x.T, correction=0))
        torch.testing.assert_close(found.y[0], y.mean(0))
    weight, bias = torch.randn(1, 2, 3).double(), torch.randn(1, 2).double()
    answer = x @ weight[0].T + (bias if centred else 0)
    spread = y - y.mean(0) if centred else y
    expected = (answer - y).square().sum() / spread.square().sum()
    error = found.relative_error(weight, bias if centred else None)
    assert error == pytest.approx(float(expected))
