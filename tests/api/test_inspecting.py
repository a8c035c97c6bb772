from __future__ import annotations

import pytest
import torch
from own_networks import Text, TwoInputs, UNet, tabular
from torch import nn

import secateurs
from secateurs.errors import InputError
from secateurs.nets.counting import macs, num_parameters


def test_groups_and_their_cost():
    model = tabular()
    seen = secateurs.inspect(model, torch.randn(3, 9))
    assert [(row.name, row.num_units) for row in seen.groups] == [("0", 40), ("3", 24)]
    assert seen.macs == macs(model, torch.randn(1, 9))
    assert seen.num_parameters == num_parameters(model)
    # All but one unit of the first layer: its rows, its norm, and the columns that read it.
    gone = 39 * (9 + 1 + 2 + 24)
    assert seen.groups[0].parameters == pytest.approx(gone / num_parameters(model))
    assert seen.groups[0].layers == ("0", "1", "3")


@pytest.mark.parametrize(
    ("model", "inputs", "names"),
    [
        (
            UNet(),
            torch.randn(2, 1, 8, 12),
            ["down.0", "down.3", "deep.0", "up.0", "up.3"],
        ),
        (
            Text(),
            {"input_ids": torch.ones(2, 5, dtype=torch.int64), "attention_mask": torch.ones(2, 5)},
            ["fc1"],
        ),
        (TwoInputs(), (torch.randn(2, 5, 6, 6), torch.randn(2, 4)), ["conv", "facts", "mix"]),
    ],
)
def test_inputs_of_any_structure(model: nn.Module, inputs: object, names: list[str]):
    seen = secateurs.inspect(model, inputs)
    assert [row.name for row in seen.groups] == names
    text = str(seen)
    assert all(name in text for name in names)
    assert all(f"not pruned: {left.name}: {left.reason}" in text for left in seen.not_pruned)


def test_the_mode_is_restored_and_wrong_inputs_are_told():
    model = tabular()
    secateurs.inspect(model, torch.randn(2, 9))
    assert model.training and all(module.training for module in model.modules())
    with pytest.raises(InputError, match=r"forward: the model does not run on a batch of \(2, 4\)"):
        secateurs.inspect(model, torch.randn(2, 4))
