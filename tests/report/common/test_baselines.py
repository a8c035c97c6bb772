"""Baselines beside an accuracy, and the descriptions of angles and random layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_results import evaluation

from secateurs.report.common.baselines import balanced, majority
from secateurs.report.study import captions, figures, tables
from secateurs.report.study.angle_captions import histogram_words, merged_words
from secateurs.report.study.card import render_card
from secateurs.report.study.cautions import accuracy_warnings, warnings
from secateurs.report.study.evaluations import shown_evaluations
from secateurs.report.study.page import render
from secateurs.report.study.result_tables import result_tables
from secateurs.report.study.schema import check_results
from secateurs.report.study.summary import baseline_note


def one_class(results: dict[str, Any]) -> dict[str, Any]:
    """The results of a network that predicts the largest class: 60, 8 and 6 images."""
    confusion = np.zeros((7, 7), dtype=int)
    confusion[:, 3] = [8, 6, 0, 60, 0, 0, 0]
    for part in ("chosen", "pruned"):
        results[part]["test"] = evaluation(confusion)
    return check_results(results)


def test_the_first_screen_has_the_baseline(results: dict[str, Any], tmp_path: Path) -> None:
    checked = one_class(results)
    note = "Balanced accuracy 33.3% → 33.3%; majority-class baseline 81.1%"
    found = shown_evaluations(checked)
    assert found is not None
    assert baseline_note(found) == note
    page = render(checked, tmp_path)
    first = page[: page.index('id="depth"')]
    assert note in first
    assert "not significantly above the majority-class baseline of 81.1% (always Happy)." in first


def test_an_older_evaluation_has_a_baseline_too(results: dict[str, Any]) -> None:
    new = results["chosen"]["test"]
    old = {k: v for k, v in new.items() if k not in ("majority_accuracy", "balanced_accuracy")}
    assert majority(old) == pytest.approx(new["majority_accuracy"])
    assert balanced(old) == pytest.approx(new["balanced_accuracy"])


def test_few_test_images_are_a_caution(results: dict[str, Any]) -> None:
    few = evaluation(np.diag([7] * 7))
    for part in ("chosen", "pruned"):
        results[part]["test"] = few
    checked = check_results(results)
    assert "Only 49 test images: the 95% interval of the accuracy is 93% to 100%." in (
        warnings(checked)
    )
    few["num_images"] = 50
    checked = check_results(results)
    assert not any(
        "Only" in text for text in accuracy_warnings(shown_evaluations(checked), checked)
    )


def test_unknown_groups_are_a_caution(results: dict[str, Any]) -> None:
    text = "No groups were given. If several images show one person"
    assert not any(line.startswith(text) for line in warnings(check_results(results)))
    results["split"]["leakage"]["same_group"] = None
    checked = check_results(results)
    assert any(line.startswith(text) for line in warnings(checked))
    assert text in render_card(checked)
    checked["config"]["split"] = "folders"
    assert not any(line.startswith(text) for line in warnings(checked))


def test_the_card_has_the_baseline(results: dict[str, Any]) -> None:
    card = render_card(one_class(results))
    assert "| images | unpruned | this model | balanced | baseline | number |" in card
    assert "| test | 81.1% (71–88) | 81.1% (71–88) | 33.3% | 81.1% | 74 |" in card


def test_tables_have_the_baseline(results: dict[str, Any], tmp_path: Path) -> None:
    import json

    (tmp_path / "results.json").write_text(json.dumps(results))
    rows = result_tables(tmp_path)["networks"]
    test = results["pruned"]["test"]
    (row,) = [row for row in rows if (row["network"], row["side"]) == ("pruned", "test")]
    assert row["balanced_accuracy"] == test["balanced_accuracy"]
    assert row["majority_accuracy"] == test["majority_accuracy"]


def test_angles_say_how_they_were_measured(results: dict[str, Any], tmp_path: Path) -> None:
    checked = check_results(results)
    way = (
        "scaled to -0.5..0.5 by the minimum and maximum of the layer before angles are measured "
        "(rule pairwise)."
    )
    (layer,) = checked["pruned"]["layers"]
    assert way in histogram_words(layer, "pairwise")
    assert way in merged_words(checked)
    assert "All 6,471,003 pairs of the 3,598 units (of 4,096) with varying activations." in (
        captions.angles_caption(checked, layer)
    )
    page = render(checked, tmp_path)
    assert page.count(way) >= 2
    layer["angles"] = {"normalise": "centre", "num_units": 100, "num_live": 9000}
    text = histogram_words(layer, "cluster")
    assert (
        "mean activation of each unit is subtracted before angles are measured (rule cluster)."
        in text
    )
    assert "The 4,950 pairs of a random sample of 100 of the 9,000" in text


def test_angles_of_older_results_are_described(results: dict[str, Any]) -> None:
    del results["pruned"]["layers"][0]["angles"], results["merged"]["normalise"]
    results["pruned"]["rule"] = "cluster"
    checked = check_results(results)
    text = histogram_words(checked["pruned"]["layers"][0], "cluster")
    assert "a sample of at most 1,024 units" in text
    assert "rule cluster compares centred activations, whose angles are larger" in text
    assert "mean activation of each unit is subtracted" in merged_words(checked)


def test_depths_that_freeze_random_layers_are_marked(results: dict[str, Any]) -> None:
    results["sweep"][1] |= {"depth": 6, "random_frozen": ["fc6"]}
    results["sweep"][1]["to_best"] = {
        "difference": -0.05, "low": -0.08, "high": -0.02, "p_value": 0.01,
        "indistinguishable": False, "is_best": False,
    }  # fmt: skip
    for trial in results["trials"][2:4]:
        trial["depth"] = 6
    checked = check_results(results)
    table = tables.sweep_table(checked)
    (row,) = [row for row in table.rows if row[0] == "6"]
    assert row[5] == "-5.0 points (-8.0 to -2.0), significant; freezes fc6 with random weights"
    caption = captions.sweep_caption(checked)
    assert "Depth 6 freezes fc6 with random weights, because no pretrained weights" in caption
    figure = figures.depth_sweep(checked)
    assert figure is not None
    traces = {trace.name: trace for trace in figure.data}
    marked = traces["mean, random layers frozen"]
    assert list(marked.y) == [results["sweep"][1]["val_accuracy_mean"]]
    assert "fc6" in marked.customdata[0][1]
    assert len(traces["mean, significantly below the best"].x) == 0


def test_random_layers_of_older_results_are_found(results: dict[str, Any]) -> None:
    results["sweep"][2]["depth"] = 7
    checked = check_results(results)
    rows = {row[0]: row[5] for row in tables.sweep_table(checked).rows}
    assert rows["7"] == "not compared; freezes fc6 and fc7 with random weights"
    assert rows["3"] == rows["scratch"] == "not compared"
