from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from secateurs.errors import InputError
from secateurs.prune.selection.complementary import complementary
from secateurs.prune.selection.rules import Rule, SelectOptions, select
from secateurs.prune.selection.scores import (
    geometric_median,
    highest,
    random_scores,
    taylor,
    variance,
    weight_norm,
)


def layer(seed=0, samples=30, units=20):
    generator = torch.Generator().manual_seed(seed)
    x = torch.relu(torch.randn(samples, units, generator=generator))
    incoming = torch.randn(units, 7, generator=generator)
    return x, incoming, torch.randn(3, units, generator=generator)


def test_scores_equal_plain_loops():
    x, incoming, _ = layer()
    w, a = incoming.double().numpy(), x.double().numpy()
    np.testing.assert_allclose(weight_norm(incoming, p=1), np.abs(w).sum(1), rtol=1e-6)
    np.testing.assert_allclose(weight_norm(incoming, p=2), np.sqrt((w**2).sum(1)), rtol=1e-6)
    np.testing.assert_allclose(variance(x), a.var(0), rtol=1e-6)
    np.testing.assert_allclose(geometric_median(incoming), cdist(w, w).sum(1), rtol=1e-5)
    gradients = torch.randn(30, 20, generator=torch.Generator().manual_seed(1))
    expected = [
        np.mean([abs(a[n, u] * float(gradients[n, u])) for n in range(30)]) for u in range(20)
    ]
    np.testing.assert_allclose(taylor(x, gradients), expected, rtol=1e-6)
    assert sorted(random_scores(20, seed=1).tolist()) == list(range(20))
    assert not torch.equal(random_scores(20, seed=1), random_scores(20, seed=2))


def test_taylor_is_the_change_of_a_linear_loss():
    x, _, outgoing = layer()
    x = x[:1].clone().requires_grad_()
    (x @ outgoing.T).sum().backward()
    zeroed = [abs(float(x[0, u].detach() * outgoing[:, u].sum())) for u in range(20)]
    assert x.grad is not None
    np.testing.assert_allclose(taylor(x, x.grad), zeroed, rtol=1e-5)


@pytest.mark.parametrize("rule", ["random", "l1", "l2", "variance", "geometric_median"])
def test_baselines_keep_the_highest_scores_among_live_units(rule):
    x, incoming, outgoing = layer()
    x[:, 4] = 0
    scores = {
        "random": random_scores(20, seed=3),
        "l1": weight_norm(incoming, p=1),
        "l2": weight_norm(incoming, p=2),
        "variance": variance(x),
        "geometric_median": geometric_median(incoming),
    }[rule].clone()
    scores[4] = -1
    chosen = select(x, incoming, outgoing, SelectOptions(rule=rule, keep=6, seed=3))
    assert chosen.survivors.tolist() == sorted(scores.argsort(descending=True)[:6].tolist())
    assert chosen.rule == rule and len(chosen.removed) == 14
    assert (chosen.parent == -1).sum() == 1
    most = select(x, incoming, outgoing, SelectOptions(rule=rule, keep=20))
    assert most.removed.tolist() == [4]


def test_a_removed_units_parent_is_its_nearest_survivor():
    x, incoming, outgoing = layer()
    chosen = select(x, incoming, outgoing, SelectOptions(rule="l2", keep=5, normalise="none"))
    unit = (x / x.norm(dim=0)).double().numpy()
    cosine = unit[:, chosen.removed].T @ unit[:, chosen.survivors]
    assert chosen.parent.tolist() == chosen.survivors[cosine.argmax(1)].tolist()
    np.testing.assert_allclose(chosen.angle_deg, np.degrees(np.arccos(cosine.max(1))), atol=1e-4)


def test_dead_removes_nothing_else():
    x, incoming, outgoing = layer()
    x[:, 4], x[:, 8] = 0, 1
    chosen = select(x, incoming, outgoing, SelectOptions(rule="dead"))
    assert chosen.removed.tolist() == [4, 8] and chosen.num_dead == 1


