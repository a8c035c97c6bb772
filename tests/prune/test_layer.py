from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.prune.layer import PruneOptions, apply_cut, prune_layer, prune_layers
from secateurs.prune.ledger import COLUMNS, write_csv


def tail(seed=0, width=40):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Dropout(),
        nn.Linear(12, width),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(width, width),
        nn.ReLU(inplace=True),
        nn.Linear(width, 5),
    )


INPUTS = torch.rand(60, 12, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model, inputs=INPUTS):
    return model.eval()(inputs)


def duplicated(seed=0):
    """A network whose units 30..39 of layer 4 repeat units 0..9, and whose unit 20 is dead."""
    model = tail(seed)
    with torch.no_grad():
        model[4].weight[30:] = model[4].weight[:10]
        model[4].bias[30:] = model[4].bias[:10]
        model[4].weight[20], model[4].bias[20] = 0, -1
    return model


@pytest.mark.parametrize("compensation", ["add", "affine", "least_squares"])
def test_duplicates_go_and_the_logits_stay(compensation):
    model = duplicated()
    options = PruneOptions(low_deg=0.05, high_deg=None, compensation=compensation)
    cut = prune_layer(model, "4", INPUTS, options=options)
    assert set(range(30, 40)) <= set(cut.selection.removed.tolist())
    assert 20 in cut.selection.removed.tolist()
    torch.testing.assert_close(logits(cut.model), logits(model), atol=1e-5, rtol=0)
    assert cut.parity <= 1e-5 and cut.seconds > 0


