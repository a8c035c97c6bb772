"""The explorer in a real browser: a slider moved by keyboard, an image dropped, a cut saved."""

from __future__ import annotations

import base64
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from asking import open_page, until
from browsing import violations

from secateurs.explorer.layer_app import Desk, make_app
from secateurs.serve.run import listen
from secateurs.ship.checkpoint import load
from secateurs.study.pruning.explorer import Explorer, cut
from secateurs.study.pruning.slider_request import SliderRequest

pytestmark = pytest.mark.browser

DROP = """([text, name]) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(
      new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: transfer }));
  }
}"""


@pytest.fixture
def address(browser: Any, explorer: Explorer, tmp_path: Path) -> Generator[str]:
    listener = listen()
    port = listener.getsockname()[1]
    app = make_app(Desk(explorer, tmp_path / "cuts"), port=port)
    server = uvicorn.Server(
        uvicorn.Config(app, http="h11", ws="none", lifespan="off", log_level="warning")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{port}/"
    for context in browser.contexts:
        context.close()
    server.should_exit = True
    thread.join(timeout=60)
    listener.close()


def test_a_layer_is_cut_asked_and_saved(
    browser: Any, address: str, explorer: Explorer, flags: Path, tmp_path: Path
):
    page, complaints = open_page(browser, address, 1280, "light")
    start = cut(explorer, SliderRequest(low_deg=15.0))
    assert page.text_content("#kept") == f"{start['num_kept']:,}"

    page.focus("#angle")
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    until(page, "document.getElementById('angle-number').value === '14'")
    until(page, "document.getElementById('command').textContent.includes('--low-deg 14 ')")
    now = cut(explorer, SliderRequest(low_deg=14.0))
    assert now["num_kept"] > start["num_kept"]
    assert page.text_content("#kept") == f"{now['num_kept']:,}"
    assert page.text_content("#accuracy") == f"{100 * now['accuracy']:.1f}%"
    assert page.input_value("#keep-number") == str(now["num_kept"])
    assert page.get_attribute("#angle", "aria-valuetext") == "14 degrees"
    assert int(page.text_content("#legend-kept")) == now["num_kept"]
    came = sum(a != "0" and b == "0" for a, b in zip(start["states"], now["states"], strict=True))
    assert int(page.text_content("#legend-back")) <= came

    page.focus("#keep")
    page.keyboard.press("Home")
    page.keyboard.press("End")
    until(page, "document.getElementById('command').textContent.includes('--keep 1024 ')")
    page.fill("#keep-number", "30")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('command').textContent.includes('--keep 30 ')")
    few = cut(explorer, SliderRequest(low_deg=None, keep=30))
    assert page.text_content("#kept") == str(few["num_kept"])
    assert float(page.input_value("#angle-number")) == pytest.approx(few["low_deg"], abs=0.01)

    file = next((flags / "down").iterdir())
    page.evaluate(DROP, [base64.b64encode(file.read_bytes()).decode(), file.name])
    until(page, "!document.getElementById('asked').hidden")
    for which in ("before", "after"):
        assert page.locator(f"#bars-{which} li").count() == 3
    assert page.text_content("#verdict").startswith(
        ("Both networks predict ", "The predictions differ: ")
    )

    page.fill("#unit", str(few["states"].index("0")))
    until(page, "document.getElementById('unit-answer').textContent.startsWith('kept')")
    page.fill("#name", "mine")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('saved').textContent.startsWith('Saved ')")
    assert len(load(tmp_path / "cuts" / "mine").spec.kept["classifier.0"]) == few["num_kept"]
    assert complaints == []
    # A refusal is told, and is the only thing on the console.
    page.click("#save button")
    page.fill("#name", "mine")
    page.click("#save button")
    until(page, "document.getElementById('saved').textContent.includes('already and not empty')")
    assert [line for line in complaints if "400 (Bad Request)" not in line] == []
    assert violations(page) == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_groups_and_the_trail(browser: Any, address: str, width: int, scheme: str):
    page, complaints = open_page(browser, address, width, scheme)
    page.check("input[value=cluster]")
    until(page, "document.documentElement.dataset.moves === '1'")
    assert page.is_disabled("#angle") and page.is_disabled("#norm")
    assert "--rule cluster" in page.text_content("#command")
    page.click("details summary")
    rows = page.locator("#tried tr")
    assert rows.count() == 2
    page.click("#tried button[aria-label^='Return to 15°']")
    until(page, "document.getElementById('command').textContent.includes('--rule pairwise')")
    assert page.is_enabled("#angle")
    page.check("input[value=cluster]")
    until(page, "document.getElementById('command').textContent.includes('--rule cluster')")
    before = rows.count()
    page.click("#sketch")
    until(page, "document.documentElement.dataset.sketched === 'true'")
    kept = {row.locator("td").first.text_content() for row in rows.all()}
    assert {"4", "64", "512"} <= kept  # groups over the whole range of the layer's 1,024 units
    assert rows.count() >= before + 7
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#trail .point").count() == rows.count() + 1  # a ring around the current
    assert violations(page) == []
    assert complaints == []


def test_a_server_that_ended_is_named(browser: Any, address: str):
    page, _ = open_page(browser, address, 1280, "light")
    page.route("**/cut", lambda route: route.abort())
    page.focus("#norm")
    page.keyboard.press("ArrowRight")
    until(page, "!document.getElementById('problem').hidden")
    assert "The server does not respond" in page.text_content("#problem")
