from __future__ import annotations

import numpy as np
import pytest
import torch

from secateurs.errors import InputError
from secateurs.prune.selection.published_rule import published


def naive(activations, weight, low, norm_std):
    """The published program, as a plain double loop."""
    a, w = np.asarray(activations, np.float64), np.asarray(weight, np.float64).copy()
    if a.max() == a.min():
        return w, [], set()
    a = (a - a.min()) / (a.max() - a.min()) - 0.5
    norms = np.array([np.sqrt((a[:, k] ** 2).sum()) for k in range(a.shape[1])])
    mean, std = norms.mean(), norms.std()
    candidate = [n < mean - norm_std * std or n > mean + norm_std * std for n in norms]
    pairs = []
    for i in range(a.shape[1]):
        for j in range(a.shape[1]):
            if i == j or not (candidate[i] and candidate[j]):
                continue
            if norms[i] == 0 or norms[j] == 0:
                angle = 1000.0
            else:
                cosine = (a[:, i] * a[:, j]).sum() / (norms[i] * norms[j])
                angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
            pair = (min(i, j), max(i, j))
            if (angle < low or angle > 180 - low) and pair not in pairs:
                pairs.append(pair)
    for i, j in pairs:
        w[i] += w[j]
        w[j] = 0
    return w, pairs, {j for _, j in pairs}


def layer(seed, samples=9, units=35):
    generator = torch.Generator().manual_seed(seed)
    x = torch.relu(torch.randn(samples, units, generator=generator) + 0.3)
    x[:, 5], x[:, 20] = 0, 0
    x[:, 3] = x[:, 17]
    return x, torch.randn(units, 6, generator=generator)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("low", "norm_std"), [(20, 0.0), (35, 0.4), (30, 1.0), (60, 0.2)])
def test_equals_the_naive_program(seed, low, norm_std):
    x, weight = layer(seed)
    expected, pairs, gone = naive(x, weight, low, norm_std)
    got = published(x, weight, low_deg=low, norm_std=norm_std, tile=16)
    assert got.num_pairs == len(pairs)
    assert set(got.removed.nonzero().flatten().tolist()) == gone
    assert got.num_removed == len(gone)
    np.testing.assert_allclose(got.weight, expected, atol=1e-5)


def test_the_quirks_are_met():
    """Some unit zeroed earlier receives weights again, and a dead unit takes part."""
    seen = set()
    for seed in range(6):
        x, weight = layer(seed)
        result = published(x, weight, low_deg=35, norm_std=0.2)
        refilled = result.removed & (result.weight.abs().sum(1) > 0)
        seen |= {"refilled"} if bool(refilled.any()) else set()
        seen |= {"dead"} if bool(result.removed[20]) else set()
    assert seen == {"refilled", "dead"}


def test_an_undefined_angle_counts_as_opposite():
    # Unit 1 lies exactly in the middle of the range: its mapped vector is zero.
    x = torch.tensor([[0.0, 1.0, 2.0, 0.1], [2.0, 1.0, 0.0, 0.3], [0.0, 1.0, 0.0, 0.9]])
    weight = torch.arange(8.0).reshape(4, 2)
    expected, pairs, _ = naive(x, weight, 5, 0.0)
    assert (0, 1) in pairs and (1, 2) in pairs
    got = published(x, weight, low_deg=5, norm_std=0.0)
    assert got.num_pairs == len(pairs)
    np.testing.assert_allclose(got.weight, expected, atol=1e-6)


def test_constant_activations_remove_nothing_and_the_weight_given_stays():
    weight = torch.randn(4, 3)
    before = weight.clone()
    got = published(torch.ones(5, 4), weight, low_deg=15, norm_std=1.0)
    assert got.num_removed == 0 and torch.equal(got.weight, before)
    x, weight = layer(0)
    before = weight.clone()
    published(x, weight, low_deg=30, norm_std=0.0)
    assert torch.equal(weight, before)


def test_bad_input():
    x, weight = layer(0)
    with pytest.raises(InputError, match=r"within 0..90 degrees, got 90"):
        published(x, weight, low_deg=90, norm_std=1.0)
    with pytest.raises(InputError, match=r"weight: expected \(35, inputs\), got \(34, 6\)"):
        published(x, weight[1:], low_deg=15, norm_std=1.0)
