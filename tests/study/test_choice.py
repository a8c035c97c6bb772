"""Which depth and which run of a sweep are chosen."""

from __future__ import annotations

import pytest

from secateurs.errors import InputError
from secateurs.study.sweep.sweep import choose, summarise_sweep


def record(depth: int, run: int, accuracy: float | None, *, pretrained: bool = True) -> dict:
    return {
        "key": f"{depth}-{run}",
        "depth": depth,
        "run": run,
        "pretrained": pretrained,
        "val_accuracy": accuracy,
        "val_loss": 1.0,
        "timing": {"seconds": 1.0},
    }


def test_the_best_mean_is_chosen_not_the_best_run():
    records = [record(3, 0, 0.9), record(3, 1, 0.1), record(5, 0, 0.6), record(5, 1, 0.62)]
    records.append(record(0, 0, 0.99, pretrained=False))
    choice = choose(records, num_images=100)
    assert (choice.record["depth"], choice.record["run"]) == (5, 1)
    assert choice.reason.startswith("Freeze 5 layers: 61.0% mean validation accuracy (95% ")
    assert "Run 2 is its best on validation (62.0%)" in choice.reason
    assert (choice.advice.depth, choice.advice.best) == (5, 5)


def test_equal_depths_give_the_deeper_and_diverged_runs_do_not_count():
    records = [record(3, 0, 0.6), record(5, 0, 0.6), record(5, 1, None)]
    assert choose(records, num_images=100).record["key"] == "5-0"
    row = summarise_sweep(records, num_images=100)[-1]
    assert (row["num_runs"], row["num_diverged"], row["val_accuracy_mean"]) == (2, 1, 0.6)
    with pytest.raises(InputError, match="no trial ended with a finite loss"):
        choose([record(5, 0, None)], num_images=100)
