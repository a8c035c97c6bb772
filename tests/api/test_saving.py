from __future__ import annotations

from pathlib import Path

import pytest
import torch
from own_networks import UNet, same_weights, tabular
from torch import nn

import secateurs
from secateurs.api.saving import save_weights
from secateurs.errors import InputError


def small(path: Path) -> nn.Module:
    budget = secateurs.Budget(params=0.5, round_to=1, fewest=1)
    found = secateurs.prune(tabular(), [torch.randn(64, 9)], budget)
    found.save(path)
    return found.model


def test_shared_weights_stay_shared(tmp_path: Path):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
            self.two.weight = self.one.weight

    save_weights(Tied(), tmp_path / "w")
    again = secateurs.load_weights(Tied(), tmp_path / "w")
    assert again.one.weight is again.two.weight


def test_attention_that_was_opened_comes_back(tmp_path: Path):
    torch.manual_seed(0)

    def make() -> nn.Module:
        return nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)

    batch = torch.randn(16, 5, 16)
    budget = secateurs.Budget(params=0.6, round_to=1, fewest=1)
    found = secateurs.prune(make().eval(), [batch], budget)
    found.save(tmp_path / "w")
    again = secateurs.load_weights(make(), tmp_path / "w").eval()
    assert same_weights(again, found.model)
    with torch.no_grad():
        assert torch.equal(again(batch), found.model(batch))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "words"])
def test_a_damaged_file_is_one_line(tmp_path: Path, damage: str):
    path = tmp_path / "w"
    small(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(
        {"truncated": data[:-20], "flipped": data, "empty": b"", "words": b"not tensors"}[damage]
    )
    with pytest.raises(InputError, match="not readable"):
        secateurs.load_weights(tabular(), path)


def test_weights_of_another_model_are_refused_and_nothing_is_changed(tmp_path: Path):
    path = tmp_path / "w"
    small(path)
    with pytest.raises(InputError, match="weights of another model"):
        secateurs.load_weights(UNet(), path)
    narrower = nn.Sequential(nn.Linear(9, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 2))
    with pytest.raises(InputError, match="weights of another model"):
        secateurs.load_weights(narrower, path)
    with pytest.raises(InputError, match="no such file"):
        secateurs.load_weights(tabular(), tmp_path / "nothing")


class Slopes(nn.Module):
    """Attention with a slope for each head, in a buffer that is not saved."""

    slopes: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.qkv, self.head = nn.Linear(6, 48), nn.Linear(16, 3)
        self.register_buffer("slopes", 0.5 ** torch.arange(1.0, 5.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(x).reshape(len(x), -1, 3, self.num_heads, 4).permute(2, 0, 3, 1, 4)
        places = torch.arange(x.shape[1])
        scores = parts[0] @ parts[1].mT + self.slopes[:, None, None] * (places - places[:, None])
        return self.head((scores.softmax(-1) @ parts[2]).transpose(1, 2).flatten(2).mean(1))


def test_a_buffer_outside_the_state_dict_comes_back(tmp_path: Path):
    torch.manual_seed(0)
    model, batch = Slopes(), torch.randn(16, 5, 6)
    found = secateurs.prune(
        model, [batch], secateurs.Budget(params=1, round_to=1, fewest=1), ratios={"*": 0.5}
    )
    assert len(found.kept["qkv"]) == 24 and found.model.slopes.shape == (2,)
    assert found.model.state_dict().keys() == model.state_dict().keys()
    found.save(tmp_path / "w")
    again = secateurs.load_weights(Slopes(), tmp_path / "w").eval()
    assert torch.equal(again.slopes, found.model.slopes)
    with torch.no_grad():
        assert torch.equal(again(batch), found.model.eval()(batch))
    with pytest.raises(InputError, match="another model"):
        secateurs.load_weights(tabular(), tmp_path / "w")


def test_complex_numbers_of_either_size_come_back_bit_for_bit(tmp_path: Path):
    def make() -> nn.Module:
        model = nn.Module()
        model.wide = nn.Parameter(torch.randn(3, 5, dtype=torch.complex128))
        model.register_buffer("slim", torch.randn(7, dtype=torch.complex64))
        return model

    model = make()
    save_weights(model, tmp_path / "w")
    again = secateurs.load_weights(make(), tmp_path / "w")
    for name, value in model.state_dict().items():
        assert again.state_dict()[name].dtype == value.dtype
        assert torch.equal(again.state_dict()[name], value)


def test_a_pruned_model_has_the_parameters_of_its_constructor(tmp_path: Path):
    def make() -> nn.Module:  # the second layer has no bias, where the means of what is merged go
        return nn.Sequential(nn.Linear(9, 24, bias=False), nn.GELU(), nn.Linear(24, 5, bias=False))

    torch.manual_seed(0)
    found = secateurs.prune(make(), [torch.randn(64, 9)], secateurs.Budget(macs=0.5))
    assert found.model.state_dict().keys() == make().state_dict().keys()
    found.save(tmp_path / "w")
    assert same_weights(secateurs.load_weights(make(), tmp_path / "w"), found.model)
