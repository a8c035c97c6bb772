"""A network that a format cannot hold: one line with the operator and its layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.extras import installed
from secateurs.ship.lacking import cannot_hold, first_line
from secateurs.ship.spec import ImageInput, ModelSpec
from secateurs.ship.targets.formats import target_of

IMAGE = ImageInput(32, "straight", (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))


class Airy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.airy_ai(x)


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if bool(x.sum() > 0) else x


def network(odd: nn.Module) -> nn.Module:
    layers: Sequence[nn.Module] = (nn.Conv2d(3, 4, 3), odd, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(4, 3)).eval()


@pytest.mark.parametrize("ending", [".onnx", ".xml", ".pte"])
def test_the_operator_that_a_format_lacks_and_its_layer_are_named(tmp_path: Path, ending: str):
    path = tmp_path / f"odd{ending}"
    target = target_of(path)
    if target.EXTRA is not None and not installed(target.EXTRA):
        pytest.skip(f"needs {target.EXTRA}")
    spec = ModelSpec("alexnet", ("a", "b", "c"), IMAGE)
    with pytest.raises(InputError) as refused:
        target.write(network(Airy()), spec, path, torch.rand(2, 3, 32, 32))
    assert str(refused.value) == (
        f"{path}: {target.NAME} cannot hold this model "
        "(operator special_airy_ai, in layer 1 (Airy))"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
def test_control_flow_that_depends_on_data_is_one_line(tmp_path: Path, ending: str):
    path = tmp_path / f"odd{ending}"
    spec = ModelSpec("alexnet", ("a", "b", "c"), IMAGE)
    with pytest.raises(InputError, match=r"odd\.\w+: .* cannot hold this model \([^\n]+\)$"):
        target_of(path).write(network(Branch()), spec, path, torch.rand(2, 3, 32, 32))
    assert list(tmp_path.iterdir()) == []


def test_what_a_converter_says_is_kept_where_it_names_no_operator():
    error = ValueError("no way\nand more")
    found = cannot_hold(
        Path("m.onnx"), "ONNX", error, network(nn.ReLU()), torch.zeros(1, 3, 32, 32)
    )
    assert str(found) == "m.onnx: ONNX cannot hold this model (no way)"
    assert first_line(ValueError()) == "ValueError"


def test_a_module_that_the_converter_lacks_is_no_fault_of_the_network():
    error = ModuleNotFoundError("No module named 'torchao'", name="torchao")
    found = cannot_hold(
        Path("m.tflite"), "LiteRT", error, network(nn.ReLU()), torch.zeros(1, 3, 32, 32)
    )
    assert str(found) == "m.tflite: the converter to LiteRT needs torchao, not installed"
