"""Networks of convolutions of every form, pruned by the public calls."""

from __future__ import annotations

from collections.abc import Callable

import forms
import pytest
import torch
from torch import Tensor, nn

import secateurs
from secateurs.nets.counting import macs
from secateurs.prune.allocation.budget import Widths, descent
from secateurs.prune.allocation.survey import survey
from secateurs.prune.coupling.groups import find_groups
from secateurs.prune.network import prune_groups

# The shape of a sample, and of each group its units and the layers that make, pass on or read them.
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, tuple[int, str]]]] = {
    "U-Net": (
        forms.UNet,
        (1, 16, 16),
        {
            "down.0": (8, "down.0 down.1 middle.0 up2.0"),
            "middle.0": (16, "middle.0 middle.1 deep.0 up1.0"),
            "deep.0": (32, "deep.0 deep.1 raise1"),
            "raise1": (16, "raise1 up1.0"),
            "up1.0": (16, "up1.0 up1.1 raise2"),
            "raise2": (8, "raise2 up2.0"),
            "up2.0": (8, "up2.0 up2.1 head"),
        },
    ),
    "audio": (forms.audio, (1, 128), {"0": (12, "0 1 3"), "3": (16, "3 6"), "6": (20, "6 7 11")}),
    "volume": (
        forms.volume,
        (1, 8, 8, 6),
        {"0": (10, "0 1 4"), "4": (16, "4 5 7"), "7": (12, "7 11")},
    ),
    "autoencoder 1-D": (
        forms.autoencoder1d,
        (2, 34),
        {"0": (12, "0 2"), "2": (16, "2 4"), "4": (12, "4 5 7")},
    ),
    "autoencoder 3-D": (
        forms.autoencoder3d,
        (1, 8, 8, 8),
        {"0": (10, "0 2"), "2": (16, "2 4"), "4": (10, "4 5 7")},
    ),
    "grouped": (forms.grouped, (1, 8, 8), {"0": (4, "0 2 4"), "4": (10, "4 6")}),
    "depthwise": (forms.depthwise, (1, 10, 10), {"0": (8, "0 2 3 4 6")}),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, dict[str, tuple[int, str]]]:
    """A network whose batch norms have statistics, samples, and the groups that it has."""
    torch.manual_seed(0)
    make, size, expected = CASES[request.param]
    model, x = make(), forms.signals(96, *size)
    with torch.no_grad():
        for _ in range(20):
            model.train()(x[:32])
    return model.eval(), x, expected


def test_every_group_is_found(case: tuple[nn.Module, Tensor, dict[str, tuple[int, str]]]):
    model, x, expected = case
    seen = secateurs.inspect(model, x[:2])
    found = {row.name: (row.num_units, " ".join(row.layers)) for row in seen.groups}
    assert found == expected
    assert seen.not_pruned == ()


def test_a_budget_is_met(case: tuple[nn.Module, Tensor, dict[str, tuple[int, str]]]):
    model, x, expected = case
    before = model(x)
    budget = secateurs.Budget(macs=0.5, round_to=1, fewest=1)
    small = secateurs.prune(model, x.split(32), budget)
    assert macs(small.model, x[:1]) == round(small.report["macs"] * macs(model, x[:1]))
    assert 0.4 < small.report["macs"] <= 0.5
    assert small.report["parity"] <= 1e-5
    assert {group["name"] for group in small.report["groups"]} == expected.keys()
    assert small.model(x[:3]).shape == before[:3].shape
    assert torch.equal(model(x), before)
    small.model.train()(x[:4]).sum().backward()  # it can be trained on


def test_a_refit_is_nearer_than_a_cut(case: tuple[nn.Module, Tensor, dict[str, tuple[int, str]]]):
    """On samples that no refit has seen."""
    model, x, _ = case
    batches, held_out = x[:72].split(24), x[72:]
    groups = find_groups(model, x[:1]).found
    seen = survey(model, groups, batches)
    widths = Widths(model, groups, x[:1])
    kept = descent(widths, seen.eliminations, macs=0.6, round_to=1, fewest=1)[-1].kept
    error: list[float] = []
    for refitting in (True, False):
        done = prune_groups(model, groups, seen, kept, batches, refitting=refitting)
        with torch.no_grad():
            error.append(float((done.model(held_out) - model(held_out)).square().mean()))
    assert error[0] < error[1]


def test_half_precision_and_training_mode_are_kept():
    torch.manual_seed(0)
    model = forms.autoencoder1d().to(torch.bfloat16).train()
    x = forms.signals(64, 2, 34).to(torch.bfloat16)
    small = secateurs.prune(model, x.split(32), secateurs.Budget(macs=0.6, round_to=1, fewest=2))
    assert small.model.training
    assert {p.dtype for p in small.model.parameters()} == {torch.bfloat16}


def test_transposed_weights_are_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    x = forms.signals(64, 1, 8, 8)
    model = forms.grouped().eval()
    small = secateurs.prune(model, x.split(32), secateurs.Budget(macs=0.6, round_to=1, fewest=1))
    small.save(tmp_path / "small.safetensors")
    again = secateurs.load_weights(forms.grouped(), tmp_path / "small.safetensors").eval()
    assert torch.equal(again(x), small.model(x))
