from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from secateurs.prune.compensation.batch_norm import (
    Change,
    change_of,
    measure_norms,
    norm_layers,
    outputs_of,
    settle_norms,
)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.BatchNorm2d(5),
        nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    )  # fmt: skip
    return model.eval()


def images(count: int = 90) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, 9, 9, generator=generator)
    return x + torch.arange(count).view(-1, 1, 1, 1) / count  # brighter along the folder


def test_moments_are_pooled_over_images_and_not_a_mean_over_batches():
    model, x = network(), images()
    measure_norms(model, [x[:50], x[50:89], x[89:]])
    with torch.no_grad():
        into = model[0](x).double()
    # Batches of different levels: a mean over their variances would miss what is between them.
    torch.testing.assert_close(
        model[1].running_mean.double(), into.mean((0, 2, 3)), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        model[1].running_var.double(), into.var((0, 2, 3)), rtol=1e-5, atol=1e-6
    )
    assert model[1].momentum == 0.1 and not any(module.training for module in model.modules())


def test_one_batch_gives_what_a_training_pass_of_torch_gives():
    model, x = network(), images()
    other = copy.deepcopy(model)
    measure_norms(model, [x])
    for path in norm_layers(other):
        layer = other.get_submodule(path)
        layer.momentum = 1.0
        layer.train()
    other(x)
    for path, layer in norm_layers(model).items():
        torch.testing.assert_close(layer.running_mean, other.get_submodule(path).running_mean)
        torch.testing.assert_close(layer.running_var, other.get_submodule(path).running_var)


@pytest.mark.parametrize("batches", [[], [images(1)], [images(2)[:1], images(2)[1:]]])
def test_one_image_or_none_is_no_error(batches):
    model = network()
    before = copy.deepcopy(model.state_dict())
    measure_norms(model, batches)
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    if len(batches) < 2:
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_change_is_relative_to_the_variance_of_the_outputs():
    whole = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    away = 0.1 * torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    found = change_of(whole + away, whole)
    assert found.squared == pytest.approx(float(away.square().sum(1).mean()), rel=1e-4)
    spread = float(whole.var(0, correction=0).sum())
    assert found.relative == pytest.approx(found.squared / spread, rel=1e-4)
    for scale in (1e-30, 1e18):
        scaled = change_of((whole + away).double() * scale, whole.double() * scale)
        assert scaled.relative == pytest.approx(found.relative, rel=1e-5)
    assert change_of(torch.ones(3, 2), torch.ones(3, 2)) == Change(0.0, 0.0)


def test_statistics_that_fit_are_kept_and_wrong_ones_are_measured_again():
    model, x = network(), images()
    batches = [x[::2], x[1::2]]
    measure_norms(model, batches)
    whole = outputs_of(model, [x])
    kept = copy.deepcopy(model)
    choice = settle_norms(kept, whole, [x], batches)
    assert choice.chosen == "kept" and choice.tried["kept"].squared == 0
    assert all(
        torch.equal(a, b)
        for a, b in zip(kept.state_dict().values(), model.state_dict().values(), strict=True)
    )
    wrong = copy.deepcopy(model)
    wrong[1].running_mean.add_(3.0)
    wrong[1].running_var.mul_(9.0)
    choice = settle_norms(wrong, whole, [x], batches)
    assert choice.chosen == "measured"
    assert choice.tried["measured"].squared < 0.1 * choice.tried["kept"].squared
    torch.testing.assert_close(outputs_of(wrong, [x]), whole, rtol=0.1, atol=0.05)


def test_the_variance_that_a_refit_implies_is_taken_where_it_is_nearest():
    model, x = network(), images()
    measure_norms(model, [x])
    whole = outputs_of(model, [x])
    shrunk = copy.deepcopy(model)
    with torch.no_grad():
        shrunk[0].weight.mul_(0.5)
        shrunk[0].bias.mul_(0.5)
        shrunk[1].running_mean.mul_(0.5)
    implied = {"1": torch.full((6,), 0.25)}
    # Too few images to measure on.
    choice = settle_norms(shrunk, whole, [x], [x[:4]], implied=implied)
    assert choice.chosen == "implied"
    torch.testing.assert_close(outputs_of(shrunk, [x]), whole, rtol=1e-3, atol=1e-3)


def test_a_network_without_batch_norm_is_left_as_it_is():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    x = torch.randn(5, 3, 2, 2)
    choice = settle_norms(model, outputs_of(model, [x]), [x], [x])
    assert (choice.chosen, list(choice.tried)) == ("kept", ["kept"])


def test_outputs_that_do_not_vary_are_not_changed_by_rounding():
    whole = torch.full((20, 3), 0.7)
    whole[:, 0] += 1e-7 * torch.arange(20)
    assert change_of(whole + 1e-5, whole).relative < 1e-3
    assert change_of(whole + 0.7, whole).relative > 1e3
    assert change_of(torch.ones(4, 2), torch.zeros(4, 2)).relative > 1e3


def test_statistics_and_outputs_over_samples_of_several_sizes():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    batches = [torch.randn(3, 3, 4, 4), torch.randn(1, 3, 2, 6), torch.randn(1, 3, 4, 4)]
    measure_norms(model, batches)
    with torch.no_grad():
        seen = torch.cat([model[0](batch).transpose(0, 1).flatten(1) for batch in batches], 1)
    torch.testing.assert_close(model[1].running_mean, seen.mean(1))
    torch.testing.assert_close(model[1].running_var, seen.var(1))
    found = outputs_of(nn.Flatten(), batches)
    assert found.shape == (5, 36)  # as many values as the smallest has, their squares' sum as large
    scaled = found[0] * (36 / 48) ** 0.5
    nearest = (scaled[:, None] - batches[0][0].flatten()).abs().min(1).values
    assert float(nearest.max()) < 1e-6


def test_the_change_of_one_sample_is_relative_to_its_squares():
    change = change_of(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 2.0]]))
    assert (change.squared, change.relative) == (1.0, 0.2)
