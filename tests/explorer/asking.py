"""Requests to the page's server, and the page in a browser, shared by the tests."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

PORT = 5123
HOST = f"127.0.0.1:{PORT}"
JSON = {"content-type": "application/json"}
BYTES = {"content-type": "application/octet-stream"}


def picture(side: int = 60, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, format=kind)
    return packed.getvalue()


def refusal(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    answer = response.json()
    assert list(answer) == ["error"]
    return answer["error"]


def until(page: Any, condition: str) -> None:
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never came true: {condition}")


def open_page(browser: Any, address: str, width: int, scheme: str) -> tuple[Any, list[str]]:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((address, "data:", "blob:"))
            else complaints.append(f"asked for {request.url}")
        ),
    )
    page.goto(address, timeout=90_000)
    page.wait_for_selector("html[data-drawn]", timeout=90_000)
    return page, complaints
