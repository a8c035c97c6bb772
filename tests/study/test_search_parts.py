"""A search's parts: what is drawn, what is asked for, what mattered, which row leads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from secateurs.errors import InputError
from secateurs.study.search.answer_text import OPTIONS, train_command
from secateurs.study.search.parameter_importance import grid_importance, rank_shares, two_way_shares
from secateurs.study.search.plan import GridSearch, Halving, Tpe, parse_epochs, plan_of
from secateurs.study.search.run import SHARED
from secateurs.study.search.space import Dimension, draw, space_of
from secateurs.study.search.trainings import rank
from secateurs.study.setup.config import StudyConfig


def row(accuracy: float | None, loss: float | None, diverged: int = 0) -> dict[str, Any]:
    return {"val_accuracy_mean": accuracy, "val_loss_mean": loss, "num_diverged": diverged}


def test_ties_go_to_the_lower_loss_and_divergence_ranks_last():
    order = [row(0.6, 1.0), row(0.6, 1.2), row(0.5, 0.1), row(0.9, 0.1, 1), row(None, None, 2)]
    shuffled = [order[k] for k in (3, 1, 4, 0, 2)]
    assert sorted(shuffled, key=rank, reverse=True) == order


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((27, 4, 36, 3), [(4, 27), (12, 9), (36, 3)]),
        ((2, 1, 16, 2), [(1, 2), (16, 1)]),
        ((5, 3, 3, 3), [(3, 5)]),
        ((8, 2, 7, 2), [(2, 8), (4, 4), (7, 2)]),
    ],
)
def test_rungs(words: tuple[int, int, int, int], expected: list[tuple[int, int]]):
    trials, least, most, eta = words
    plan = Halving(trials=trials, min_epochs=least, max_epochs=most, eta=eta)
    assert plan.planned == expected


@pytest.mark.parametrize("shape", [(2, 2), (4, 9), (3, 5)])
def test_shares_of_variance_are_those_of_the_sums_of_squares(shape: tuple[int, int]):
    table = np.random.default_rng(1).random(shape)
    rows, columns = shape
    mean = sum(table[r][c] for r in range(rows) for c in range(columns)) / table.size
    row = [sum(table[r]) / columns for r in range(rows)]
    column = [sum(table[r][c] for r in range(rows)) / rows for c in range(columns)]
    squares = [0.0, 0.0, 0.0]
    total = 0.0
    for r in range(rows):
        for c in range(columns):
            squares[0] += (row[r] - mean) ** 2
            squares[1] += (column[c] - mean) ** 2
            squares[2] += (table[r][c] - row[r] - column[c] + mean) ** 2
            total += (table[r][c] - mean) ** 2
    shares = two_way_shares(table)
    assert shares == pytest.approx([one / total for one in squares])
    assert sum(shares) == pytest.approx(1)
    assert two_way_shares(3 * table.T + 7)[:2] == pytest.approx(shares[1::-1])


def test_a_grid_without_two_of_each_has_no_importance():
    cells = [{"lr": 0.1, "val_accuracy_mean": value} for value in (0.2, 0.3)]
    assert "it takes two" in grid_importance(cells, [0.1])["reason"]
    same = [{"lr": lr, "val_accuracy_mean": 0.2} for lr in (0.1, 0.2) for _ in range(2)]
    assert "same accuracy" in grid_importance(same, [0.1, 0.2])["reason"]


def test_rank_shares_are_spearman_squared():
    generator = np.random.default_rng(0)
    draws = zip(generator.random(12), generator.integers(0, 3, 12), strict=True)
    rows = [{"lr": x, "batch_size": int(16 * 2**b), "weight_decay": 0.0} for x, b in draws]
    values = generator.random(12)
    found = rank_shares(rows, values)
    for name in ("lr", "batch_size"):
        expected = spearmanr([row[name] for row in rows], values).statistic ** 2
        assert found[name] == pytest.approx(expected)
    assert found["weight_decay"] == 0


def test_draws_are_pure_and_stay_in_the_space():
    space = space_of(
        ("lr", "batch_size", "weight_decay", "label_smoothing", "depth"),
        lr_range=(1e-4, 1e-2), depths=(5, 7), num_train=70,
    )  # fmt: skip
    found = [draw(space, seed=3, number=k) for k in range(400)]
    assert found[7] == draw(space, seed=3, number=7) != draw(space, seed=4, number=7)
    assert {one["batch_size"] for one in found} == {16, 32, 64}
    assert {one["depth"] for one in found} == {5, 7}
    lrs = [one["lr"] for one in found]
    assert min(lrs) >= 1e-4 and max(lrs) <= 1e-2
    assert np.mean(np.array(lrs) < 1e-3) == pytest.approx(0.5, abs=0.08)
    decays = [one["weight_decay"] for one in found]
    assert np.mean([d == 0 for d in decays]) == pytest.approx(0.2, abs=0.06)
    assert min(d for d in decays if d > 0) >= 1e-6
    assert all(float(f"{lr:.3g}") == lr for lr in lrs)


def test_a_range_narrower_than_three_digits_is_kept():
    narrow = Dimension("lr", low=1.23456e-3, high=1.23457e-3, log=True)
    assert narrow.low <= narrow.at(0.5) <= narrow.high


def test_dimensions_without_a_choice_are_left_out():
    assert [d.name for d in space_of(("lr", "batch_size"), num_train=12)] == ["lr"]
    assert space_of(("lr", "depth"), depths=(3,), num_train=99)[1].choices == (3,)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: plan_of("bayes"), "method: expected one of grid, halving, tpe, got 'bayes'"),
        (lambda: plan_of("grid", lr="0.1,0"), "lr is out of range: 0.0; expected a number above 0"),
        (lambda: plan_of("grid", lr="0.1,inf"), "lr is out of range: inf"),
        (lambda: plan_of("grid", lr="fast"), "lr: expected numbers with commas, got 'fast'"),
        (lambda: plan_of("grid", lr=""), "lr: expected positive numbers, got nothing"),
        (lambda: plan_of("grid", lr="0.1,0.1"), "names one twice"),
        (lambda: plan_of("grid", epochs="30,20"), "positive numbers that ascend, got 30, 20"),
        (lambda: plan_of("grid", epochs="0-4"), "epochs is out of range: 0"),
        (lambda: plan_of("grid", epochs="20-10:5"), "run backwards; write 10-20"),
        (lambda: plan_of("grid", epochs="10-20:0"), "the step must be 1 or more"),
        (lambda: plan_of("grid", epochs="many"), "epochs must look like 20-100:10"),
        (lambda: plan_of("grid", eta=3), "eta: belongs to method halving, not to grid"),
        (lambda: plan_of("halving", lr="0.1"), "lr: belongs to method grid, not to halving"),
        (
            lambda: plan_of("halving", eta=1),
            "eta is out of range: 1; expected a whole number from 2",
        ),
        (lambda: plan_of("halving", trials=0), "trials is out of range: 0"),
        (lambda: plan_of("halving", min_epochs=9, max_epochs=3), "min-epochs 9 is more than max"),
        (lambda: plan_of("halving", min_epochs=0), "min_epochs is out of range: 0"),
        (lambda: plan_of("tpe", lr_range="0.1,0.01"), "lr-range: 0.1,0.01 runs backwards"),
        (lambda: plan_of("tpe", lr_range="0,1"), "lr-range is out of range: 0.0"),
        (lambda: plan_of("tpe", lr_range="0.1"), "lr-range: expected two numbers"),
        (lambda: plan_of("tpe", epochs="5,10"), "trains every trial for one number, got 5,10"),
        (lambda: plan_of("tpe", min_epochs=1), "min-epochs: belongs to method halving"),
        (lambda: Tpe(searched=("momentum",)), "searched: expected some of lr, batch_size"),
        (lambda: parse_epochs(""), "epochs must look like"),
    ],
)
def test_bad_words(make: Callable[[], object], text: str):
    with pytest.raises(InputError) as error:
        make()
    assert text in str(error.value)


def test_words_become_plans():
    assert plan_of("grid") == GridSearch((0.001, 0.005, 0.01, 0.05), tuple(range(20, 101, 10)))
    assert plan_of("grid", lr="0.01,0.05,0.001").to_json()["lr"] == [0.001, 0.01, 0.05]
    tpe = plan_of("tpe", trials=5, epochs="7", lr_range="1e-4,1e-3")
    assert tpe == Tpe(trials=5, epochs=7, lr_range=(1e-4, 1e-3))


def test_the_command_that_trains_the_best_has_all_that_was_given():
    settings = StudyConfig(image_size=96, rotation_deg=5.0, depths=(3,)).to_json()
    best = {"parameters": {"lr": 0.01}, "epochs": 4}
    words = train_command(settings, best).split()
    assert words[words.index("--image-size") + 1] == "96"
    assert words[words.index("--rotation-deg") + 1] == "5.0"
    assert set(SHARED) - {"depths", "runs", "augment"} <= set(OPTIONS)
