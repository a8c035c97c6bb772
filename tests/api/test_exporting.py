from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import secateurs
from networks import Text, TwoInputs, UNet, tabular
from secateurs.errors import InputError

INPUTS = {
    UNet: torch.randn(2, 1, 8, 12),
    Text: {"input_ids": torch.ones(2, 5, dtype=torch.int64), "attention_mask": torch.ones(2, 5)},
    TwoInputs: (torch.randn(2, 5, 6, 6), torch.randn(2, 4)),
    tabular: torch.randn(3, 9),
}


@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
@pytest.mark.parametrize("make", INPUTS)
def test_any_model_is_written_and_checked(make: type[nn.Module], ending: str, tmp_path: Path):
    if ending == ".onnx":
        pytest.importorskip("onnxruntime")
    found = secateurs.export(make(), tmp_path / f"model{ending}", INPUTS[make])
    assert found.difference <= 1e-4 and found.num_bytes == found.path.stat().st_size


def test_the_batch_size_stays_free(tmp_path: Path):
    model = tabular().eval()
    secateurs.export(model, tmp_path / "m.pt2", torch.randn(3, 9))
    again, batch = torch.export.load(tmp_path / "m.pt2").module(), torch.randn(7, 9)
    with torch.no_grad():
        torch.testing.assert_close(again(batch), model(batch))


def test_what_differs_or_cannot_be_written_is_not_there(tmp_path: Path):
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x) if float(x.sum()) > 0 else x

    with pytest.raises(InputError, match="cannot be exported"):
        secateurs.export(Branch(), tmp_path / "m.pt2", torch.ones(2, 3))
    with pytest.raises(InputError, match=r"must end in \.onnx or \.pt2"):
        secateurs.export(tabular(), tmp_path / "m.bin", torch.ones(2, 9))
    with pytest.raises(RuntimeError, match="differ from PyTorch's"):
        secateurs.export(tabular(), tmp_path / "m.pt2", torch.randn(2, 9), tolerance=-1.0)
    assert list(tmp_path.iterdir()) == []
