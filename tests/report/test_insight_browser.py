"""The pages of probe and trust in a real browser: nothing loaded, nothing wrong, all drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import opened, violations
from example_probe import example_probe
from example_trust import example_trust

from secateurs.report.insight.trust_page import write_trust_page
from secateurs.report.probe.page import write_probe_page

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_every_cell_of_the_probe_is_drawn(browser: Any, tmp_path: Path, width: int, scheme: str):
    path = write_probe_page(example_probe(), tmp_path)
    with opened(browser, path, width=width, scheme=scheme) as (page, requests, complaints):
        cells = page.evaluate(
            "[...document.querySelectorAll('#plot-probe-0 .scatterlayer text')]"
            ".map(t => t.textContent)"
        )
        assert len(cells) == 6
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [url for url in requests if not url.startswith("data:image/")] == [path.as_uri()]
        assert complaints == []
        assert violations(page) == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_every_figure_of_trust_is_drawn(browser: Any, tmp_path: Path, width: int, scheme: str):
    path = write_trust_page(example_trust(), tmp_path)
    with opened(browser, path, width=width, scheme=scheme) as (page, requests, complaints):
        places = page.query_selector_all(".figure")
        assert len(places) == 4
        assert all(place.query_selector(".scatterlayer path") for place in places)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [url for url in requests if not url.startswith("data:image/")] == [path.as_uri()]
        assert complaints == []
        assert violations(page) == []