def test_the_model_given_is_untouched_bit_for_bit():
    model = tail().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prune_layers(model, ["1", "4"], INPUTS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(not module._forward_hooks for module in model.modules())


def test_the_same_cut_fits_another_copy():
    model = tail()
    whole = nn.Sequential(nn.Identity(), model)
    cut = prune_layer(model, "4", INPUTS.split(7))
    other = apply_cut(whole, "1.4", cut)
    assert torch.equal(logits(other), logits(cut.model))


def test_batch_size_changes_nothing_but_rounding():
    small = prune_layer(tail(), "4", INPUTS, options=PruneOptions(batch_size=7))
    large = prune_layer(tail(), "4", INPUTS)
    assert torch.equal(small.selection.survivors, large.selection.survivors)
    torch.testing.assert_close(small.outgoing.weight, large.outgoing.weight, atol=1e-4, rtol=1e-4)


def test_the_second_layer_is_fitted_to_the_unpruned_network():
    model = tail(width=80)
    options = PruneOptions(low_deg=30)
    cuts = prune_layers(model, ["1", "4"], INPUTS, options=options)
    own = prune_layer(cuts[0].model, "4", INPUTS, options=options)
    error = (logits(cuts[1].model) - logits(model)).square().mean()
    assert error < (logits(own.model) - logits(model)).square().mean()
    assert cuts[1].model[4].in_features == len(cuts[0].selection.survivors)


def test_each_layer_may_have_its_own_options():
    each = [PruneOptions(rule="cluster", keep=keep, compensation="merge") for keep in (9, 5)]
    cuts = prune_layers(tail(), ["1", "4"], INPUTS, options=each)
    assert [len(cut.selection.survivors) for cut in cuts] == [9, 5]
    with pytest.raises(InputError, match="options: expected one or 2, one a layer, got 1"):
        prune_layers(tail(), ["1", "4"], INPUTS, options=each[:1])


def test_ledger_has_one_row_a_unit(tmp_path):
    model = duplicated()
    cut = prune_layer(model, "4", INPUTS, options=PruneOptions(low_deg=0.05, high_deg=None))
    rows = cut.ledger
    assert len(rows) == 40 and rows.action[20] == "dead" and rows.survivor[20] == -1
    assert rows.action[31] == "removed" and rows.survivor[31] == 1
    assert rows.angle_deg[31] == pytest.approx(0, abs=1e-5)
    assert rows.action[0] == "kept" and rows.survivor[0] == 0
    write_csv(tmp_path / "ledger.csv", rows)
    with (tmp_path / "ledger.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == COLUMNS and len(table) == 40
    assert table[20]["action"] == "dead" and table[20]["angle_deg"] == ""
    assert table[31]["survivor"] == "1" and table[31]["layer"] == "4"


@pytest.mark.parametrize(
    "rule", ["cluster", "subspace", "random", "l2", "variance", "geometric_median"]
)
@pytest.mark.parametrize("compensation", ["drop", "affine", "least_squares", "merge"])
def test_every_rule_goes_with_every_compensation(rule, compensation, tmp_path):
    options = PruneOptions(rule=rule, keep=8, compensation=compensation)
    cut = prune_layer(tail(), "4", INPUTS, options=options)
    assert cut.model[4].out_features == 8 and logits(cut.model).isfinite().all()
    write_csv(tmp_path / "ledger.csv", cut.ledger)
    assert len((tmp_path / "ledger.csv").read_text().splitlines()) == 41


def test_bad_requests_change_nothing():
    model = tail()
    for options, words in (
        (PruneOptions(rule="magic"), "rule: expected one of pairwise"),  # pyright: ignore
        (PruneOptions(compensation="none"), "compensation: expected one of"),  # pyright: ignore
        (PruneOptions(low_deg=170), "low_deg: expected less than high_deg"),
        (
            PruneOptions(batch_size=0),
            "batch_size is out of range: 0; expected a whole number from 1",
        ),
    ):
        with pytest.raises(InputError, match=words):
            prune_layer(model, "4", INPUTS, options=options)
    with pytest.raises(InputError, match="no training input"):
        prune_layer(model, "4", [])
    with pytest.raises(InputError, match="each once"):
        prune_layers(model, ["4", "4"], INPUTS)
    with pytest.raises(InputError, match="unknown"):
        prune_layers(model, ["1", "9"], INPUTS)
    with pytest.raises(InputError, match="only least_squares and merge fit another network"):
        prune_layer(model, "4", INPUTS, options=PruneOptions(compensation="add"), reference=tail())


@pytest.mark.parametrize("compensation", ["merge", "least_squares", "drop"])
@pytest.mark.parametrize("keep", [12, 33, 39])
def test_layers_get_the_width_that_was_asked_for(compensation, keep):
    model, few = duplicated(), INPUTS[:9]
    with torch.no_grad():
        model[1].bias[:20] = -1e3  # dead
    options = PruneOptions(rule="cluster", keep=keep, compensation=compensation)
    for cut in prune_layers(model, ["1", "4"], few, options=options):
        assert len(cut.selection.survivors) == keep
    widths = [cut.model[1].out_features, cut.model[4].out_features, cut.model[6].in_features]
    assert widths == [keep] * 3
    assert logits(cut.model, few).isfinite().all()


@pytest.mark.parametrize(("rule", "normalise"), [("cluster", "centre"), ("pairwise", "minmax")])
def test_the_histogram_has_the_angles_that_the_rule_compares(rule: str, normalise: str):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 20), nn.ReLU(), nn.Linear(20, 3))
    options = PruneOptions(rule=rule, keep=8)  # type: ignore[arg-type]
    cut = prune_layer(model, "0", torch.rand(40, 5), options=options)
    assert cut.histogram is not None
    assert cut.histogram.normalise == normalise
    # Every merged unit's angle to its survivor is one of the histogram's pairs.
    angles = cut.selection.angle_deg[~cut.selection.angle_deg.isnan()]
    counts, edges = cut.histogram.counts, cut.histogram.edges
    places = torch.bucketize(angles, edges[1:-1], right=True)
    assert (torch.bincount(places, minlength=len(counts)) <= counts).all()
    searched = replace(options, check_parity=False)
    assert prune_layer(model, "0", torch.rand(40, 5), options=searched).histogram is None
