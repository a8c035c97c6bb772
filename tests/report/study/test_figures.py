from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from secateurs.report.common.canvas import AFTER, BEFORE, DARK, INK, SCALE, SURFACE, safe
from secateurs.report.common.heat_map import DARK_CELL
from secateurs.report.study import figures, panels, reduction_figures
from secateurs.report.study.evaluations import shown_evaluations
from secateurs.report.study.schema import check_results


def trace(figure: go.Figure | None, name: str) -> Any:
    assert figure is not None
    return next(one for one in figure.data if one.name == name)


def test_the_sweep_shows_means_runs_and_the_chosen_one(results: dict[str, Any]) -> None:
    figure = figures.depth_sweep(check_results(results))
    means = trace(figure, "mean")
    assert list(means.y) == [row["val_accuracy_mean"] for row in results["sweep"]]
    assert list(trace(figure, "single run").y) == [t["val_accuracy"] for t in results["trials"]]
    best = max(results["trials"], key=lambda trial: trial["val_accuracy"])
    assert list(trace(figure, "chosen").y) == [best["val_accuracy"]]
    bars = trace(figure, "95% interval")
    for row, mean, up, down in zip(
        results["sweep"], bars.y, bars.error_y.array, bars.error_y.arrayminus, strict=True
    ):
        assert mean + up == pytest.approx(row["val_accuracy_high"])
        assert mean - down == pytest.approx(row["val_accuracy_low"])
    assert figure is not None
    assert list(figure.layout.xaxis.ticktext) == ["3", "4", "5", "scratch"]
    texts = [note.text for note in figure.layout.annotations]
    assert any("from scratch" in text for text in texts)
    # The commonest class has 20 of the 135 validation images.
    assert any(text.endswith("14.8%") for text in texts)


def test_a_single_run_has_no_bar(results: dict[str, Any]) -> None:
    for row in results["sweep"]:
        row |= {"num_runs": 1, "val_accuracy_std": None}
        row |= {"val_accuracy_low": None, "val_accuracy_high": None}
    figure = figures.depth_sweep(check_results(results))
    assert len(trace(figure, "95% interval").x) == 0
    assert len(trace(figure, "mean").x) == 4


def test_every_point_of_the_sweep_lies_inside_the_axis(results: dict[str, Any]) -> None:
    figure = figures.depth_sweep(check_results(results))
    assert figure is not None
    low, high = figure.layout.yaxis.range
    values = [value for one in figure.data for value in one.y]
    assert low <= min(values)
    assert max(values) <= high


def test_curves_are_those_of_the_chosen_trial(results: dict[str, Any]) -> None:
    figure = figures.learning_curve(check_results(results), "loss")
    chosen = next(t for t in results["trials"] if t["key"] == results["chosen"]["key"])
    line = trace(figure, "validation")
    assert list(line.x) == list(range(1, 13))
    assert list(line.y) == [row["val_loss"] for row in chosen["curve"]]
    best = trace(figure, "best epoch")
    assert list(best.x) == [chosen["best_epoch"] + 1]
    assert list(best.y) == [chosen["curve"][chosen["best_epoch"]]["val_loss"]]
    assert figure is not None
    others = [one for one in figure.data if one.meta == "other"]
    assert len(others) == len(results["trials"]) - 1
    assert all(one.visible is False for one in others)


def test_confusion_counts_and_shares(results: dict[str, Any]) -> None:
    evaluation = results["chosen"]["test"]
    figure = reduction_figures.confusion(evaluation, results["data"]["classes"])
    heat = figure.data[0]
    counts = np.array(evaluation["confusion"])
    assert np.allclose(np.array(heat.z), counts / counts.sum(axis=1, keepdims=True))
    cells = [cell for one in figure.data[1:] for cell in zip(one.x, one.y, one.text, strict=True)]
    written = {(x, y): int(text) for x, y, text in cells}
    expected = {(x, y): n for y, row in enumerate(counts) for x, n in enumerate(row) if n}
    assert written == expected


def test_a_large_matrix_stays_in_bounds(results: dict[str, Any]) -> None:
    number = 40
    evaluation = results["chosen"]["test"] | {"confusion": np.eye(number, dtype=int).tolist()}
    figure = reduction_figures.confusion(evaluation, [f"class {n}" for n in range(number)])
    assert figure.layout.height <= 900
    assert len(figure.data) == 1  # no counts: they would not fit
    assert figure.layout.meta == "large matrix"


def test_confusion_of_a_class_without_images(results: dict[str, Any]) -> None:
    evaluation = results["chosen"]["test"]
    evaluation["confusion"][2] = [0] * 7
    figure = reduction_figures.confusion(evaluation, results["data"]["classes"])
    assert list(figure.data[0].z[2]) == [0.0] * 7


