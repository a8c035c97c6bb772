from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from own_networks import Text, TwoInputs, UNet, tabular
from torch import nn

import secateurs
from secateurs.errors import InputError
from secateurs.nets.trace import tensors_of
from secateurs.ship.latency import onnx_session

INPUTS = {
    UNet: torch.randn(2, 1, 8, 12),
    Text: {"input_ids": torch.ones(2, 5, dtype=torch.int64), "attention_mask": torch.ones(2, 5)},
    TwoInputs: (torch.randn(2, 5, 6, 6), torch.randn(2, 4)),
    tabular: torch.randn(3, 9),
}


@pytest.mark.parametrize(
    ("make", "ending"),
    [
        *((make, ".pt2") for make in INPUTS),
        *((make, ".onnx") for make in (UNet, Text)),
        *(pytest.param(make, ".onnx", marks=pytest.mark.slow) for make in (TwoInputs, tabular)),
    ],
)
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


class Masked(nn.Module):
    """Attention under a mask, keywords in another order than they are used, one not used."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, mask: torch.Tensor, x: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).view(len(x), -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        return self.out(found.transpose(1, 2).contiguous().flatten(2))


@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
def test_keywords_are_known_by_their_names(ending: str, tmp_path: Path):
    if ending == ".onnx":
        pytest.importorskip("onnxruntime")
    inputs = {
        "x": torch.randn(2, 5, 8),
        "rest": torch.randn(2),
        "mask": torch.ones(2, 5, dtype=torch.bool),
        "labels": torch.zeros(2),
    }
    found = secateurs.export(Masked(), tmp_path / f"model{ending}", inputs)
    assert found.difference <= 1e-4


class Rows(nn.Module):
    """A linear layer on flattened samples, in several styles."""

    def __init__(self, how: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.fc, self.how = nn.Linear(4, 2), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.how(self.fc, x)


def _run(path: Path, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """What an exported file gives."""
    if path.suffix == ".pt2":
        with torch.no_grad():
            return tensors_of(torch.export.load(path).module()(*inputs))
    session = onnx_session(path)
    names = [entry.name for entry in session.get_inputs()]
    given = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    return [torch.as_tensor(value) for value in session.run(None, given)]


@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
@pytest.mark.parametrize("samples", [1, 3])
def test_a_plain_number_of_samples_stays_free(samples: int, ending: str, tmp_path: Path):
    if ending == ".onnx":
        pytest.importorskip("onnxruntime")
    model = Rows(lambda fc, x: fc(x.reshape(len(x), 4)) / int(x.shape[0])).eval()
    path = tmp_path / f"m{ending}"
    found = secateurs.export(model, path, torch.randn(samples, 2, 2))
    assert (found.batch_size, found.note) == (None, "")
    for number in (1, 2, 9):
        batch = torch.randn(number, 2, 2)
        with torch.no_grad():
            torch.testing.assert_close(_run(path, batch)[0], model(batch))


@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
@pytest.mark.parametrize(
    ("how", "why"),
    [
        (lambda fc, x: fc(x.reshape(3, 4)), "the model itself does not run on others"),
        (lambda fc, x: torch.stack([fc(row.flatten()) for row in x]), "loops over its samples"),
    ],
)
def test_a_fixed_batch_size_is_said(how: Any, why: str, ending: str, tmp_path: Path):
    path = tmp_path / f"m{ending}"
    if ending == ".onnx":
        pytest.importorskip("onnxruntime")
        why = "" if "loops" in why else why  # in ONNX the loop gives a part of the outputs
    with pytest.warns(UserWarning, match=f"written for a batch of 3 only: .*{why}"):
        found = secateurs.export(Rows(how), path, torch.randn(3, 2, 2))
    assert found.difference <= 1e-4
    assert found.batch_size == 3
    if ending == ".onnx":
        import onnx

        said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    else:
        said = {"batch_size": ""}
        torch.export.load(path, extra_files=said)
    assert said["batch_size"] == f"3: {found.note}"


@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
def test_the_samples_of_a_state_are_along_its_second_axis(ending: str, tmp_path: Path):
    if ending == ".onnx":
        pytest.importorskip("onnxruntime")

    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(4, 6, 2, batch_first=True)

        def forward(self, x: torch.Tensor, state: torch.Tensor) -> Any:
            return self.rnn(x, state)

    model, path = Stateful().eval(), tmp_path / f"m{ending}"
    # As many layers as samples: which axis is which shows only in a run.
    assert secateurs.export(model, path, (torch.randn(2, 5, 4), torch.randn(2, 2, 6))).note == ""
    x, state = torch.randn(7, 5, 4), torch.randn(2, 7, 6)
    with torch.no_grad():
        expected = model(x, state)
    for found, known in zip(_run(path, x, state), expected, strict=True):
        torch.testing.assert_close(found, known)


def test_no_tensor_among_the_inputs_and_too_large_a_file(tmp_path: Path, monkeypatch: Any):
    with pytest.raises(InputError, match="got str without a tensor"):
        secateurs.export(tabular(), tmp_path / "m.pt2", "image.png")
    monkeypatch.setattr("secateurs.api.exporting.onnx_obstacle", lambda model: "too large")
    with pytest.raises(InputError, match="too large"):
        secateurs.export(tabular(), tmp_path / "m.onnx", torch.randn(2, 9))
    assert list(tmp_path.iterdir()) == []


class Cache:
    """What exporters know nothing of."""


@dataclass
class Found:
    logits: torch.Tensor
    cache: Cache


def test_outputs_beside_tensors_are_left_out(tmp_path: Path):
    class WithCache(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor, scale: torch.Tensor) -> Found:
            return Found(self.fc(x * scale), Cache())

    inputs = {"scale": torch.ones(3, 1), "x": torch.randn(3, 4)}
    found = secateurs.export(WithCache(), tmp_path / "m.pt2", inputs)
    assert found.difference <= 1e-4


class Odd(nn.Module):
    """Spectra, in some type, with noise."""

    def __init__(self, dtype: torch.dtype = torch.float32, noise: float = 0.0) -> None:
        super().__init__()
        self.fc, self.noise = nn.Linear(6, 8, dtype=dtype), noise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) + self.noise * torch.randn(8)


class Spectrum(Odd):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(super().forward(x))


def test_complex_outputs_are_pairs_in_onnx(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    for ending in ("onnx", "pt2"):
        found = secateurs.export(Spectrum(), tmp_path / f"m.{ending}", torch.randn(2, 6))
        assert found.difference <= 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_checked_as_exactly_as_it_works(tmp_path: Path, dtype: torch.dtype):
    torch.manual_seed(0)
    model, x = Odd(dtype), torch.randn(4, 6, dtype=dtype)
    assert secateurs.export(model, tmp_path / "m.pt2", x).difference <= 5e-3
    pytest.importorskip("onnxruntime")
    if dtype == torch.float16:
        assert secateurs.export(model, tmp_path / "m.onnx", x).difference <= 5e-3
    else:
        with pytest.raises(
            InputError, match=r"ONNX Runtime cannot run .* in bfloat16; export model"
        ):
            secateurs.export(model, tmp_path / "m.onnx", x)


def test_a_model_with_random_outputs_is_one_line(tmp_path: Path):
    with pytest.raises(InputError, match="gives other outputs each time"):
        secateurs.export(Odd(noise=0.1), tmp_path / "m.pt2", torch.randn(2, 6))
    assert list(tmp_path.iterdir()) == []


def test_an_operator_that_a_format_lacks_is_named_with_its_layer(tmp_path: Path):
    pytest.importorskip("onnxruntime")

    class Distances(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cdist(x, x)

    model = nn.Sequential(nn.Linear(4, 3), Distances())
    lacking = r"the format has no operator _cdist_forward, in layer 1 \(Distances\)\)"
    with pytest.raises(InputError, match=lacking):
        secateurs.export(model, tmp_path / "m.onnx", torch.randn(2, 5, 4))
    assert list(tmp_path.iterdir()) == []
