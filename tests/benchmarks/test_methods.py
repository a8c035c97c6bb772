"""The methods of others in `benchmarks/pruning/methods`, each against its own formula."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "pruning" / "methods"))

import choices
import refits

from secateurs.prune.coupling.groups import Group, find_groups


def network(width: int = 6, *, norm: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(width))
        with torch.no_grad():
            layers[1].weight.uniform_(0.5, 1.5)
            layers[1].bias.normal_()
            layers[1].running_mean.normal_(0, 0.3)
            layers[1].running_var.uniform_(0.5, 1.5)
    layers += [nn.ReLU(), nn.Conv2d(width, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4, 2)).eval()


def images(num: int = 24) -> Tensor:
    return torch.randn(num, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def first_group(model: nn.Module) -> list[Group]:
    return [group for group in find_groups(model, images(1)).found if group.name == "0"]


def received(model: nn.Module, batches: list[Tensor]) -> refits.Received:
    return refits.Received(model, refits.reader_paths(first_group(model)), batches)


def far(model: nn.Module, other: nn.Module) -> float:
    with torch.no_grad():
        return float((model(images(40)) - other(images(40))).abs().max())


def test_scores_of_filters_are_their_formulas():
    model = network()
    groups, weight = first_group(model), model[0].weight.detach()
    for k in range(6):
        assert choices.l1(model, groups)["0"][k] == pytest.approx(weight[k].abs().sum().item())
        length = weight[k].square().sum().sqrt().item()
        assert choices.l2(model, groups)["0"][k] == pytest.approx(length)
        away = sum((weight[k] - weight[j]).square().sum().sqrt().item() for j in range(6))
        found = choices.geometric_median(model, groups)["0"][k]
        assert found == pytest.approx(away, rel=1e-4)


def test_taylor_is_the_squared_first_order_change_of_the_loss():
    model, x = network().double(), images(10).double()
    found = choices.taylor(model, first_group(network()), [x[:4], x[4:]])["0"]
    with torch.no_grad():
        labels = model(x).argmax(1)
    weight = model[0].weight
    for k in (0, 3):
        change: list[float] = []
        for step in (1e-3, -1e-3):  # of all weights of a filter towards zero
            with torch.no_grad():
                kept = weight[k].clone()
                weight[k] *= 1 + step
                change.append(nn.functional.cross_entropy(model(x), labels).item())
                weight[k] = kept
        slope = (change[0] - change[1]) / 2e-3
        assert found[k].item() == pytest.approx(slope**2, rel=1e-3)


def test_isomorphic_widths_rank_only_groups_alike_together():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    groups = list(find_groups(model, torch.rand(1, 4)).found)
    scores = {"0": torch.tensor([1.0, 1, 1, 5]), "2": torch.tensor([2.0, 2, 2, 2])}
    kept = choices.isomorphic_kept(model, groups, scores, 0.375)
    # Relative to the means: 0.5, 0.5, 0.5, 2.5 and four times 1; three of eight go.
    assert kept == {"0": 1, "2": 4}


def test_grail_is_ridge_regression_of_all_channels_on_those_that_stay():
    model, x = network(), images()
    groups, units = first_group(model), {"0": torch.tensor([0, 2, 5])}
    small = refits.grail(model, groups, units, received(model, [x[:9], x[9:]]))
    with torch.no_grad():
        rows = model[2](model[1](model[0](x))).movedim(1, -1).flatten(0, -2).double()
    gram = rows.T @ rows / len(rows)
    lift = (refits.RIDGE * gram.diagonal().mean()).sqrt()
    some = torch.cat([rows[:, [0, 2, 5]] / len(rows) ** 0.5, lift * torch.eye(3).double()])
    wanted = torch.cat([rows / len(rows) ** 0.5, torch.zeros(3, 6).double()])
    back = torch.linalg.lstsq(some, wanted).solution.T  # (channels, channels that stay)
    expected = torch.einsum("oihw,ij->ojhw", model[3].weight.double(), back)
    torch.testing.assert_close(small[3].weight.double(), expected, rtol=1e-4, atol=1e-6)


def test_corp_leaves_a_network_as_it_is_where_the_rest_gives_all_by_an_affine_map():
    model, x = network(norm=False), images()
    with torch.no_grad():  # positive everywhere, so that the ReLU does nothing
        model[0].bias += 20
        model[0].weight[4] = model[0].weight[1] - model[0].weight[3]
    groups, units = first_group(model), {"0": torch.tensor([0, 1, 2, 3, 5])}
    seen = received(model, [x])
    affine = refits.corp(model, groups, units, seen)
    assert far(model, affine) < 0.02 < far(model, refits.plain(model, groups, units))


def test_obspa_eliminates_as_the_optimal_brain_surgeon_does_one_by_one():
    model, x = network(), images()
    groups, seen = first_group(model), received(model, [x])
    units = [0, 2, 3, 5]
    small = refits.obspa(model, groups, {"0": torch.tensor(units)}, seen)
    gram = seen.second("3")
    gram = gram + refits.DAMPING * gram.diagonal().mean() * torch.eye(6).double()
    inverse, weight = torch.linalg.inv(gram), model[3].weight.detach().double().clone()
    squares = weight.square().sum((0, 2, 3)) / inverse.diagonal()
    torch.testing.assert_close(refits.obspa_scores(model, groups, seen)["0"], squares)
    for gone in (1, 4):
        row = inverse[gone] / inverse[gone, gone]
        weight -= torch.einsum("ohw,j->ojhw", weight[:, gone], row)
        inverse = inverse - torch.outer(inverse[:, gone], inverse[gone]) / inverse[gone, gone]
        inverse[gone, gone] = 1.0  # it is not there any more
    torch.testing.assert_close(small[3].weight.double(), weight[:, units], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("with_grail", [False, True])
def test_folding_copies_changes_nothing(with_grail: bool):
    model, x = network(), images()
    with torch.no_grad():
        for tensor in (
            model[0].weight,
            *(getattr(model[1], n) for n in ("weight", "bias")),
            model[1].running_mean,
            model[1].running_var,
        ):
            tensor[4], tensor[5] = tensor[1], tensor[2]
    groups = first_group(model)
    assigned = refits.fold_clusters(model, groups, {"0": 4})
    assert assigned["0"][4] == assigned["0"][1] and assigned["0"][5] == assigned["0"][2]
    seen = received(model, [x]) if with_grail else None
    small, units = refits.folded(model, groups, assigned, seen)
    assert small[0].out_channels == len(units["0"]) == 4
    assert far(model, small) < (1e-2 if with_grail else 1e-5)


def test_folding_takes_means_of_what_makes_and_sums_of_what_reads():
    model = network()
    assigned = {"0": torch.tensor([0, 1, 0, 2, 1, 2])}
    small, units = refits.folded(model, first_group(model), assigned)
    assert units["0"].tolist() == [0, 1, 3]
    pairs = [(0, 2), (1, 4), (3, 5)]
    for place, pair in enumerate(pairs):
        torch.testing.assert_close(small[0].weight[place], model[0].weight[[*pair]].mean(0))
        mean = model[1].running_var[[*pair]].mean()
        torch.testing.assert_close(small[1].running_var[place], mean)
        torch.testing.assert_close(small[3].weight[:, place], model[3].weight[:, [*pair]].sum(1))


def test_neuron_merging_keeps_scaled_copies_exactly_also_through_batch_norm():
    model = network()
    with torch.no_grad():
        model[0].weight[4] = 2 * model[0].weight[1]
        model[1].running_mean[4] = 2 * model[1].running_mean[1]
        model[1].running_var[4] = 4 * (model[1].running_var[1] + model[1].eps) - model[1].eps
        model[1].weight[4], model[1].bias[4] = 0.5 * model[1].weight[1], 0.5 * model[1].bias[1]
    units = {"0": torch.tensor([0, 1, 2, 3, 5])}
    assert far(model, refits.neuron_merging(model, first_group(model), units)) < 1e-5


def test_neuron_merging_takes_the_nearest_by_cosine_and_leaves_out_what_is_far():
    rows = torch.tensor([[1.0, 0], [0, 1], [3, 1], [-1, -0.2]])
    found = refits.merging_matrix(rows, torch.tensor([0, 1]), None)
    assert found[:2].tolist() == [[1, 0], [0, 1]]
    assert found[2].tolist() == [pytest.approx(10**0.5), 0]
    assert found[3].tolist() == [0, 0]  # both cosines are negative
