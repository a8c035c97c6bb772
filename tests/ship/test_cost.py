from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateurs.nets.backbones import build, weights_entry
from secateurs.nets.batches import blank_image
from secateurs.ship.cost import Cost, activation_bytes, cost, cost_sentence, macs, num_parameters
from secateurs.ship.latency import LatencyRow, Spread


def macs_by_hand(model: nn.Module, size: int) -> int:
    """Output positions times kernel volume, summed by hooks over a real forward pass."""
    total = 0

    def count(module: nn.Module, args: tuple[torch.Tensor], result: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            total += result.numel() * kernel * module.in_channels // module.groups
        else:
            total += result.numel() * module.in_features

    handles = [
        m.register_forward_hook(count)
        for m in model.modules()
        if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    return total


@pytest.mark.parametrize(
    "name", ["squeezenet1_1", "resnet18", "mobilenet_v2", "shufflenet_v2_x0_5"]
)
def test_macs_agree_with_a_count_by_hand(name: str) -> None:
    model = build(name, 5)
    for size in (64, 96):
        assert macs(model, blank_image(model, size)) == macs_by_hand(model, size)


@pytest.mark.parametrize("name", ["resnet18", "swin_t", "vit_b_32"])
def test_macs_are_those_torchvision_publishes(name: str) -> None:
    # With attention, too, whose products no layer's hook sees.
    with torch.device("meta"):
        model = build(name, 1000)
    published = weights_entry(name).meta
    assert macs(model, blank_image(model, 224)) / 1e9 == pytest.approx(published["_ops"], abs=6e-4)
    assert num_parameters(model) == published["num_params"]


def test_counting_leaves_the_model_alone() -> None:
    model = build("squeezenet1_1", 2).train()
    fused = torch.backends.mha.get_fastpath_enabled()
    assert cost(model, size=64, file_bytes=10).to_json() == {
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "macs": macs(model, blank_image(model, 64)),
        "activation_bytes": activation_bytes(model, size=64),
        "file_bytes": 10,
        "onnx_bytes": None,
    }
    assert model.training and not model._forward_hooks
    assert torch.backends.mha.get_fastpath_enabled() == fused


class Fork(nn.Module):
    """Holds on to the first of three results until the end."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 10, 1), nn.Conv2d(10, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.a(x)
        return self.c(self.b(first)) + first


@pytest.mark.parametrize(
    ("model", "floats"),
    [
        # The caller holds the image (3); at the widest the held result, its wide one, and the last.
        (Fork(), 3 + 4 + 10 + 4),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 1, 1)), 3 + 8 + 8),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 1, 1)), 3 + 8 + 1),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.Dropout(), nn.Identity()), 3 + 8),
    ],
)
def test_the_peak_of_what_is_alive_is_counted_by_hand(model: nn.Module, floats: int) -> None:
    assert activation_bytes(model.train(), size=5) == 4 * 25 * floats
    assert model.training


def a_row(
    before: float, after: float, runtime: str = "pytorch", batch: int = 1, wide: float = 0.0
) -> LatencyRow:
    def around(x: float) -> Spread:
        return Spread(x, x, x)

    ratio = after / before
    low, high = ratio * (1 - wide), ratio * (1 + wide)
    return LatencyRow(
        runtime, "cpu", batch, around(before), around(after), ratio, low, ratio, high, num_rounds=9
    )


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (5.0, "takes 50% of the time (10 ms before, 5 ms after)"),
        (9.69, "takes 97% of the time (10 ms before, 9.69 ms after)"),
        (9.71, "is not measurably faster (10 ms before, 9.71 ms after)"),
        (10.29, "is not measurably faster"),
        (10.31, "is slower (10 ms before, 10.3 ms after)"),
    ],
)
def test_the_sentence_says_when_it_did_not_get_faster(after: float, words: str) -> None:
    text = cost_sentence(Cost(100, 100), Cost(50, 90), [a_row(10.0, after)])
    assert f"With PyTorch on cpu at batch 1 it {words}" in text


def test_rounds_that_disagree_are_no_gain_and_no_loss() -> None:
    for after in (8.0, 12.0):
        text = cost_sentence(Cost(2, 2), Cost(1, 1), [a_row(10.0, after, wide=0.3)])
        assert "it is not measurably faster: the times vary too much (10 ms before" in text


def test_the_sentence_is_plain() -> None:
    rows = [a_row(9.0, 6.0), a_row(300.0, 301.0, "onnxruntime", 64)]
    text = cost_sentence(Cost(57_032_519, 710_000_000), Cost(4_100_000, 655_000_000), rows)
    assert text == (
        "Pruning left 7.2% of the parameters (57 M to 4.1 M) and 92% of the multiply-accumulates. "
        "With PyTorch on cpu at batch 1 it takes 67% of the time (9 ms before, 6 ms after). "
        "With ONNX Runtime on cpu at batch 64 it is not measurably faster "
        "(300 ms before, 301 ms after)."
    )


class Computes(nn.Module):
    """A layer, and something that multiplies besides."""

    def __init__(self, do: Callable[[Computes, torch.Tensor], torch.Tensor], **layers: nn.Module):
        super().__init__()
        self.do = do
        self.first = nn.Conv2d(3, 4, 1)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.do(self, self.first(x))


@pytest.mark.parametrize(
    ("do", "layers", "expected"),
    [
        (lambda s, x: x.flatten(2) @ x.new_ones(25), {}, 4 * 25),
        (lambda s, x: torch.dot(x[0, 0].flatten(), x[0, 1].flatten()), {}, 25),
        (lambda s, x: torch.addmv(x[0, :, 0, 0], x[0].flatten(1), x.new_ones(25)), {}, 4 * 25),
        (lambda s, x: torch.einsum("nchw,ndhw->ncd", x, x), {}, 4 * 4 * 25),
        (lambda s, x: x.flatten(2) @ x.flatten(2).mT, {}, 4 * 4 * 25),
        (
            lambda s, x: s.two(x.mean((2, 3)), x.mean((2, 3))),
            {"two": nn.Bilinear(4, 4, 7)},
            4 * 4 * 7,
        ),
        (lambda s, x: s.up(x), {"up": nn.ConvTranspose2d(4, 6, 4, 2, 1)}, 25 * 4 * 6 * 16),
        (lambda s, x: s.flat(x.flatten(2)), {"flat": nn.Conv1d(4, 6, 3, groups=2)}, 23 * 6 * 2 * 3),
        (lambda s, x: s.deep(x[:, None]), {"deep": nn.Conv3d(1, 2, 3)}, 2 * 3 * 3 * 2 * 27),
        (lambda s, x: s.rnn(x.flatten(2).mT)[0], {"rnn": nn.GRU(4, 5)}, 25 * 3 * 5 * (4 + 5)),
        (lambda s, x: F.conv2d(x, x.new_ones(2, 4, 3, 3)), {}, 9 * 2 * 4 * 9),
        (lambda s, x: F.scaled_dot_product_attention(*[x.flatten(2).mT] * 3), {}, 2 * 25 * 25 * 4),
        (lambda s, x: torch.cdist(x.flatten(2), x.flatten(2)), {}, 4 * 4 * 25),
    ],
)
def test_whatever_multiplies_is_counted(do, layers: dict[str, nn.Module], expected: int) -> None:
    assert macs(Computes(do, **layers), torch.empty(1, 3, 5, 5)) == 25 * 3 * 4 + expected
