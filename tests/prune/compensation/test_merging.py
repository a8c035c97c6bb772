from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import nn

from secateurs.errors import InputError
from secateurs.prune.compensation.merging import Incoming, groups, merge, merge_incoming
from secateurs.prune.layer import PruneOptions, apply_cut, prune_layer, prune_layers
from secateurs.prune.selection.cluster import cluster
from secateurs.prune.selection.pairwise import pairwise

INPUTS = torch.rand(80, 6, generator=torch.Generator().manual_seed(0))


def network(seed=0, width=30):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, width),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(width, width),
        nn.ReLU(inplace=True),
        nn.Linear(width, 4),
    ).eval()


def means(rows, selection):
    """Mean of each survivor's group, one unit at a time."""
    members = {k: [k] for k in selection.survivors.tolist()}
    gone = zip(
        selection.removed.tolist(),
        selection.parent.tolist(),
        selection.angle_deg.tolist(),
        strict=True,
    )
    for unit, parent, angle in gone:
        if parent >= 0 and not angle > 90:
            members[parent].append(unit)
    return np.stack([rows[group].mean(0) for _, group in sorted(members.items())])


@torch.no_grad()
def test_incoming_weights_against_a_loop():
    model = network()
    activations = model[1](model[0](INPUTS))
    for chosen in (cluster(activations, keep=5), pairwise(activations, low_deg=30, high_deg=120)):
        new = merge_incoming(model[0].weight, model[0].bias, chosen)
        np.testing.assert_allclose(new.weight, means(model[0].weight.numpy(), chosen), rtol=1e-5)
        np.testing.assert_allclose(
            new.bias, means(model[0].bias.numpy()[:, None], chosen)[:, 0], rtol=1e-5
        )


@torch.no_grad()
def test_refit_against_scikit_learn():
    model = network()
    before = model[0](INPUTS)
    chosen = cluster(before.relu(), keep=5)
    new, out = merge(
        before,
        torch.relu,
        Incoming(model[0].weight, model[0].bias),
        model[3].weight,
        model[3].bias,
        chosen,
        ridges=[1e-10],
    )
    merged = (INPUTS @ new.weight.T + new.bias).relu().double().numpy()
    plain = LinearRegression().fit(merged, model[3](before.relu()).double().numpy())
    np.testing.assert_allclose(out.weight, plain.coef_, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(out.bias, plain.intercept_, rtol=2e-3, atol=2e-4)


@torch.no_grad()
def test_scaled_duplicates_merge_with_the_logits_unchanged():
    model = network()
    scale = torch.rand(10, generator=torch.Generator().manual_seed(1)) + 0.5
    model[3].weight[20:] = model[3].weight[:10] * scale[:, None]
    model[3].bias[20:] = model[3].bias[:10] * scale
    options = PruneOptions(
        low_deg=0.01, high_deg=None, normalise="none", compensation="merge", batch_size=9
    )
    cut = prune_layer(model, "3", INPUTS, options=options)
    assert len(cut.selection.survivors) <= 20
    torch.testing.assert_close(cut.model(INPUTS), model(INPUTS), atol=1e-4, rtol=1e-4)
    assert torch.equal(apply_cut(model, "3", cut)(INPUTS), cut.model(INPUTS))


@torch.no_grad()
def test_merging_is_nearer_than_one_member_for_each_group():
    """Units that are one of a few signals and noise of their own: what merging is for."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 240), nn.ReLU(), nn.Linear(240, 4)).eval()
    signal = torch.randn(6, 60)
    model[0].weight[:] = signal[torch.arange(240) % 6] + 0.6 * torch.randn(240, 60)
    model[2].weight[:] = torch.randn(4, 6)[:, torch.arange(240) % 6]
    inputs = torch.rand(160, 60)
    errors = {}
    for step in ("least_squares", "merge"):
        options = PruneOptions(rule="cluster", keep=6, compensation=step)
        cut = prune_layer(model, "0", inputs[:80], options=options)
        errors[step] = float((cut.model(inputs[80:]) - model(inputs[80:])).square().mean())
    assert errors["merge"] < 0.5 * errors["least_squares"]


@torch.no_grad()
def test_two_layers_in_sequence_and_the_model_given_is_left_alone():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = PruneOptions(rule="cluster", keep=12, compensation="merge")
    cuts = prune_layers(model, ["0", "3"], INPUTS, options=options)
    assert [cut.model[0].out_features for cut in cuts] == [12, 12]
    assert cuts[1].model[3].weight.shape == (12, 12)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert float((cuts[1].model(INPUTS) - model(INPUTS)).square().mean()) < 0.05


def test_opposite_units_and_orphans_join_no_group():
    x = torch.tensor([[1.0, -1.0, 0.0, 2.0], [0.5, -0.5, 0.0, 1.0], [0.0, 0.1, 0.0, 0.0]])
    chosen = pairwise(x, low_deg=10, high_deg=170, normalise="none")
    assert chosen.survivors.tolist() == [0]
    assert groups(chosen).tolist() == [0, -1, -1, 0]


def test_bad_shapes():
    x = torch.rand(9, 4)
    chosen = cluster(x, keep=2)
    with pytest.raises(InputError, match=r"weight: expected \(4, inputs\)"):
        merge_incoming(torch.ones(3, 2), None, chosen)
    with pytest.raises(InputError, match=r"bias: expected \(4,\)"):
        merge_incoming(torch.ones(4, 2), torch.ones(3), chosen)
    own = Incoming(torch.ones(4, 2), None)
    with pytest.raises(InputError, match=r"before: expected \(samples, 4\)"):
        merge(torch.rand(9, 5), torch.relu, own, torch.ones(2, 4), None, chosen)
    with pytest.raises(InputError, match=r"weight: expected \(outputs, 4\)"):
        merge(x, torch.relu, own, torch.ones(2, 5), None, chosen)
    with pytest.raises(InputError, match="target: expected shape"):
        merge(x, torch.relu, own, torch.ones(2, 4), None, chosen, target=torch.ones(9, 3))
