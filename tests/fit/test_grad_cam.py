"""Grad-CAM against its formula written out, a place that decides, and torchcam where installed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.fit.grad_cam import grad_cam, last_maps
from secateurs.nets.backbones import build


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture
def small() -> Small:
    torch.manual_seed(0)
    return Small()


def test_it_is_the_formula_written_out(small: Small):
    images, classes = torch.randn(2, 3, 6, 6), torch.tensor([2, 0])
    found = grad_cam(small, "conv", images, classes)
    with torch.no_grad():
        maps = small.conv(images)
    for n in range(2):
        weights = []
        for k in range(5):
            # d logit / d map at a position: the head's weight over the positions, where ReLU is on.
            slope = (maps[n, k] > 0).float() * small.head.weight[classes[n], k].detach() / 36
            weights.append(slope.mean())
        expected = sum(w * maps[n, k] for k, w in enumerate(weights))
        assert isinstance(expected, Tensor)
        expected = expected.clamp(min=0)
        torch.testing.assert_close(found[n], expected / expected.max())


def test_the_model_keeps_its_modes_and_gets_no_gradient(small: Small):
    small.train()
    grad_cam(small, "relu", torch.randn(1, 3, 6, 6), torch.tensor([1]))
    assert small.training
    assert small.conv.training
    assert all(parameter.grad is None for parameter in small.parameters())
    again = grad_cam(small, "conv", torch.randn(1, 3, 6, 6), torch.tensor([1]))
    assert not again.requires_grad


def test_the_place_that_decides_is_bright(small: Small):
    with torch.no_grad():
        small.conv.weight.zero_()
        small.conv.bias.zero_()  # type: ignore[union-attr]
        small.conv.weight[0, 0, 1, 1] = 1
        small.head.weight.zero_()
        small.head.weight[1, 0] = 1
    images = torch.zeros(1, 3, 8, 8)
    images[0, 0, 2, 5] = 4
    found = grad_cam(small, "relu", images, torch.tensor([1]))
    assert found[0, 2, 5] == 1
    assert found.sum() == 1
    assert grad_cam(small, "relu", images, torch.tensor([2])).sum() == 0


def test_it_is_what_torchcam_gives():
    methods = pytest.importorskip("torchcam.methods")
    torch.manual_seed(0)
    model = build("mobilenet_v3_small", 4).eval()
    images, classes = torch.randn(3, 3, 64, 64), [1, 0, 3]
    with methods.GradCAM(model, "features.12") as extractor:
        [maps] = extractor(classes, model(images))
    found = grad_cam(model, "features.12", images, torch.tensor(classes))
    expected = maps / maps.amax((1, 2), keepdim=True)
    sized = torch.nn.functional.interpolate(expected[:, None], (64, 64), mode="bilinear")[:, 0]
    torch.testing.assert_close(found, sized, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "path"),
    [("mobilenet_v3_small", "features.12"), ("squeezenet1_1", "classifier.2")],
)
def test_the_last_module_with_positions_is_found(name: str, path: str):
    assert last_maps(build(name, 3), size=64).startswith(path)


def test_networks_without_positions_are_named():
    with pytest.raises(InputError, match="no layer of the network has maps of positions"):
        last_maps(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), size=8)
