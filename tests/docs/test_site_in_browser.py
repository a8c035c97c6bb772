"""The built site in headless Chromium, opened from files: axe-core, search and formulas."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {  # the largest in one scheme only
    "light": (
        "index",
        "api",
        "pruning/angles",
        "architecture",
        "benchmarks",
        "commands",
        "studies/images",
    ),
    "dark": ("index", "pruning/angles", "architecture"),
}
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = ["-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=True,
    )
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(site: Path, browser: Any, scheme: str):
    axe = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    page = browser.new_page(color_scheme=scheme)
    found: list[str] = []
    for name in PAGES[scheme]:
        page.goto((site / f"{name}.html").as_uri())
        page.evaluate(axe + ";0")
        result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert len(result["passes"]) > 10, "axe-core looked at next to nothing"
        found += [
            f"{name}: {one['id']} at {[node['target'] for node in one['nodes'][:3]]}"
            for one in result["violations"]
        ]
    page.close()
    assert found == []


def test_search_works_from_a_file_and_nothing_is_fetched(site: Path, browser: Any):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((site / "index.html").as_uri())
    page.click(".md-search__input")
    page.keyboard.type("Gedeon")
    page.wait_for_selector(".md-search-result__item")
    titles = page.locator(".md-search-result__item h1").all_inner_texts()
    page.close()
    assert "How angle pruning works" in titles
    assert [address for address in asked if not address.startswith(("file:", "data:"))] == []


def test_formulas_are_drawn_as_mathematics(site: Path, browser: Any):
    page = browser.new_page()
    page.goto((site / "pruning/angles.html").as_uri())
    sizes = page.evaluate(
        "[...document.querySelectorAll('math')].map(m => m.getBoundingClientRect().height)"
    )
    text = page.inner_text("article")
    page.close()
    assert len(sizes) >= 8
    assert min(sizes) > 5
    assert "formula-" not in text
    assert "\\frac" not in text