@pytest.mark.parametrize("keep", [1, 4, 10])
def test_pairwise_finds_the_angle_for_a_number_of_units(keep):
    x, incoming, outgoing = layer(units=60, samples=30)
    options = SelectOptions(keep=keep, normalise="none", high_deg=None)
    chosen = select(x, incoming, outgoing, options)
    assert 0 < len(chosen.survivors) <= keep
    assert len(chosen.survivors) >= keep - 3


def test_a_fraction_is_of_all_units():
    x, incoming, outgoing = layer()
    for rule in ("subspace", "variance"):
        options = SelectOptions(rule=rule, keep_fraction=0.25)
        assert len(select(x, incoming, outgoing, options).survivors) == 5
    tiny = SelectOptions(rule="subspace", keep_fraction=0.001)
    assert len(select(x, incoming, outgoing, tiny).survivors) == 1


def test_subspace_stops_at_the_lower_angle():
    x, incoming, outgoing = layer()
    chosen = select(x, incoming, outgoing, SelectOptions(rule="subspace", low_deg=50))
    assert chosen.span_deg is not None and float(chosen.span_deg.max()) <= 50


def test_complementary_pairs_go_with_what_was_merged_into_them():
    base = torch.rand(30, 3, generator=torch.Generator().manual_seed(0))
    # 0 and 2 alike, 1 opposite to both, 3 and 4 opposite, 5 alone
    x = torch.stack(
        [base[:, 0], 1 - base[:, 0], base[:, 0], base[:, 1], 1 - base[:, 1], base[:, 2]], 1
    )
    chosen = complementary(x, low_deg=10, high_deg=170, normalise="centre")
    assert chosen.survivors.tolist() == [5]
    assert chosen.parent.tolist() == [-1] * 5
    similar = complementary(x[:, [0, 2, 5]], low_deg=10, high_deg=170, normalise="centre")
    assert similar.survivors.tolist() == [0, 2] and similar.parent.tolist() == [0]


def test_a_third_opposite_unit_is_left_without_a_partner():
    base = torch.rand(30, 2, generator=torch.Generator().manual_seed(0))
    x = torch.stack([base[:, 0], 1 - base[:, 0], base[:, 1], 1 - base[:, 1] ** 1.5], 1)
    x = torch.cat([x, (1 - base[:, [0]]) ** 1.4], 1)
    chosen = complementary(x, low_deg=1, high_deg=150, normalise="centre", tile=2)
    assert chosen.survivors.tolist() == [4]


def test_bad_options():
    x, incoming, outgoing = layer()
    cases = [
        (SelectOptions(rule="magic"), "rule: expected one of pairwise, cluster, subspace"),  # pyright: ignore
        (SelectOptions(rule="cluster"), "rule cluster needs a number of units to keep"),
        (SelectOptions(rule="taylor", keep=3), "rule taylor needs labels"),
        (SelectOptions(rule="l2"), "rule l2 needs a number of units to keep"),
        (SelectOptions(rule="dead", keep=3), "rule dead cannot be told"),
        (SelectOptions(keep=3, keep_fraction=0.5), "expected keep or keep_fraction, got both"),
        (SelectOptions(keep=0), "keep is out of range: 0"),
        (SelectOptions(keep_fraction=1.5), "keep_fraction is out of range: 1.5"),
        (SelectOptions(rule="complementary", high_deg=None), "less than 180 for complementary"),
    ]
    for options, words in cases:
        with pytest.raises(InputError, match=words):
            select(x, incoming, outgoing, options)
    assert {case[0].rule for case in cases} - {"magic"} <= set(Rule.__args__)
    with pytest.raises(InputError, match="scores: unit 2 has nan"):
        highest("x", x, torch.tensor([0.0, 1.0, float("nan")] + [0.0] * 17), keep=2)
    with pytest.raises(InputError, match=r"scores: expected shape \(20,\), got \(3,\)"):
        highest("x", x, torch.ones(3), keep=2)
    with pytest.raises(InputError, match=r"gradients: expected shape \(30, 20\)"):
        taylor(x, x[:2])
