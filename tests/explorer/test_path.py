"""The page of a whole network's path: its requests, and how it behaves in a real browser."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from asking import BYTES, HOST, JSON, PORT, open_page, picture, refusal, until
from browsing import violations
from example_frontier import example_frontier
from starlette.testclient import TestClient

from secateurs.explorer.layer_app import Desk, make_app
from secateurs.explorer.opening import computing
from secateurs.explorer.path_app import PathDesk
from secateurs.serve.run import listen
from secateurs.stopping import StopFlag
from secateurs.study.pruning.explorer import Explorer
from secateurs.study.pruning.size_path import SizePath, Steps, open_path
from secateurs.study.saved.location import find_location


@pytest.fixture(scope="module")
def path(net: Path, flags: Path, net_cache: Path) -> SizePath:
    place = find_location(net, str(flags))
    return open_path(place, changes={}, cache=net_cache, shares=(0.5,))


@pytest.fixture
def desk(path: SizePath, tmp_path: Path) -> PathDesk:
    return PathDesk(path, tmp_path / "cuts", example_frontier(tmp_path))


@pytest.fixture
def client(desk: PathDesk) -> Generator[TestClient]:
    app = make_app(None, port=PORT, path=desk)
    with TestClient(app, base_url=f"http://{HOST}") as opened:
        yield opened


def test_requests_are_answered_as_sizes_come(client: TestClient, desk: PathDesk, tmp_path: Path):
    page = client.get("/")
    assert page.status_code == 200 and "mobilenet_v2-macs50" in page.text
    assert client.get("/path/state").json() == desk.path.state()
    assert client.get("/layer").status_code == 404
    assert [row["state"] for row in desk.path.state()["positions"]] == ["ready", "waiting"]
    early = client.post("/path/picture?share=0.5", content=picture(), headers=BYTES)
    assert "not computed yet" in refusal(early, 400)
    assert "not computed yet" in refusal(
        client.post("/path/save?share=0.5&name=half", headers=JSON), 400
    )
    shown = client.post("/path/picture?share=1", content=picture(), headers=BYTES).json()
    assert shown["seen"].startswith("data:image/jpeg;base64,")
    again = client.get("/path/answers?share=1").json()
    assert again["number"] == shown["number"] and again["agree"]
    saved = client.post("/path/save?share=1&name=whole", headers=JSON).json()
    assert (tmp_path / "cuts" / "whole" / "model.json").is_file()
    assert (tmp_path / "cuts" / "whole" / "model.safetensors").stat().st_size == saved["bytes"]
    assert saved["macs"] == desk.path.state()["positions"][0]["macs"]


def test_the_page_is_told_which_step_is_being_computed():
    steps = Steps(StopFlag())
    with steps.task("sizes", 2), steps.task("refitting", 9) as advance:
        advance(3)
        assert steps.now == ["sizes, 0 of 2", "refitting, 3 of 9"]
    assert steps.now == []


@pytest.mark.parametrize("share", ["", "2", "0.5x", "nan", "0.123456"])
def test_odd_shares_are_refused(client: TestClient, share: str):
    assert "share: expected" in refusal(client.get(f"/path/answers?share={share}"), 400)


def test_odd_names_and_pictures_are_refused(client: TestClient):
    away = client.post("/path/save?share=1&name=../x", headers=JSON)
    assert "name: expected" in refusal(away, 400)
    assert "picture: " in refusal(
        client.post("/path/picture?share=1", content=b"no picture", headers=BYTES), 400
    )


def test_both_pages_are_there_where_a_layer_can_be_pruned(
    explorer: Explorer, desk: PathDesk, tmp_path: Path
):
    desk.layer_page = True
    app = make_app(Desk(explorer, tmp_path / "cuts"), port=PORT, path=desk)
    with TestClient(app, base_url=f"http://{HOST}") as opened:
        assert 'href="/layer"' in opened.get("/").text
        assert "Pruning classifier.0" in opened.get("/layer").text


@pytest.mark.browser
@pytest.mark.parametrize(
    ("width", "scheme"), [pytest.param(1280, "light", marks=pytest.mark.slow), (390, "dark")]
)
def test_the_slider_moves_at_once_between_the_sizes_that_are_there(
    browser: Any, path: SizePath, net: Path, flags: Path, net_cache: Path, tmp_path: Path,
    width: int, scheme: str,
):  # fmt: skip
    own = path
    if width > 1000:  # here the size comes while the page is open
        own = open_path(find_location(net, str(flags)), changes={}, cache=net_cache, shares=(0.5,))
    desk = PathDesk(own, tmp_path / "cuts", example_frontier(tmp_path))
    listener = listen()
    port = listener.getsockname()[1]
    app = make_app(None, port=port, path=desk)
    server = uvicorn.Server(
        uvicorn.Config(app, http="h11", ws="none", lifespan="off", log_level="warning")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        page, complaints = open_page(browser, f"http://127.0.0.1:{port}/", width, scheme)
        assert page.text_content("#bytes") != "–"
        live = width > 1000
        with computing(desk if live else None):
            if live:
                until(page, "document.documentElement.dataset.ready === '2'")
            page.focus("#size")
            page.keyboard.press("ArrowLeft")
            until(page, "document.documentElement.dataset.shown?.startsWith('0.5:')")
        assert float(page.evaluate("document.documentElement.dataset.took")) < 300
        assert page.text_content("#size-value") == ("50%" if live else "50%: not computed yet")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert complaints == []
        assert violations(page) == []
    finally:
        for context in browser.contexts:
            context.close()
        server.should_exit = True
        thread.join(timeout=60)
        listener.close()
