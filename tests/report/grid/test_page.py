from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from example_grid import ANGLES, STDS, cell, example_grid

from secateurs.errors import InputError
from secateurs.report.common.canvas import DARK
from secateurs.report.grid import figures as grid_figures
from secateurs.report.grid import summary
from secateurs.report.grid.page import render_grid, write_grid_page


@pytest.fixture
def grid() -> dict[str, Any]:
    return example_grid()


def shown(page: str) -> str:
    """The text of a page, without its scripts and styles."""
    bare = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", bare).split())


@pytest.mark.usefixtures("without_plotly")
def test_the_page_answers_and_holds_every_number(grid, tmp_path: Path) -> None:
    path = write_grid_page(grid, tmp_path)
    assert path == tmp_path / "grid.html"
    page = path.read_text(encoding="utf-8")
    text = shown(page)
    assert "400 of 4,096 units of fc7 can be removed without loss of validation accuracy" in text
    assert "92 of 135 correct; 95% interval 60–75" in text
    assert "20 of them are always zero" in text
    words = "prune MODEL DATA --layers fc7 --low-deg 10 --high-deg 170 --norm-std 1 "
    assert words in text
    assert "small differences between cells are not significant" in text
    for one in grid["cells"]:
        assert f"{one['num_parameters']:,}" in text
    assert page.count('<th scope="row">') == len(grid["cells"]) + len(ANGLES)
    assert page.count('role="img"') == 5
    assert "The cells were evaluated on test images" not in text
    assert re.search(r"(src|href)=\"(?!#)", page) is None


@pytest.mark.usefixtures("without_plotly")
def test_test_images_and_the_published_rule_are_labelled(grid) -> None:
    grid["settings"] |= {"on": "test", "rule": "published", "compensation": None}
    grid["evaluated"] |= {"on": "test", "side": "test"}
    text = shown(render_grid(grid))
    assert "The cells were evaluated on test images" in text
    assert "Test accuracy" in text
    assert "the number of parameters does not change" in text
    assert "always zero" not in text
    assert "secateurs prune" not in text


def test_the_lossless_cell_is_the_largest_with_no_fewer_correct_images(grid) -> None:
    best = summary.lossless(grid)
    assert (best["low_deg"], best["norm_std"], best["num_removed"]) == (10.0, 1.0, 400)
    for one in grid["cells"]:
        one["num_correct"] = 91
    assert summary.lossless(grid) is None
    assert summary.headline(grid) == (
        "Every cell that removes units of fc7 loses validation accuracy"
    )


@pytest.mark.usefixtures("without_plotly")
def test_cells_without_an_answer_are_said(grid) -> None:
    grid["cells"][0] = cell(7.5, 1.0, 4096, None)
    page = render_grid(grid)
    assert "1 cell would remove every unit" in shown(page)
    assert "all removed" in page
    figure = grid_figures.accuracy_map(grid)
    assert figure.data[0].z[0][0] is None
    grid["cells"] = [cell(a, s, 4096, None) for s in STDS for a in ANGLES]
    for row in grid["by_angle"]:
        row["accuracy_mean"] = None
    text = shown(render_grid(grid))
    assert "No cell could be evaluated." in text
    assert "20 cells would remove every unit" in text


def test_the_heat_maps_show_the_cells(grid) -> None:
    accuracy, removed = grid_figures.accuracy_map(grid), grid_figures.removed_map(grid)
    for k, one in enumerate(grid["cells"]):
        row, column = divmod(k, len(ANGLES))
        assert accuracy.data[0].z[row][column] == one["accuracy"]
        assert removed.data[0].z[row][column] == one["num_removed"]
    texts = [text for trace in accuracy.data[1:] for text in trace.text]
    assert sorted(texts) == sorted(f"{100 * c['accuracy']:.1f}%" for c in grid["cells"])
    assert accuracy.layout.xaxis.ticktext == ("7.5°", "10°", "12.5°", "15°", "17.5°")
    heat = accuracy.data[0]
    assert heat.zmax - heat.zmin >= grid_figures.LEAST_SPAN - 1e-12


def test_the_trade_off_has_one_mark_a_cell_and_a_symbol_an_angle(grid) -> None:
    *marks, before = grid_figures.trade_off(grid).data
    assert [len(trace.x) for trace in marks] == [len(STDS)] * len(ANGLES)
    assert len({trace.marker.symbol for trace in marks}) == len(ANGLES)
    assert before.name == "unpruned"
    assert set(before.y) == {92 / 135}


@pytest.mark.parametrize("number", [1, 2, 5, 40])
def test_each_angle_has_a_colour_for_either_scheme(number: int) -> None:
    colours = grid_figures.angle_colours(number)
    light = [one for one, _ in colours]
    assert len(set(light)) == number
    assert not set(light) & DARK.keys()


@pytest.mark.usefixtures("without_plotly")
def test_one_cell_is_a_grid_too(grid) -> None:
    grid["settings"] |= {"angles_deg": [10.0], "norm_stds": [1.0]}
    grid["cells"] = [one for one in grid["cells"] if (one["low_deg"], one["norm_std"]) == (10, 1)]
    grid["by_angle"] = [row for row in grid["by_angle"] if row["low_deg"] == 10]
    text = shown(render_grid(grid))
    assert "1 angle by 1 norm threshold, 1 cell, each evaluated" in text
    assert "too optimistic" not in text


@pytest.mark.usefixtures("without_plotly")
def test_names_are_text_and_nothing_else(grid) -> None:
    grid["model"]["name"] = grid["data"]["name"] = "</script><script>alert(1)</script>"
    page = render_grid(grid)
    assert "<script>alert" not in page


def test_another_schema_is_refused(grid, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="grid: schema is 2, expected 1"):
        write_grid_page(grid | {"schema": 2}, tmp_path)
    assert json.loads(json.dumps(grid)) == grid
    assert list(tmp_path.iterdir()) == []
