from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.covariance import OAS
from torch import Tensor, nn

from secateurs.errors import InputError
from secateurs.prune.allocation import all_groups
from secateurs.prune.allocation.elimination import (
    Checks,
    Elimination,
    Reader,
    _eliminate,
    _step,
    eliminate,
    shrinkage,
    step_of_fixed_size,
)
from secateurs.prune.allocation.survey import _Sums

RIDGE = 1e-3


def made(samples: int, inputs: int, outputs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return normal(samples, inputs) @ normal(inputs, inputs), normal(inputs, outputs)


def loss_of(x: Tensor, weight: Tensor, columns: Tensor, gone: set[int], ridge: float) -> float:
    """What the rest cannot rebuild, by the normal equations of the ridged problem, in NumPy."""
    rows = x.numpy()
    lift = ridge * (rows**2).sum() / len(rows) / rows.shape[1]
    hessian = rows.T @ rows / len(rows) + lift * np.eye(rows.shape[1])
    lost = np.concatenate([columns[unit].numpy() for unit in sorted(gone)])
    rest = np.setdiff1d(np.arange(rows.shape[1]), lost)
    change = np.zeros(weight.shape)
    change[lost] = -weight.numpy()[lost]
    change[rest] = -np.linalg.solve(
        hessian[np.ix_(rest, rest)], hessian[np.ix_(rest, lost)] @ change[lost]
    )
    return float((change * (hessian @ change)).sum())


@pytest.mark.parametrize("kind", ["gram", "rows"])
@pytest.mark.parametrize(
    ("samples", "units", "width"), [(60, 6, 3), (10, 8, 3), (40, 7, 1), (5, 9, 1)]
)
def test_the_order_and_loss_are_those_of_trying_every_unit(
    kind: str, samples: int, units: int, width: int
):
    x, weight = made(samples, units * width, 4)
    columns = torch.randperm(units * width).view(units, width)
    if kind == "gram":
        reader = Reader(weight, columns, samples, gram=x.T @ x / samples)
    else:
        reader = Reader(weight, columns, samples, rows=x)
    found = eliminate([reader], ridge=RIDGE)
    gone: set[int] = set()
    for step in range(units - 1):
        losses = {
            unit: loss_of(x, weight, columns, gone | {unit}, RIDGE)
            for unit in range(units)
            if unit not in gone
        }
        best = min(losses, key=losses.__getitem__)
        assert int(found.order[step]) == best
        assert float(found.loss[step]) == pytest.approx(losses[best], rel=2e-3, abs=1e-5)
        gone.add(best)
    assert sorted(found.order.tolist()) == list(range(units))


def test_losses_of_two_readers_add():
    (x, weight), (y, other) = made(50, 6, 3), made(40, 12, 2, seed=1)
    columns = torch.arange(6)[:, None], torch.arange(12).view(6, 2)
    readers = [
        Reader(weight, columns[0], 50, gram=x.T @ x / 50),
        Reader(other, columns[1], 40, rows=y),
    ]
    found = eliminate(readers, ridge=RIDGE)
    for step in (0, 2, 4):
        gone = set(found.order[: step + 1].tolist())
        expected = loss_of(x, weight, columns[0], gone, RIDGE)
        expected += loss_of(y, other, columns[1], gone, RIDGE)
        assert float(found.loss[step]) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("kind", ["gram", "rows"])
@pytest.mark.parametrize("width", [1, 3])
def test_a_graphics_cards_way_gives_the_same_numbers(kind: str, width: int, monkeypatch):
    x, weight = made(20, 30 * width, 4)
    columns = torch.arange(30 * width).view(30, width)
    given = {"gram": x.T @ x / 20} if kind == "gram" else {"rows": x}
    reader = Reader(weight, columns, 20, **given)
    expected = eliminate([reader], ridge=RIDGE, steps=5)
    monkeypatch.setattr(
        "secateurs.prune.allocation.elimination._step",
        lambda place, num: step_of_fixed_size(
            place, torch.ones(num, dtype=torch.bool).index_fill_(0, place, False)
        ),
    )
    checks = Checks(deferred=True)
    found = _eliminate([reader], RIDGE, 5, checks)
    assert checks.passed()
    assert torch.equal(found.order, expected.order) and torch.equal(found.loss, expected.loss)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("num_units", "count"), [(2, 1), (9, 1), (9, 4), (9, 8), (50, 7)])
