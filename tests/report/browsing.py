"""A page in Debian's Chromium, shared by the tests of pages."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
