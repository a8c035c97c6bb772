"""The page of a run of the paper in a real browser: nothing loaded, every figure drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import opened, violations
from example_paper import example_paper

from secateurs.report.paper.page import write_paper_page

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(
    ("sfew", "width", "scheme", "figures"), [(True, 1280, "dark", 16), (False, 390, "light", 14)]
)
def test_the_page_draws_everything_and_loads_nothing(
    browser: Any, tmp_path: Path, sfew: bool, width: int, scheme: str, figures: int
) -> None:
    path = write_paper_page(example_paper(sfew=sfew), tmp_path)
    with opened(browser, path, width=width, scheme=scheme) as (page, requests, complaints):
        places = page.query_selector_all(".figure")
        marks = ".cartesianlayer .overplot :is(path, rect, image, text)"
        assert len(places) == figures
        assert all(place.query_selector(marks) for place in places)
        page.focus("#panel-table1 summary")
        page.keyboard.press("Enter")
        assert page.is_visible("#panel-table1 table")
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        outside = page.evaluate(
            """[...document.querySelectorAll('.plot svg text')].filter(t => {
              const place = t.closest('.plot').getBoundingClientRect();
              const box = t.getBoundingClientRect();
              return box.width && (box.left < place.left - 1 || box.right > place.right + 1);
            }).map(t => t.textContent)"""
        )
        assert outside == []
        assert [url for url in requests if not url.startswith("data:image/")] == [path.as_uri()]
        assert complaints == []
        assert violations(page) == []
