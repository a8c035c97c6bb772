"""The paper's numbers beside ours, readings, films, and the time that is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from secateurs.errors import InputError
from secateurs.fit.metrics import evaluate, wilson_interval
from secateurs.study.paper import comparison_with_paper
from secateurs.study.paper.best_network import best
from secateurs.study.paper.comparison_with_paper import beside, counted
from secateurs.study.paper.films import FILM, find_films
from secateurs.study.paper.protocol import PaperPlan
from secateurs.study.paper.pruning import by_unit
from secateurs.study.paper.published_numbers import published
from secateurs.study.paper.time_remaining import parts_remaining, remaining_words, trials_remaining
from secateurs.study.paper.variants import overall_accuracy
from secateurs.study.trials.trial import Trial

NAMES = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
CLASSES = published()["images"]["classes"]


def trial(depth: int, run: int, test: float, *, val: float | None = 0.4, pretrained: bool = True):
    return {
        "key": f"{depth}-{run}-{pretrained}",
        "depth": depth,
        "run": run,
        "pretrained": pretrained,
        "val_accuracy": val,
        "test": {"accuracy": test},
        "timing": {"seconds": 10.0, "frozen_seconds": 4.0},
    }


@pytest.mark.parametrize(
    ("theirs", "interval", "verdict"),
    [
        (0.5, (0.4, 0.6), "inside"),
        (0.4, (0.4, 0.6), "inside"),
        (0.39, (0.4, 0.6), "outside"),
        (0.61, (0.4, 0.6), "outside"),
        (0.5, (None, None), "not comparable"),
    ],
)
def test_a_published_number_is_inside_or_outside_our_interval(theirs, interval, verdict):
    row = beside("x", theirs, 0.5, interval, why_not="")
    assert row["verdict"] == verdict
    assert beside("x", theirs, 0.5, interval, why_not="other images")["verdict"] == "not comparable"


def test_what_a_number_is_rounded_to_is_no_difference():
    assert (
        beside("x", 0.32, 0.3241, (0.3241, 0.4), why_not="", rounding=0.005)["verdict"] == "inside"
    )
    assert beside("x", 0.32, 0.3241, (0.3241, 0.4), why_not="")["verdict"] == "outside"


def test_table_1_says_why_a_depth_cannot_be_compared():
    records = [
        trial(depth, run, value, pretrained=pretrained)
        for depth, pretrained in ((0, False), (5, True), (6, True), (7, True))
        for run, value in enumerate((0.42, 0.46, 0.50))
    ]
    full = comparison_with_paper.table1(records, NAMES, ["fc8"])
    assert [row["verdict"] for row in full] == ["inside", "inside", "inside", "outside"]
    assert [row["why"] for row in full] == [""] * 4
    assert full[0]["published_runs"] == pytest.approx([0.4701, 0.4552, 0.4552, 0.4552, 0.4925])
    # Student's t over three runs.
    assert full[0]["ours"] == pytest.approx(0.46)
    assert full[0]["high"] - full[0]["low"] == pytest.approx(2 * 4.3027 * 0.04 / 3**0.5, rel=1e-4)
    part = comparison_with_paper.table1(records, NAMES, ["fc6", "fc7", "fc8"])
    assert [row["verdict"] for row in part] == ["inside", *["not comparable"] * 2, "outside"]
    assert part[0]["why"] == "fc6 and fc7 started from random weights"
    assert part[1]["why"] == "fc6 frozen with random weights"
    assert part[2]["why"] == "fc6 and fc7 frozen with random weights"
    assert part[3]["why"] == ""
    other = comparison_with_paper.table1(records, NAMES, ["fc8"], why=["other images"])
    assert counted(other) == {"inside": 0, "outside": 0, "not comparable": 4}
    single = comparison_with_paper.table1(records[:1], NAMES, ["fc8"])
    assert single[0]["why"] == "no interval: a single run"


def confusion_of_the_paper() -> list[list[int]]:
    """A matrix with the recalls and precisions of Table 2."""
    table = published()["table2"]
    sizes = np.array(published()["images"]["split"]["test"])
    right = (np.array(table["recall"]) * sizes).round().astype(int)
    said = (right / np.array(table["precision"])).round().astype(int)
    # A transport problem: wrong answers from true classes to said ones, none to its own.
    sums = np.zeros((14, 49))
    for i in range(7):
        sums[i, 7 * i : 7 * i + 7] = 1
        sums[7 + i, i::7] = 1
    found = linprog(
        np.eye(7).flatten(), A_eq=sums, b_eq=np.concatenate([sizes - right, said - right])
    )
    wrong = found.x.reshape(7, 7).round().astype(int)
    assert found.fun == 0
    matrix = np.diag(right) + wrong
    assert matrix.sum(1).tolist() == sizes.tolist()
    return matrix.tolist()


def as_test(matrix: list[list[int]]) -> dict[str, Any]:
    labels = torch.tensor([i for i, row in enumerate(matrix) for _ in range(sum(row))])
    answers = torch.tensor(
        [j for row in matrix for j, number in enumerate(row) for _ in range(number)]
    )
    return evaluate(torch.nn.functional.one_hot(answers, 7).float(), labels, CLASSES).to_json()


def test_the_papers_own_confusion_agrees_with_its_table_2():
    rows = comparison_with_paper.table2(as_test(confusion_of_the_paper()))
    assert len(rows) == 1 + 3 * 7
    assert {row["verdict"] for row in rows} == {"inside"}
    for row in rows:
        assert row["ours"] == pytest.approx(row["published"], abs=0.0051)
        assert row["low"] <= row["ours"] <= row["high"]
    assert (rows[0]["low"], rows[0]["high"]) == wilson_interval(67, 134)
    recall = next(row for row in rows if row["what"] == "recall of Angry")
    assert (recall["low"], recall["high"]) == wilson_interval(12, 23)


def test_a_class_never_answered_has_no_precision_to_compare():
    matrix = np.zeros((7, 7), dtype=int)
    matrix[:, 0] = 5
    rows = {row["what"]: row for row in comparison_with_paper.table2(as_test(matrix.tolist()))}
    assert rows["precision of Sad"]["verdict"] == "not comparable"
    assert rows["precision of Sad"]["why"] == "nothing to divide by"
    assert rows["recall of Sad"]["verdict"] == "outside"


def test_the_published_grid_beside_itself_is_inside():
    grid = published()["grid"]
    cells = []
    for row, std in enumerate(grid["norm_stds"]):
        for column, low in enumerate(grid["angles_deg"]):
            right = round(grid["accuracy"][row][column] * 134)
            bounds = wilson_interval(right, 134)
            cells.append(
                {
                    "low_deg": low,
                    "norm_std": std,
                    "num_removed": grid["num_pruned"][row][column],
                    "accuracy": right / 134,
                    "accuracy_low": bounds[0],
                    "accuracy_high": bounds[1],
                }
            )
    found = comparison_with_paper.grid(cells)
    assert counted(found) == {"inside": 45, "outside": 0, "not comparable": 0}
    assert all(row["removed"] == row["published_removed"] for row in found)
    means = [
        {
            "low_deg": low,
            "accuracy_mean": np.mean([c["accuracy"] for c in cells if c["low_deg"] == low]),
        }
        for low in grid["angles_deg"]
    ]
    means.append({"low_deg": 20.0, "accuracy_mean": 0.5})  # no angle of the paper's
    table = comparison_with_paper.table3(means, cells, 134)
    assert [row["verdict"] for row in table["accuracy"]] == ["inside"] * 5
    for row, number in zip(table["units"], published()["table3"]["mean_num_pruned"], strict=True):
        assert row["ours"] == pytest.approx(number, abs=1e-5)
        assert row["verdict"] == "not comparable"
        assert "how many units are alike" in row["why"]


def test_the_formula_of_the_text_counts_true_negatives_of_every_class():
    matrix = np.array(confusion_of_the_paper())
    total = matrix.sum()
    by_hand = [
        (matrix[k, k] + total - matrix[k].sum() - matrix[:, k].sum() + matrix[k, k]) / total
        for k in range(7)
    ]
    assert overall_accuracy(matrix.tolist()) == pytest.approx(np.mean(by_hand))
    assert overall_accuracy(matrix.tolist()) == pytest.approx(1 - 2 * 0.5 / 7)


def test_each_unit_by_itself_spans_the_whole_range():
    x = torch.tensor(np.random.default_rng(0).random((9, 4)), dtype=torch.float32)
    x[:, 3] = 0
    found = by_unit(x)
    assert found[:, :3].amin(0).tolist() == [-0.5] * 3
    assert found[:, :3].amax(0).tolist() == [0.5] * 3
    assert found[:, 3].tolist() == [-0.5] * 9
    assert torch.equal(found.argsort(0)[:, :3], x.argsort(0)[:, :3])


def test_the_best_trial_is_of_a_pretrained_network_that_did_not_diverge():
    rows = [
        trial(0, 0, 0.9, pretrained=False),
        trial(5, 0, 0.5, val=0.3),
        trial(6, 0, 0.4, val=0.6),
        trial(7, 0, 0.8, val=None),
    ]
    assert best(rows, "test")["depth"] == 5
    assert best(rows, "val")["depth"] == 6
    assert best([rows[0], rows[3]], "val")["depth"] == 7


def test_films_are_found_in_names_like_those_of_sfew():
    names = [f"Sad/Film{film}_00{k}_{k}.png" for film in range(4) for k in range(2)]
    found = find_films(names, [0] * 8, ["Sad"], asked=None)
    assert found.group_by == FILM
    assert found.groups == tuple(f"Film{film}" for film in range(4) for _ in range(2))
    for other, why in (
        ([f"Sad/{k}.png" for k in range(8)], "do not start with a film and an underscore"),
        ([f"Sad/{k}_a.png" for k in range(8)], "no two share a film"),
        ([f"Sad/IMG_{k}.png" for k in range(8)], "1 different words: --group-by found 1 groups"),
    ):
        refused = find_films(other, [0] * 8, ["Sad"], asked=None)
        assert refused.group_by is None
        assert why in refused.why_not
    assert find_films(names, [0] * 8, ["Sad"], asked=r"Film(\d)").groups == tuple("00112233")
    with pytest.raises(InputError, match="found 1 groups; a split needs at least 3"):
        find_films(names, [0] * 8, ["Sad"], asked="^(Film)")
    with pytest.raises(InputError, match="not a regular expression"):
        find_films(names, [0] * 8, ["Sad"], asked="(")


def test_time_left_counts_trials_by_their_depth_and_then_the_rest():
    plan = PaperPlan(runs=1, epochs=20, search=False)
    plan_trials = [Trial(0, 0, pretrained=False), Trial(5, 0), Trial(5, 0), Trial(7, 0)]
    done = [
        trial(0, 0, 0.1, pretrained=False) | {"timing": {"seconds": 100.0, "frozen_seconds": 0.0}},
        trial(5, 0, 0.4) | {"timing": {"seconds": 40.0, "frozen_seconds": 20.0}},
    ]
    # One like it at 40 s, and one unseen at the mean of 100 and 40.
    assert trials_remaining(plan_trials, done) == pytest.approx(40 + 70)
    # Dropout both ways one trial; 45 cells at a view of 1 s; films one more at each depth.
    assert parts_remaining(plan, done, films=False) == pytest.approx(40 + 45)
    assert parts_remaining(plan, done, films=True) == pytest.approx(40 + 45 + 40)
    searching = PaperPlan(runs=1, epochs=20, noisy_activations=False, first_epoch_dropout=False)
    assert parts_remaining(searching, done, films=False) == pytest.approx(4 * 40 * 2)
    # The search is at the depth that leads.
    timing = {"timing": {"seconds": 10.0, "frozen_seconds": 0.0}}
    for val, seconds in ((0.3, 40), (0.5, 10)):
        more = [*done, trial(7, 0, 0.4, val=val) | timing]
        assert parts_remaining(searching, more, films=False) == pytest.approx(4 * seconds * 2)
    assert remaining_words(plan, plan_trials, done, films=False) == (
        "about 1 min 50 s left for Table 1, about 85 s for the rest"
    )
    assert (
        remaining_words(plan, plan_trials[:2], done, films=False) == "about 85 s for the rest left"
    )