@pytest.mark.parametrize("measure", reduction_figures.MEASURES)
def test_scores_before_and_after(results: dict[str, Any], measure: str) -> None:
    results["pruned"]["test"]["per_class"][1][measure] = None
    found = shown_evaluations(check_results(results))
    assert found is not None
    figure = reduction_figures.class_scores(found, measure)
    for name, top in (("before", "chosen"), ("after", "pruned")):
        expected = [score[measure] for score in results[top]["test"]["per_class"]]
        assert list(trace(figure, name).x) == expected


def test_angles_and_thresholds(results: dict[str, Any]) -> None:
    figure = reduction_figures.angle_histogram(check_results(results), 0)
    assert figure is not None
    histogram = results["pruned"]["layers"][0]["angle_deg_histogram"]
    bars = figure.data[0]
    assert list(bars.y) == histogram["counts"]
    assert list(bars.x)[:2] == [2.5, 7.5]
    assert list(bars.width) == [5] * 36
    lines = [shape.x0 for shape in figure.layout.shapes if shape.type == "line"]
    assert lines == [15.0, 165.0]


def test_cost_is_shown_as_a_share_with_the_real_numbers(results: dict[str, Any]) -> None:
    figure = reduction_figures.cost_ratios(check_results(results))
    assert figure is not None
    ratios = list(figure.data[1].x)
    before, after = results["cost"]["before"], results["cost"]["after"]
    keys = ("num_parameters", "macs", "activation_bytes", "file_bytes", "onnx_bytes")
    assert ratios == [after[key] / before[key] for key in keys]
    assert "57.0 M → 40.7 M" in figure.layout.yaxis.ticktext[0]


def test_latency_medians_and_quartiles(results: dict[str, Any]) -> None:
    rows = [row for row in check_results(results)["cost"]["latency"] if row["batch"] == 1]
    figure = reduction_figures.latency(rows)
    after = trace(figure, "after")
    assert list(after.x) == [10.9, 6.21]
    for row, middle, up, down in zip(
        rows, after.x, after.error_x.array, after.error_x.arrayminus, strict=True
    ):
        assert middle + up == pytest.approx(row["after_ms"]["p75"])
        assert middle - down == pytest.approx(row["after_ms"]["p25"])


def test_images_per_class_and_side(results: dict[str, Any]) -> None:
    figure = figures.data_counts(check_results(results))
    for key, name in (("train", "training"), ("val", "validation"), ("test", "test")):
        assert list(trace(figure, name).x) == results["split"]["per_class"][key]
    # Sides differ by pattern as well as by colour.
    assert len({one.marker.pattern.shape for one in figure.data}) == 3


def test_marks_differ_by_shape_as_well_as_by_colour(results: dict[str, Any]) -> None:
    found = shown_evaluations(check_results(results))
    assert found is not None
    figure = reduction_figures.class_scores(found, "recall")
    symbols = {trace(figure, name).marker.symbol for name in ("before", "after")}
    assert len(symbols) == 2


def test_class_names_are_no_markup_for_plotly(results: dict[str, Any]) -> None:
    results["data"]["classes"][0] = "<b>&x"
    figure = figures.data_counts(check_results(results))
    assert figure.layout.yaxis.ticktext[0] == "&lt;b&gt;&amp;x"
    assert safe("<a href='x'>") == "&lt;a href='x'&gt;"


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def mixed(share: float, scale: list[str]) -> str:
    low, high = (scale[0], scale[1]) if share <= 0.5 else (scale[1], scale[2])
    at = 2 * share if share <= 0.5 else 2 * share - 1
    parts = [
        round((1 - at) * int(low[i : i + 2], 16) + at * int(high[i : i + 2], 16)) for i in (1, 3, 5)
    ]
    return "#" + "".join(f"{part:02x}" for part in parts)


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_of_marks_and_of_counts_in_the_matrix(dark: bool) -> None:
    table = DARK if dark else {colour: colour for colour in DARK}
    for colour in (BEFORE, AFTER):
        assert contrast(table[colour], table[SURFACE]) >= 3
    scale = [table[colour] for colour in SCALE]
    for share in np.linspace(0, 1, 101):
        text = table[SURFACE if share > DARK_CELL else INK]
        assert contrast(text, mixed(float(share), scale)) >= 3


def test_figures_warn_of_nothing(results: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = panels.sweep_panel(check_results(results))
    assert made is not None
    assert made.tables[0].rows[0][:2] == ("3", "2")
