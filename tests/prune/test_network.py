from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateurs.prune.allocation.merge_costs import mergeable
from secateurs.prune.allocation.survey import _num_positions, importance, norms_after, survey
from secateurs.prune.coupling.groups import find_groups
from secateurs.prune.network import Pruned, StartValidation, prune_groups
from secateurs.prune.selection.rules import select
from secateurs.study.pruning.network import score_logits

SIZE = 12


def network(*, inplace: bool = False) -> nn.Sequential:
    """Convolutions with and without batch norm and bias, then linear layers."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=inplace),
        nn.Conv2d(8, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=inplace),
        nn.Conv2d(6, 5, 3),
        nn.ReLU(inplace=inplace),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(20, 9),
        nn.ReLU(inplace=inplace),
        nn.Linear(9, 4),
    )
    with torch.no_grad():
        for norm in (model[1], model[4]):
            norm.running_mean.normal_(0, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
    return model.eval()


def images(count: int = 96) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(count, 3, SIZE, SIZE, generator=generator).split(32))


def pruned(model: nn.Module, kept: dict[str, int], batches: list[Tensor], **words) -> Pruned:
    groups = find_groups(model, torch.empty(1, 3, SIZE, SIZE)).found
    whole = {group.name: group.num_units for group in groups}
    return prune_groups(
        model, groups, survey(model, groups, batches), {**whole, **kept}, batches, **words
    )


def far(model: nn.Module, other: nn.Module, batches: list[Tensor]) -> float:
    with torch.no_grad():
        exact, found = (torch.cat([net(b) for b in batches]) for net in (model, other))
    return float((found - exact).square().mean() / (exact - exact.mean(0)).square().mean())


def test_nothing_removed_is_the_same_network():
    model, batches = network(), images()
    result = pruned(model, {}, batches)
    assert far(model, result.model, batches) == 0.0
    assert result.survivors == {} and result.merged == ()


@pytest.mark.parametrize("inplace", [False, True])
def test_copies_of_a_channel_go_without_a_trace(inplace: bool):
    model, batches = network(inplace=inplace), images()
    with torch.no_grad():
        model[0].weight[5] = model[0].weight[2]  # scaled by the norm, without an offset of its own
        for vector in (model[1].bias, model[1].running_mean):
            vector[[2, 5]] = 0
        model[6].weight[4] = 3 * model[6].weight[1]
        model[6].bias[4] = 3 * model[6].bias[1]
        model[10].weight[7] = 0.5 * model[10].weight[3]
        model[10].bias[7] = 0.5 * model[10].bias[3]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = pruned(model, {"0": 7, "6": 4, "10": 8}, batches)
    # Shrinkage keeps a thousandth of the ridge, whatever the samples say.
    assert far(model, result.model, images(20)) < 1e-3
    assert result.merged == ("10",)
    assert set(range(8)) - set(result.survivors["0"].tolist()) < {2, 5}
    assert set(range(5)) - set(result.survivors["6"].tolist()) < {1, 4}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_outputs_that_hardly_vary_about_a_large_mean_are_refitted_as_well(offset: float):
    model, batches = network(), images()
    with torch.no_grad():
        model[6].weight[4] = 3 * model[6].weight[1]
        model[6].bias[4] = 3 * model[6].bias[1]
        model[10].bias += offset
    result = pruned(model, {"6": 4}, batches)
    # In bfloat16 an output of 1000 would be known to 4 only.
    assert far(model, result.model, batches) < 1e-3


def test_the_network_is_the_same_however_little_is_kept(monkeypatch: pytest.MonkeyPatch):
    model, batches = network(inplace=True), images()
    kept = {"0": 5, "3": 4, "6": 3, "10": 4}
    whole = pruned(model, kept, batches).model
    monkeypatch.setattr("secateurs.prune.refit_state.MEMORY", 1)  # no output may be kept
    forgetful = pruned(model, kept, batches).model
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(forgetful.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert far(whole, forgetful, batches) < 1e-8


def test_validation_takes_the_start_with_the_best_score(monkeypatch: pytest.MonkeyPatch):
    model, batches, seen = network(inplace=True), images(), images(300)
    with torch.no_grad():
        model[12].bias -= torch.cat([model(batch) for batch in seen]).mean(0)
        labels = torch.cat([model(batch) for batch in seen]).argmax(1)
    kept = {"0": 5, "6": 3, "10": 3}
    score = partial(score_logits, labels=labels)
    result = pruned(model, kept, batches, validation=StartValidation(seen, score, starts=6))

    def alone(start: int) -> nn.Module:
        """By a cut that knows of one start only."""
        with monkeypatch.context() as patch:
            patch.setattr(
                "secateurs.prune.network.select",
                lambda x, a, b, options: select(x, a, b, replace(options, seed=start)),
            )
            return pruned(model, kept, batches).model

    networks = [alone(start) for start in range(6)]
    with torch.no_grad():
        answers = [torch.cat([net(batch) for batch in seen]) for net in networks]
    right = [float((logits.argmax(1) == labels).double().mean()) for logits in answers]
    entropy = [float(nn.functional.cross_entropy(logits, labels)) for logits in answers]
    assert len(set(right)) > 1  # or there was nothing to choose
    assert result.tried == pytest.approx(right)
    best = max(range(6), key=lambda k: (right[k], -entropy[k]))
    for name, value in networks[best].state_dict().items():
        torch.testing.assert_close(result.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_validation_has_nothing_to_choose_where_nothing_is_merged():
    model, batches = network(), images()
    score = partial(score_logits, labels=torch.zeros(20, dtype=torch.int64))
    validation = StartValidation(images(20), score)
    plain, judged = (
        pruned(model, {"3": 4}, batches, validation=given) for given in (None, validation)
    )
    assert judged.tried == ()
    assert all(
        torch.equal(value, judged.model.state_dict()[name])
        for name, value in plain.model.state_dict().items()
    )


def test_a_reader_is_refitted_by_least_squares_over_patches():
    # Far more samples than inputs, so that the ridge hardly matters.
    model, batches = network(), images(256)
    result = pruned(model, {"3": 4}, batches)
    stay = result.survivors["3"]
    with torch.no_grad():
        into = torch.cat([model[:6](batch)[:, stay] for batch in batches])
        target = torch.cat([model[:7](batch) for batch in batches])
    patches = nn.functional.unfold(into, 3).transpose(1, 2).flatten(0, 1).double().numpy()
    ones = np.ones((len(patches), 1))
    wanted = target.flatten(2).transpose(1, 2).flatten(0, 1).double().numpy()
    found, *_ = np.linalg.lstsq(np.hstack([patches, ones]), wanted, rcond=None)
    layer = result.model[6]
    got = layer.weight.detach().flatten(1).T.double().numpy()
    # Fitted on some positions, not on all of them, and with a little ridge.
    assert np.abs(got - found[:-1]).max() < 0.1 * np.abs(found[:-1]).max()
    errors = {}
    for name, weights, offset in (
        ("best", found[:-1], found[-1]),
        ("ours", got, layer.bias.detach().double().numpy()),
        (
            "left",
            model[6].weight.detach()[:, stay].flatten(1).T.double().numpy(),
            model[6].bias.detach().double().numpy(),
        ),
    ):
        errors[name] = float(np.square(patches @ weights + offset - wanted).mean())
    assert errors["ours"] < 1.02 * errors["best"] < 0.9 * errors["left"]


def test_an_offset_that_a_layer_lacks_goes_into_its_batch_norm():
    model, batches = network(), images()
    groups = find_groups(model, torch.empty(1, 3, SIZE, SIZE)).found
    assert norms_after(model, batches[0][:1]) == {"0": "1", "3": "4"}
    seen = survey(model, groups, batches)
    result = prune_groups(model, groups, seen, {"0": 4, "3": 6, "6": 5, "10": 9}, batches)
    assert result.model[3].bias is None
    assert not torch.equal(result.model[4].running_mean, model[4].running_mean)
    with torch.no_grad():
        given = torch.cat([model[:5](batch) for batch in batches])
        found = torch.cat([result.model[:5](batch) for batch in batches])
    off = (found - given).mean((0, 2, 3)).abs() / given.std((0, 2, 3))
    assert off.max() < 0.03


def test_refitting_can_be_left_out_and_survivors_can_be_given():
    model, batches = network(), images()
    groups = find_groups(model, torch.empty(1, 3, SIZE, SIZE)).found
    seen = survey(model, groups, batches)
    kept = {"0": 8, "3": 6, "6": 2, "10": 9}
    stay = {"6": torch.tensor([0, 3])}
    plain = prune_groups(model, groups, seen, kept, batches, survivors=stay, refitting=False)
    assert torch.equal(plain.model[6].weight, model[6].weight[[0, 3]])
    refitted = prune_groups(model, groups, seen, kept, batches, survivors=stay)
    assert torch.equal(refitted.survivors["6"], stay["6"])
    assert far(model, refitted.model, batches) < far(model, plain.model, batches)


def test_only_linear_layers_in_a_chain_are_merged():
    model = network()
    groups = find_groups(model, torch.empty(1, 3, SIZE, SIZE)).found
    batches = images()
    seen = survey(model, groups, batches)
    assert mergeable(model, groups, seen) == {"10": "12"}
    kept = {"0": 8, "3": 6, "6": 5, "10": 2}
    merged = prune_groups(model, groups, seen, kept, batches)
    chosen = prune_groups(model, groups, seen, kept, batches, merging=False)
    assert (merged.merged, chosen.merged) == (("10",), ())
    # Selected units keep their own weights, merged ones do not.
    assert torch.equal(chosen.model[10].weight, model[10].weight[chosen.survivors["10"]])
    assert not torch.equal(merged.model[10].weight, model[10].weight[merged.survivors["10"]])


def test_mirrored_views_are_no_new_images():
    model, batches = network(), images(32)
    groups = find_groups(model, torch.empty(1, 3, SIZE, SIZE)).found
    both = [*batches, *(batch.flip(-1) for batch in batches)]
    seen = survey(model, groups, both, copies=2)
    alone = survey(model, groups, both)
    # Fewer images for the same sums: more shrinkage, so that less is thought to be rebuilt.
    for name, curve in seen.eliminations.items():
        assert float(curve.loss[-1]) != float(alone.eliminations[name].loss[-1])


def test_importance_is_the_mean_square_of_a_random_derivative():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).eval()
    model[0].weight.requires_grad_(False)
    x = torch.randn(24, 5)
    found = importance(model, ["0", "2"], [x], seed=7, num_images=24).each
    signs = []
    generator = torch.Generator().manual_seed(7)
    for part in x.split(16):
        signs.append(torch.randint(0, 2, (len(part), 3), generator=generator) * 2 - 1)
    sign = torch.cat(signs).double()
    hidden = torch.tanh(model[0](x)).double().detach()
    inner = (sign @ model[2].weight.double().detach()) * (1 - hidden.square())
    torch.testing.assert_close(found["0"].double(), inner.square().mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["2"], torch.ones(3))
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("hidden", ["few images", "equal units", "dead units", "all dead"])
@pytest.mark.parametrize("keep", [21, 30, 31])
def test_merging_keeps_as_many_units_as_were_planned(hidden: str, keep: int):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    with torch.no_grad():
        if hidden == "equal units":
            model[1].weight.copy_(model[1].weight[:8].repeat(4, 1))
            model[1].bias.copy_(model[1].bias[:8].repeat(4))
        elif hidden == "dead units":
            model[1].bias[5:20] = -1e3
        elif hidden == "all dead":
            model[1].bias.fill_(-1e3)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(6 if hidden == "few images" else 32, 3, 4, 4, generator=generator)]
    groups = find_groups(model, torch.empty(1, 3, 4, 4)).found
    seen = survey(model, groups, batches)
    done = prune_groups(model, groups, seen, {"1": keep}, batches)
    assert done.merged == ("1",)
    assert len(done.survivors["1"]) == done.model[1].out_features == keep
    assert done.model[3].in_features == keep
    with torch.no_grad():
        away = done.model(batches[0]) - model(batches[0])
    assert away.abs().max() < 0.3


def test_a_very_wide_layer_is_seen_through_few_samples():
    wide, usual = nn.Conv2d(1024, 2, 3, device="meta"), nn.Conv2d(512, 2, 3, device="meta")
    assert _num_positions(wide, 16) * 16 == 2048
    assert _num_positions(usual, 16) * 16 == 4 * 512 * 9


@pytest.mark.parametrize("samples", [60, 3000])  # few for a ridge by leave-one-out, and many
def test_a_layer_that_takes_no_offset_is_fitted_without_one(samples: int):
    """The best weights alone, which the best weights with an offset are not without it."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 24, bias=False), nn.ReLU(), nn.Linear(24, 5, bias=False)
    ).eval()
    x = torch.randn(samples, 4) @ torch.randn(4, 8) + 1.0
    groups = find_groups(net, x[:1]).found
    kept = {"0": torch.arange(0, 24, 3)}
    seen = survey(net, groups, [x])
    done = prune_groups(net, groups, seen, {"0": 8}, [x], merging=False, survivors=kept)
    with torch.no_grad():
        given, wanted = done.model[:2](x).double().numpy(), net(x).double().numpy()
        found = done.model(x).double().numpy()

    def error(weights: Any) -> float:
        return float(np.square(given @ weights - wanted).mean())

    best = error(np.linalg.lstsq(given, wanted, rcond=None)[0])
    means = given.mean(0), wanted.mean(0)
    centred = error(np.linalg.lstsq(given - means[0], wanted - means[1], rcond=None)[0])
    assert float(np.square(found - wanted).mean()) < (best + centred) / 2