def test_places_close_up_in_the_same_way_whether_holes_are_counted_or_not(
    num_units: int, count: int, seed: int
):
    place = torch.randperm(num_units, generator=torch.Generator().manual_seed(seed))[:count]
    stays = torch.ones(num_units, dtype=torch.bool).index_fill_(0, place, False)
    values = torch.arange(num_units)
    expected = _step(place, num_units).close_up(values.clone())
    assert sorted(expected.tolist()) == stays.nonzero().flatten().tolist()
    assert torch.equal(step_of_fixed_size(place, stays).close_up(values.clone()), expected)


def test_a_deferred_look_finds_what_was_not_definite():
    checks = Checks(deferred=True)
    definite = torch.eye(2).expand(3, 2, 2).clone()
    checks.factorise(definite, what="matrix")
    assert checks.passed()
    definite[1, 0, 0] = -1.0
    checks.factorise(definite, what="matrix")
    checks.factorise(torch.eye(2), what="matrix")
    assert not checks.passed()
    assert Checks().factorise(torch.zeros(2, 2), what="matrix").isfinite().all()


def test_groups_handed_to_threads_give_the_same_in_the_same_order(monkeypatch):
    readers: dict[str, list[Reader]] = {}
    for seed, name in enumerate("abcd"):
        x, weight = made(30, 12, 3, seed)
        readers[name] = [Reader(weight, torch.arange(12)[:, None], 30, gram=x.T @ x / 30)]
    done: list[int] = []
    expected = all_groups.eliminate_all(readers.items(), done=lambda: done.append(1))
    assert list(expected) == list("abcd") and len(done) == 4
    # As on a card: the second is small.
    monkeypatch.setattr(all_groups, "is_for_a_thread", lambda given, small: given is readers["b"])
    found = all_groups.eliminate_all(readers.items())
    assert list(found) == list("abcd")
    for name, elimination in found.items():
        assert torch.equal(elimination.order, expected[name].order)
        assert torch.equal(elimination.loss, expected[name].loss)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("width", [1, 9])
def test_cuda_gives_the_same_order(width: int):
    x, weight = made(400, 40 * width, 8)
    columns = torch.arange(40 * width).view(40, width)
    reader = Reader(weight, columns, 400, gram=x.T @ x / 400)
    expected = eliminate([reader])
    moved = Reader(weight.cuda(), columns, 400, gram=(x.T @ x / 400).cuda())
    found = eliminate([moved])
    assert torch.equal(found.order, expected.order)
    assert torch.allclose(found.loss, expected.loss, rtol=1e-4)


def test_units_of_one_step_are_eliminated_together():
    x, weight = made(200, 30, 4)
    columns = torch.arange(30)[:, None]
    found = eliminate([Reader(weight, columns, 200, gram=x.T @ x / 200)], ridge=RIDGE, steps=5)
    # Six go in the first step, four in the second.
    for done in (6, 10):
        gone = set(found.order[:done].tolist())
        assert float(found.loss[done - 1]) == pytest.approx(
            loss_of(x, weight, columns, gone, RIDGE), rel=2e-3
        )
    assert (found.loss.diff() >= 0).all()


def test_dead_units_and_copies_go_first_and_cost_little():
    x, weight = made(100, 6, 3)
    x[:, 2] = 0
    x[:, 4] = 2 * x[:, 1]
    found = eliminate(
        [Reader(weight, torch.arange(6)[:, None], 100, gram=x.T @ x / 100)], ridge=1e-6
    )
    assert set(found.order[:2].tolist()) in ({2, 1}, {2, 4})
    assert float(found.loss[1]) < 1e-3 * float(found.loss[2])


