"""A grid's page in a real browser: nothing loaded, nothing wrong, every figure drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import opened, violations
from example_grid import cell, example_grid

from secateurs.report.grid.page import write_grid_page

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_the_page_draws_everything_and_loads_nothing(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    path = write_grid_page(example_grid(), tmp_path)
    with opened(browser, path, width=width, scheme=scheme) as (page, requests, complaints):
        places = page.query_selector_all(".figure")
        marks = ".cartesianlayer .overplot :is(path, rect, image, text)"
        assert len(places) == 5
        assert all(place.query_selector(marks) for place in places)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cells = page.evaluate(
            "[...document.querySelectorAll('#plot-cells-0 .scatterlayer text')]"
            ".map(t => t.textContent)"
        )
        assert len(cells) == len(example_grid()["cells"])
        assert [url for url in requests if not url.startswith("data:image/")] == [path.as_uri()]
        assert complaints == []
        assert violations(page) == []
        ink = page.evaluate(
            "getComputedStyle(document.querySelector('#plot-trade-0 .scatterlayer .point')).fill"
        )
        assert ink == ("rgb(127, 224, 216)" if scheme == "dark" else "rgb(27, 138, 138)")


def test_numbers_open_from_the_keyboard_and_marks_tell_their_cell(
    browser: Any, tmp_path: Path
) -> None:
    path = write_grid_page(example_grid(), tmp_path)
    with opened(browser, path) as (page, _, complaints):
        page.focus("#panel-cells summary")
        page.keyboard.press("Enter")
        assert page.is_visible("#panel-cells table")
        place = page.query_selector("#plot-cells-0 .heatmaplayer")
        place.scroll_into_view_if_needed()
        box = place.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * 0.125)
        page.wait_for_selector("#plot-cells-0 .hoverlayer text")
        told = page.text_content("#plot-cells-0 .hoverlayer")
        assert "7.5°, norm threshold 1" in told
        assert "300 units removed" in told
        assert complaints == []


def test_a_grid_with_an_empty_cell_draws_without_complaint(browser: Any, tmp_path: Path) -> None:
    grid = example_grid()
    grid["cells"][4] = cell(17.5, 1.0, 4096, None)
    path = write_grid_page(grid, tmp_path)
    with opened(browser, path) as (page, _, complaints):
        assert "all removed" in page.text_content("#plot-cells-0")
        assert complaints == []
