"""The page of a study over several networks in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import opened, violations
from example_frontier import example_frontier

from secateurs.report.frontier.page import write_frontier_report

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_draws_everything_and_loads_nothing(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    path = write_frontier_report(example_frontier(tmp_path), tmp_path)
    with opened(browser, path, width=width, scheme=scheme) as (page, requests, complaints):
        places = page.query_selector_all(".figure")
        marks = ".cartesianlayer .overplot :is(path, rect, image, text)"
        assert len(places) >= 6
        assert all(place.query_selector(marks) for place in places)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [url for url in requests if not url.startswith("data:image/")] == [path.as_uri()]
        assert complaints == []
        assert violations(page) == []
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        widths = "[...document.querySelectorAll('.main-svg')].map(drawn => drawn.clientWidth)"
        assert max(page.evaluate(widths)) <= 680  # what fits on A4 and Letter


def test_on_paper_matrices_and_bars_are_lower(browser: Any, tmp_path: Path) -> None:
    """So that a chart fits under a short section, and no page is left half empty."""
    path = write_frontier_report(example_frontier(tmp_path), tmp_path)
    with opened(browser, path) as (page, _, complaints):
        heights = (
            "Object.fromEntries([...document.querySelectorAll('.figure .plot')]"
            ".map(drawn => [drawn.id, drawn.clientHeight]))"
        )
        screen = page.evaluate(heights)
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        paper = page.evaluate(heights)
        assert complaints == []
    assert paper["plot-confusion-0"] <= 0.6 * screen["plot-confusion-0"]
    assert paper["plot-counts-0"] <= 0.71 * screen["plot-counts-0"]
