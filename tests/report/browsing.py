"""A page in Debian's Chromium, shared by the tests of pages."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

# What axe-core calls its two worst degrees; neither is allowed in any page.
FORBIDDEN = ("serious", "critical")


@contextmanager
def opened(
    browser: Any, path: Path, *, width: int = 1280, scheme: str = "light"
) -> Generator[tuple[Any, list[str], list[str]]]:
    """The drawn page, with the addresses it asked for and what it complained of."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    # Generous: parsing Plotly takes seconds of processor time, and much longer on a busy machine.
    page.goto(path.as_uri(), timeout=90_000)
    page.wait_for_selector("html[data-drawn]", timeout=90_000)
    yield page, requests, complaints
    context.close()


@cache
def axe_source() -> str:
    """The text of axe-core, which a package of the index carries."""
    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Any) -> list[str]:
    """Serious and critical findings of axe-core on an open page.

    One line a finding: the rule, what it asks for, and the first elements that break it. Put
    `assert violations(page) == []` at the end of a browser test of any page, in light and dark.
    The insides of Plotly's drawings are left out: each is one picture with a label.
    """
    if not page.evaluate("typeof window.axe === 'object'"):
        # A page's policy forbids script elements of others, not what the browser's driver runs.
        page.evaluate(axe_source() + ";0")
    found = page.evaluate("axe.run({exclude: ['.main-svg']}, {resultTypes: ['violations']})")
    assert len(found["passes"]) > 10, "axe-core looked at next to nothing"
    return [
        f"{finding['impact']}: {finding['id']} ({finding['help']}) at "
        + json.dumps([node["target"] for node in finding["nodes"][:4]])
        + f" of {len(finding['nodes'])}"
        for finding in found["violations"]
        if finding["impact"] in FORBIDDEN
    ]
