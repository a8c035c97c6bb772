"""A whole network's page in a real browser: nothing loaded, nothing wrong, every figure drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import opened, violations
from example_network import example_network

from secateurs.report.network.page import write_network_page

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_draws_everything_and_loads_nothing(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    path = write_network_page(example_network(), tmp_path)
    with opened(browser, path, width=width, scheme=scheme) as (page, requests, complaints):
        places = page.query_selector_all(".figure")
        marks = ".cartesianlayer .overplot :is(path, rect, image, text)"
        assert len(places) == 3
        assert all(place.query_selector(marks) for place in places)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [url for url in requests if not url.startswith("data:image/")] == [path.as_uri()]
        assert complaints == []
        assert violations(page) == []