def test_many_outputs_are_seen_through_random_combinations_of_them():
    x, _ = made(300, 12, 1)
    weight = torch.randn(12, 2000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    columns = torch.arange(12)[:, None]
    found = eliminate([Reader(weight, columns, 300, gram=x.T @ x / 300)], ridge=RIDGE)
    for step in range(11):
        exact = loss_of(x, weight, columns, set(found.order[: step + 1].tolist()), RIDGE)
        assert float(found.loss[step]) == pytest.approx(exact, rel=0.15)


@pytest.mark.parametrize(("samples", "inputs"), [(20, 30), (100, 10), (400, 40)])
def test_shrinkage_is_that_of_scikit_learn(samples: int, inputs: int):
    x, _ = made(samples, inputs, 1)
    x = x - x.mean(0)
    covariance = x.T @ x / samples
    expected = OAS(assume_centered=True).fit(x.numpy()).shrinkage_
    found = shrinkage(float(covariance.trace()), float(covariance.square().sum()), samples, inputs)
    # Scikit-learn leaves out the terms in 1/inputs and 2/inputs that the paper has.
    assert found == pytest.approx(expected, rel=0.15, abs=2e-3)


def test_survivors_are_what_went_last():
    found = Elimination(torch.tensor([3, 0, 2, 1]), torch.tensor([0.5, 1.5, 4.0]))
    assert found.survivors(2).tolist() == [1, 2]
    assert [found.loss_of(keep) for keep in (4, 3, 2, 1)] == [0.0, 0.5, 1.5, 4.0]
    for keep in (0, 5):
        with pytest.raises(InputError, match=r"keep: expected 1..4 units"):
            found.survivors(keep)


def test_readers_that_do_not_belong_together_are_told():
    x, weight = made(20, 4, 2)
    reader = Reader(weight, torch.arange(4)[:, None], 20, rows=x)
    with pytest.raises(InputError, match="no layer reads"):
        eliminate([])
    with pytest.raises(InputError, match="do not agree"):
        eliminate([reader, Reader(weight, torch.arange(4).view(2, 2), 20, rows=x)])


@pytest.mark.parametrize("noise", [1e-4, 1e-6, 1e-8, 0.0])
def test_inputs_that_hardly_vary_about_a_constant_are_no_error_and_come_in_order(noise):
    # Float32 sums of squares about zero lose such variances when the mean is taken out.
    generator = torch.Generator().manual_seed(0)
    constant = torch.linspace(1e-3, 1.0, 32)
    spread = noise * torch.linspace(1.0, 4.0, 32)
    rows = constant + spread * torch.randn(4000, 32, generator=generator)
    layer = nn.Linear(32, 8)
    sums = _Sums("fc", layer, 1)
    for part in rows.split(250):
        sums.add(part)
    reader = sums.reader(layer.weight.detach().T, torch.arange(32)[:, None], centred=True)
    exact = rows.double() - rows.double().mean(0)
    gram = (exact.T @ exact) / len(rows)
    assert (reader.gram.double() - gram).abs().max() <= 1e-4 * gram.abs().max()
    found = eliminate([reader])
    precise = eliminate([replace(reader, gram=gram)])
    assert sorted(found.order.tolist()) == list(range(32))
    assert bool(found.loss.isfinite().all())
    torch.testing.assert_close(found.loss, precise.loss, rtol=1e-3, atol=1e-30)


def test_sums_about_zero_are_those_of_the_rows():
    rows = 5 + torch.randn(900, 6, generator=torch.Generator().manual_seed(0))
    sums = _Sums("fc", nn.Linear(6, 2, bias=False), 1)
    for part in rows.split(100):
        sums.add(part)
    reader = sums.reader(torch.ones(6, 2), torch.arange(6)[:, None], centred=False)
    torch.testing.assert_close(reader.gram, rows.T @ rows / len(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_values_that_cannot_be_squared_name_the_layer(value):
    sums = _Sums("fc", nn.Linear(6, 2), 1)
    rows = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    rows[3, 2] = value
    sums.add(rows)
    with pytest.raises(InputError, match="layer fc receives values that are NaN"):
        sums.reader(torch.ones(6, 2), torch.arange(6)[:, None], centred=True)


def test_a_gram_matrix_in_float64_is_left_as_it_is():
    rows = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = rows.T @ rows / 40
    before = gram.clone()
    eliminate([Reader(torch.ones(5, 2), torch.arange(5)[:, None], 40, gram=gram)])
    assert torch.equal(gram, before)
