"""Every cell of a grid against the same cut made by itself."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from secateurs.errors import InputError
from secateurs.prune.compensation.outgoing_weights import least_squares
from secateurs.prune.compensation.ridge import dual_ridge
from secateurs.prune.compensation.shared_ridge import share
from secateurs.prune.layer import PruneOptions, compensate, prune_layer
from secateurs.prune.layer_grid import BUDGET_BYTES, GridOptions, LayerView, grid_cells, view_layer
from secateurs.prune.selection.pairwise import pairwise
from secateurs.prune.selection.published_rule import published
from secateurs.prune.similarity.normalise import outside_norms
from secateurs.prune.surgery.removal import remove_units

ANGLES = (5.0, 12.0, 30.0, 20.0)
STDS = (1.0, 0.0, 0.5, 2.0)
UNITS, SAMPLES, IMAGES = 90, 30, 17


def network(seed: int = 0, *, units: int = UNITS, bias: bool = True) -> nn.Sequential:
    """Two linear layers and a head; some units of the first are dead, some nearly equal."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        layer, last = nn.Linear(12, units, bias=bias), nn.Linear(units, 6, bias=bias)
        with torch.no_grad():
            layer.weight[1::5] = layer.weight[0::5] + 0.05 * torch.randn(units // 5, 12)
            layer.weight[4::15] = -layer.weight[3::15]
            if bias:
                layer.bias[2::9] = -100
        steps = (nn.Dropout(), layer, nn.ReLU(inplace=True), nn.Dropout(), last, nn.ReLU())
        return nn.Sequential(*steps, nn.Linear(6, 3))


def inputs(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(SAMPLES, 12, generator=generator),
        torch.randn(IMAGES, 12, generator=generator),
    )


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    return network().train()


@pytest.fixture(scope="module")
def view(model: nn.Sequential) -> LayerView:
    return view_layer(model, "1", *inputs())


def test_a_view_gives_the_networks_own_answers(model: nn.Sequential, view: LayerView):
    train, images = inputs()
    modes = [module.training for module in model.modules()]
    view_layer(model, "1", train, images)
    assert [module.training for module in model.modules()] == modes
    with torch.no_grad():
        expected = model.eval()(images)
        received = model[:4](train)
    model.train()
    got = view.logits(view.answer(view.receive(view.outputs)))
    assert torch.allclose(got, expected, atol=1e-6)
    assert torch.equal(view.train, received)


@pytest.mark.parametrize("budget", [BUDGET_BYTES, 0])
@pytest.mark.parametrize("step", ["drop", "add", "affine", "least_squares"])
def test_pairwise_cells_equal_direct_calls(model, view: LayerView, step, budget: int):
    cells = grid_cells(view, GridOptions(ANGLES, STDS, "pairwise", step), budget_bytes=budget)
    assert [(c.norm_std, c.low_deg) for c in cells] == list(itertools.product(STDS, ANGLES))
    counts = set()
    for cell in cells:
        angle = cell.low_deg
        chosen = pairwise(view.train, low_deg=angle, high_deg=180 - angle, norm_std=cell.norm_std)
        assert cell.alive.nonzero().flatten().tolist() == chosen.survivors.tolist()
        assert cell.num_removed == len(chosen.removed)
        candidates = outside_norms(chosen.norm, cell.norm_std) & ~(chosen.dead | chosen.constant)
        assert cell.num_candidates == int(candidates.sum())
        new = compensate(step, view.train, view.weight, view.offset, chosen)
        pruned = remove_units(model, "1", chosen.survivors, weight=new.weight, bias=new.bias)
        with torch.no_grad():
            expected = pruned.eval()(inputs()[1])
        # The direct refit's weights are rounded to float32, with large ones under a small ridge.
        atol = 2e-4 if step == "least_squares" else 2e-6
        assert torch.allclose(cell.logits, expected, atol=atol)
        assert cell.ridge == new.ridge
        counts.add(cell.num_removed)
    assert len(counts) > 8  # the cells do differ


@pytest.mark.parametrize("budget", [BUDGET_BYTES, 0])
@pytest.mark.parametrize(("bias", "copies"), [(True, 1), (False, 1), (True, 2)])
def test_merged_cells_equal_networks_pruned_one_at_a_time(bias: bool, copies: int, budget: int):
    model = network(5, bias=bias)
    train, images = inputs()
    view = replace(view_layer(model, "1", train, images), copies=copies)
    groups = 0
    for cell in grid_cells(
        view, GridOptions(ANGLES, STDS, "pairwise", "merge"), budget_bytes=budget
    ):
        options = PruneOptions(
            low_deg=cell.low_deg,
            high_deg=180 - cell.low_deg,
            norm_std=cell.norm_std,
            compensation="merge",
            copies=copies,
        )
        alone = prune_layer(model, "1", train, options=options)
        assert cell.alive.nonzero().flatten().tolist() == alone.selection.survivors.tolist()
        grouped = int((alone.selection.parent >= 0).sum())
        if grouped:  # else there is nothing to fit but rounding
            assert cell.ridge == alone.outgoing.ridge
        with torch.no_grad():
            assert torch.allclose(cell.logits, alone.model.eval()(images), atol=2e-4)
        groups += grouped
    assert groups > 50


def test_merging_needs_the_layers_own_outputs(view: LayerView):
    with pytest.raises(InputError, match="merge needs what the layer gives on the training"):
        grid_cells(replace(view, before=None), GridOptions(ANGLES, STDS, "pairwise", "merge"))


@pytest.mark.parametrize("step", ["add", "affine"])
def test_equal_survivors_with_other_parents_are_other_cells(step):
    generator = torch.Generator().manual_seed(0)
    train = torch.randn(12, 4, generator=generator) @ torch.randn(4, 30, generator=generator)
    train = train.clamp(min=0)
    weight = torch.randn(3, 30, generator=generator)
    view = LayerView(
        train=train,
        outputs=train,
        bias=None,
        between=nn.Sequential(),
        weight=weight,
        offset=None,
        rest=nn.Sequential(),
    )
    stds = tuple(k / 10 for k in range(20))
    parents: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for cell in grid_cells(view, GridOptions((10.0, 14.0), stds, "pairwise", step)):
        angle = cell.low_deg
        chosen = pairwise(train, low_deg=angle, high_deg=180 - angle, norm_std=cell.norm_std)
        new = compensate(step, train, weight, None, chosen)
        expected = train[:, chosen.survivors] @ new.weight.T + new.bias
        assert torch.allclose(cell.logits, expected, atol=1e-5)
        found = parents.setdefault(tuple(chosen.survivors.tolist()), set())
        found.add(tuple(chosen.parent.tolist()))
    assert any(len(found) > 1 for found in parents.values())


@pytest.mark.parametrize("budget", [BUDGET_BYTES, 0])
@pytest.mark.parametrize("bias", [True, False])
def test_published_cells_equal_direct_calls(bias: bool, budget: int):
    model = network(3, bias=bias)
    view = view_layer(model, "1", *inputs())
    cells = grid_cells(view, GridOptions(ANGLES, STDS, "published"), budget_bytes=budget)
    layer = model[1]
    counts = set()
    for cell in cells:
        direct = published(view.train, layer.weight, low_deg=cell.low_deg, norm_std=cell.norm_std)
        assert torch.equal(~cell.alive, direct.removed)
        assert cell.num_removed == direct.num_removed
        changed = network(3, bias=bias).eval()
        with torch.no_grad():
            changed[1].weight.copy_(direct.weight)
            expected = changed(inputs()[1])
        scale = expected.abs().max()
        assert torch.allclose(cell.logits / scale, expected / scale, atol=1e-5)
        counts.add(cell.num_removed)
    assert len(counts) > 5


@pytest.mark.parametrize("budget", [BUDGET_BYTES, 0])
def test_published_takes_an_undefined_angle_for_opposite(budget: int):
    view = view_layer(network(), "1", *inputs())
    received = torch.rand(SAMPLES, UNITS, generator=torch.Generator().manual_seed(2))
    received[0, 0], received[1, 0] = 0, 1
    received[:, [5, 40]] = 0.5  # zero after the mapping to [-0.5, 0.5]
    view = LayerView(**(view.__dict__ | {"train": received}))
    weight = torch.randn(UNITS, 12, generator=torch.Generator().manual_seed(3))
    cells = grid_cells(view, GridOptions(ANGLES, STDS, "published"), budget_bytes=budget)
    for cell in cells:
        direct = published(received, weight, low_deg=cell.low_deg, norm_std=cell.norm_std)
        assert torch.equal(~cell.alive, direct.removed)
    assert any(bool((~cell.alive)[40]) for cell in cells)


def test_published_finds_nothing_in_a_layer_that_never_changes():
    view = view_layer(network(), "1", *inputs())
    view = LayerView(**(view.__dict__ | {"train": torch.ones(SAMPLES, UNITS)}))
    cells = grid_cells(view, GridOptions((10.0,), (0.0,), "published"))
    assert cells[0].num_removed == 0
    assert published(view.train, torch.eye(UNITS), low_deg=10, norm_std=0).num_removed == 0


@pytest.mark.parametrize("samples", [20, 300])
def test_the_shared_refit_is_the_direct_one(samples: int):
    """With fewer samples than survivors and more, and with more outputs than samples."""
    generator = torch.Generator().manual_seed(4)
    train = torch.rand(samples, 60, generator=generator)
    images = torch.rand(9, 60, generator=generator)
    for outputs in (3, 400):
        weight = torch.randn(outputs, 60, generator=generator)
        bias = torch.randn(outputs, generator=generator)
        chosen = pairwise(train, low_deg=25, high_deg=None)
        alive = torch.zeros(60, dtype=torch.bool)
        alive[chosen.survivors] = True
        kept = alive.clone()
        kept[chosen.survivors[::3]] = False
        answers = nn.functional.linear(images, weight, bias)
        direct = least_squares(train, weight, bias, chosen)
        expected = nn.functional.linear(images[:, chosen.survivors], direct.weight, direct.bias)
        for common in (kept, alive, torch.zeros_like(alive)):
            shared = share(train, images, weight, answers, common)
            got, ridge = shared.refit(alive)
            assert ridge == direct.ridge
            assert torch.allclose(got.float(), expected, atol=1e-3)


def test_a_ridge_on_inputs_that_never_change_changes_nothing():
    zero = torch.zeros(5, 5, dtype=torch.float64)
    coefficients, ridge = dual_ridge(zero, torch.ones(5, 2, dtype=torch.float64), 3, [0.1, 1.0])
    assert (coefficients.abs().max(), ridge) == (0, 0.1)


@pytest.mark.parametrize("step", ["drop", "add", "least_squares", "merge"])
@pytest.mark.parametrize("budget", [BUDGET_BYTES, 0])
def test_a_cell_that_would_remove_every_unit_is_marked(step, budget: int):
    model = network()
    with torch.no_grad():
        model[1].bias.fill_(-1000)
    view = view_layer(model, "1", *inputs())
    options = GridOptions((5.0, 10.0), (0.0, 1.0), "pairwise", step)
    cells = grid_cells(view, options, budget_bytes=budget)
    assert [(cell.logits, cell.num_removed) for cell in cells] == [(None, UNITS)] * 4


def test_cells_do_not_depend_on_each_other(view: LayerView):
    whole = {(c.norm_std, c.low_deg): c for c in grid_cells(view, GridOptions(ANGLES, STDS))}
    (alone,) = grid_cells(view, GridOptions((12.0,), (0.5,)))
    assert torch.equal(alone.alive, whole[0.5, 12.0].alive)
    assert torch.allclose(alone.logits, whole[0.5, 12.0].logits, atol=1e-6)


def test_the_model_and_the_view_are_left_as_they_were(view: LayerView):
    before = {key: getattr(view, key).clone() for key in ("train", "outputs", "weight", "offset")}
    for rule in ("pairwise", "published"):
        grid_cells(view, GridOptions(ANGLES, STDS, rule))
    assert all(torch.equal(getattr(view, key), value) for key, value in before.items())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (GridOptions((), (1.0,)), "angles_deg: expected at least one number, got none"),
        (GridOptions((5.0,), ()), "norm_stds: expected at least one number"),
        (GridOptions((5.0, 7.0, 5.0), (1.0,)), "angles_deg: 5 is given twice"),
        (GridOptions((5.0,), (1.0, 1.0)), "norm_stds: 1 is given twice"),
        (GridOptions((5.0,), (-0.5,)), "norm_stds is out of range: -0.5; expected a number from 0"),
        (GridOptions((5.0,), (float("nan"),)), "norm_stds is out of range: nan"),
        (GridOptions((90.0,), (1.0,)), "angles_deg: expected degrees, at least 0 and below 90"),
        (GridOptions((-1.0,), (1.0,)), "below 90 .* got -1"),
        (GridOptions((200.0,), (1.0,)), "got 200"),
        (GridOptions((float("nan"),), (1.0,)), "got nan"),
        (GridOptions((0.0,), (1.0,), "published"), "above 0 and below 90"),
        (GridOptions((5.0,), (1.0,), "nearest"), "rule: expected one of pairwise, published"),
        (GridOptions((5.0,), (1.0,), "pairwise", "ad"), "compensation: expected one of drop, add"),
        (GridOptions(tuple(k / 4 for k in range(256)), (1.0,)), "at most 255, got 256"),
    ],
)
def test_bad_options(view: LayerView, options: GridOptions, text: str):
    with pytest.raises(InputError, match=text):
        grid_cells(view, options)


def test_angle_zero_removes_dead_units_alone(view: LayerView):
    (cell,) = grid_cells(view, GridOptions((0.0,), (0.0,)))
    assert torch.equal(~cell.alive, (view.train == 0).all(0))


def test_layers_that_cannot_be_viewed():
    with pytest.raises(InputError, match="layers that can be pruned: 1, 4"):
        view_layer(network(), "9", *inputs())
    nested = nn.Sequential(nn.Sequential(nn.Linear(12, 8), nn.ReLU()), nn.Linear(8, 3))
    with pytest.raises(InputError, match=r"layer 0\.0: the network cannot be run from 1 on"):
        view_layer(nested, "0.0", *inputs())
