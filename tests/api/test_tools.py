from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import secateurs
from secateurs.errors import InputError


def activations(samples: int = 40, units: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    some = torch.randn(samples, 4, generator=generator)
    mixed = some @ torch.randn(4, units, generator=generator)
    return mixed.relu() + 0.05 * torch.randn(samples, units, generator=generator)


@pytest.mark.parametrize("normalise", ["minmax", "centre", "none"])
def test_angles_are_those_of_a_plain_loop(normalise: Any):
    x = activations()
    x[:, 3], x[:, 5] = 0.0, 2.0
    found = secateurs.angles(x, normalise=normalise)
    rows = x.double().numpy().T
    for i, j in np.ndindex(12, 12):
        pair = []
        for row in (rows[i], rows[j]):
            if normalise == "minmax":
                row = (row - rows.min()) / np.ptp(rows) - 0.5
            if normalise == "centre":
                row = row - row.mean()
            pair.append(row)
        if {i, j} & {3, 5}:  # always the same value
            assert math.isnan(found[i, j])
            continue
        cosine = pair[0] @ pair[1] / np.linalg.norm(pair[0]) / np.linalg.norm(pair[1])
        expected = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        assert float(found[i, j]) == pytest.approx(expected, abs=1e-4)
    assert found.dtype == torch.float64


def test_the_paper_s_steps_keep_what_the_next_layer_receives():
    x = activations(200, 24)
    weight, bias = torch.randn(5, 24), torch.randn(5)
    chosen = secateurs.select(x, "pairwise", keep=10)
    assert len(chosen.survivors) <= 10
    expected = x @ weight.T + bias
    errors = {}
    for how in ("drop", "add", "affine", "least_squares"):
        new = secateurs.compensate(x, weight, bias, chosen, how)
        given = x[:, chosen.survivors] @ new.weight.T + new.bias
        errors[how] = float((given - expected).square().mean())
    assert errors["least_squares"] < errors["affine"] < errors["drop"]
    # The refit is at least as near as numpy's, which has no ridge, is on these samples.
    design = np.c_[x[:, chosen.survivors].numpy(), np.ones(len(x))]
    _, residual, _, _ = np.linalg.lstsq(design, expected.numpy(), rcond=None)
    assert errors["least_squares"] <= 1.5 * residual.sum() / expected.numel()


def test_no_pair_of_survivors_is_within_the_angles():
    x = activations(30, 20)
    chosen = secateurs.select(x, low_deg=20, high_deg=160)
    between = secateurs.angles(x)[chosen.survivors][:, chosen.survivors]
    other = ~torch.eye(len(between), dtype=torch.bool)
    assert bool(((between >= 20) & (between <= 160))[other].all())
    gone = secateurs.angles(x)[chosen.removed, chosen.parent]
    torch.testing.assert_close(gone, chosen.angle_deg)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("cluster", {}),
        ("cluster", {"outgoing": torch.rand(3, 12)}),
        ("subspace", {}),
        ("l2", {"incoming": torch.rand(12, 6)}),
        ("geometric_median", {"incoming": torch.rand(12, 6)}),
        ("variance", {}),
        ("random", {"seed": 3}),
        ("taylor", {"gradients": torch.rand(40, 12)}),
    ],
)
def test_every_rule_keeps_as_many_as_asked_for(rule: Any, words: dict[str, Any]):
    chosen = secateurs.select(activations(), rule, keep=5, **words)
    assert len(chosen.survivors) == 5 and chosen.rule == rule
    everything = torch.cat([chosen.survivors, chosen.removed]).sort().values
    assert torch.equal(everything, torch.arange(12))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: secateurs.angles(x[0]), "activations"),
        (lambda x: secateurs.angles(x[:1]), "samples"),
        (lambda x: secateurs.angles(x * float("nan")), "unit"),
        (lambda x: secateurs.select(x, "nearest"), "rule: expected one of"),
        (lambda x: secateurs.select(x, "l2", keep=3), "rule l2 needs incoming"),
        (lambda x: secateurs.select(x, "taylor", keep=3), "rule taylor needs gradients"),
        (lambda x: secateurs.select(x, "cluster"), "needs a number of units"),
        (lambda x: secateurs.select(x, angle=3), "unknown option; there are low_deg"),
        (
            lambda x: secateurs.select(x, "l1", keep=3, incoming=torch.rand(4, 4)),
            r"incoming: expected shape \(12, inputs\), got \(4, 4\)",
        ),
        (
            lambda x: secateurs.compensate(x, torch.rand(5, 4), None, secateurs.select(x)),
            r"weight: expected \(outputs, 12\), got \(5, 4\)",
        ),
        (
            lambda x: secateurs.compensate(
                x, torch.rand(5, 12), None, secateurs.select(x), "merge"
            ),  # type: ignore[arg-type]
            "how: expected one of drop",
        ),
    ],
)
def test_bad_input_is_one_clear_line(call: Any, message: str):
    with pytest.raises(InputError, match=message) as caught:
        call(activations())
    assert "\n" not in str(caught.value)
