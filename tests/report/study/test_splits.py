from __future__ import annotations

from typing import Any

import pytest
from example_results import example_sweep

from secateurs.report.study import splits
from secateurs.report.study.page import write_report
from secateurs.report.study.schema import check_results
from secateurs.report.study.summary import advice, ends_with_choice, headline
from secateurs.report.study.tables import runs_table, sweep_table


def test_the_figure_shows_both_means_of_every_depth(results: dict[str, Any]):
    figure = splits.splits_figure(results)
    apart, mixed = figure.data
    assert list(apart.y) == [row["val_accuracy_mean"] for row in results["sweep"]]
    assert list(mixed.y) == [row["val_accuracy_mean"] for row in results["ungrouped"]["sweep"]]
    assert apart.marker.symbol != mixed.marker.symbol
    assert max(abs(a - b) for a, b in zip(apart.x, mixed.x, strict=True)) < 0.5


def test_the_caption_counts_what_the_random_split_changes(results: dict[str, Any]):
    results["recommendation"] = example_sweep(results)["recommendation"]
    text = splits.splits_caption(results)
    row, other = (s["sweep"][2] for s in (results, results["ungrouped"]))  # depth 5
    gap = 100 * (other["val_accuracy_mean"] - row["val_accuracy_mean"])
    assert f"{gap:.1f} points higher" in text
    assert "80.0% of the test images then share a group" in text  # 108 of 135
    # Two independent proportions of 135 images each, at one half.
    assert f"{100 * (0.25 / 135 + 0.25 / 135) ** 0.5:.1f} points" in text


def test_a_depth_without_result_under_one_split_is_left_out(results: dict[str, Any]):
    results["ungrouped"]["sweep"][0]["val_accuracy_mean"] = None
    assert [name for name, _, _ in splits.paired_rows(results)] == ["4", "5", "scratch"]
    assert [row[0] for row in splits.splits_table(results).rows] == ["4", "5", "scratch"]
    results["ungrouped"]["sweep"] = []
    assert splits.splits_caption(results) == "No depth has a result with both splits."


def test_tables_of_runs_and_times(results: dict[str, Any]):
    results["trials"] = results["trials"][1:]  # depth 3 lost its first run
    table = runs_table(results)
    assert table.columns == ("frozen layers", "run 1", "run 2", "mean")
    assert table.rows[0][0:2] == ("3", "")
    assert table.rows[0][2] == f"{100 * results['trials'][0]['val_accuracy']:.1f}%"
    assert [row[-1] for row in sweep_table(results).rows] == ["21.0 s"] * 4


def test_a_sweep_ends_with_the_choice(results: dict[str, Any], study_dir: Any):
    sweep = check_results(example_sweep(results))
    assert ends_with_choice(sweep)
    assert not ends_with_choice(results | {"recommendation": None})
    assert headline(sweep).startswith("Freeze 5 layers: ")
    assert advice(sweep)[0].startswith("Depth 4 has the best mean")
    assert advice(sweep)[-1] == "A training at depth 5 takes 14 s; 22 s at 3."
    text = write_report(sweep, study_dir).read_text()
    assert 'id="panel-splits"' in text
    assert 'id="pruning"' not in text
    assert "Nothing was pruned" not in text


@pytest.mark.parametrize("key", ["split", "sweep"])
def test_half_a_comparison_is_named(results: dict[str, Any], key: str):
    del results["ungrouped"][key]
    with pytest.raises(Exception, match=rf"missing key 'ungrouped.{key}'"):
        check_results(results)
