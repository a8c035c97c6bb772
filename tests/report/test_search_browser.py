"""A search's page in a real browser: nothing loaded, nothing wrong, every figure drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import opened, violations
from example_search import SEARCHES, grid_search, tpe_search

from secateurs.report.search.page import write_search_page

pytestmark = pytest.mark.browser

FIGURES = {"grid": 6, "halving": 3, "tpe": 3}
VIEWS = [("grid", 1280, "dark"), ("grid", 390, "light"), ("halving", 390, "dark"),
         ("tpe", 1280, "light")]  # fmt: skip


@pytest.mark.parametrize(("method", "width", "scheme"), VIEWS)
def test_the_page_draws_everything_and_loads_nothing(
    browser: Any, tmp_path: Path, method: str, width: int, scheme: str
) -> None:
    path = write_search_page(SEARCHES[method](), tmp_path)
    with opened(browser, path, width=width, scheme=scheme) as (page, requests, complaints):
        places = page.query_selector_all(".figure")
        marks = ".cartesianlayer .overplot :is(path, rect, image, text)"
        assert len(places) == FIGURES[method]
        assert all(place.query_selector(marks) for place in places)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [url for url in requests if not url.startswith("data:image/")] == [path.as_uri()]
        assert complaints == []
        assert violations(page) == []
        best = page.evaluate(
            "getComputedStyle(document.querySelector("
            "'#plot-parallel-0 .scatterlayer .trace:last-child .js-line')).stroke"
        )
        assert best == ("rgb(230, 159, 0)" if scheme == "dark" else "rgb(213, 94, 0)")


def test_names_on_the_axes_are_inside_the_figure(browser: Any, tmp_path: Path) -> None:
    path = write_search_page(tpe_search(), tmp_path)
    with opened(browser, path, width=390) as (page, _, complaints):
        outside = page.evaluate(
            """[...document.querySelectorAll('#plot-parallel-0 svg text')].filter(t => {
              const place = document.getElementById('plot-parallel-0').getBoundingClientRect();
              const box = t.getBoundingClientRect();
              return box.width && (box.left < place.left - 1 || box.right > place.right + 1);
            }).map(t => t.textContent)"""
        )
        assert outside == []
        assert complaints == []


def test_numbers_open_from_the_keyboard_and_cells_tell_their_accuracy(
    browser: Any, tmp_path: Path
) -> None:
    path = write_search_page(grid_search(), tmp_path)
    with opened(browser, path) as (page, _, complaints):
        page.focus("#panel-parallel summary")
        page.keyboard.press("Enter")
        assert page.is_visible("#panel-parallel table")
        place = page.query_selector("#plot-cells-0 .heatmaplayer")
        place.scroll_into_view_if_needed()
        box = place.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.1)
        page.wait_for_selector("#plot-cells-0 .hoverlayer text")
        told = page.text_content("#plot-cells-0 .hoverlayer")
        assert "learning rate 0.001" in told
        assert "accuracy 62.2% (54–69)" in told
        assert complaints == []
