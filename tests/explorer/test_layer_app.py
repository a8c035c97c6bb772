"""What the server answers its own page, and what it refuses everyone else."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from asking import BYTES, HOST, JSON, PORT, picture, refusal
from starlette.testclient import TestClient

from secateurs.cli import main
from secateurs.errors import InputError
from secateurs.explorer.layer_app import Desk, make_app
from secateurs.serve.run import listen
from secateurs.ship.checkpoint import load
from secateurs.study.pruning.explorer import Explorer, read_picture

SETTINGS = json.dumps({"low_deg": 8})


def client_of(desk: Desk) -> TestClient:
    return TestClient(make_app(desk, port=PORT), base_url=f"http://{HOST}")


@pytest.fixture
def desk(explorer: Explorer, tmp_path: Path) -> Desk:
    return Desk(explorer, tmp_path / "cuts", max_image_bytes=200_000, max_pixels=300 * 300)


@pytest.fixture
def client(desk: Desk) -> Generator[TestClient]:
    with client_of(desk) as opened:
        yield opened


def test_the_page_stands_by_itself(client: TestClient):
    page = client.get("/")
    assert page.status_code == 200
    rules = page.headers["content-security-policy"]
    assert "default-src 'none'" in rules and "connect-src 'self'" in rules
    assert "frame-ancestors 'none'" in rules
    assert page.headers["cache-control"] == "no-store"
    for kind in ('src="http', 'href="http', "@import", "<link"):
        assert kind not in page.text.split("<script>")[0]
    assert client.get("/favicon.ico").status_code == 204
    refusal(client.get("/cut"), 405)
    refusal(client.get("/nothing"), 404)


@pytest.mark.parametrize(
    "host",
    ["example.org", f"example.org:{PORT}", "127.0.0.1", "127.0.0.1:80", f"0.0.0.0:{PORT}", ""],
)
def test_foreign_hosts_are_refused(client: TestClient, host: str):
    assert "host: expected" in refusal(client.get("/", headers={"host": host}), 403)
    answer = client.post("/cut", content=SETTINGS, headers=JSON | {"host": host})
    assert "host: expected" in refusal(answer, 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://example.org"},
        {"origin": "null"},
        {"origin": f"https://{HOST}"},
        {"origin": "http://127.0.0.1:9"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_foreign_origins_are_refused(client: TestClient, desk: Desk, headers: dict[str, str]):
    query = {"settings": SETTINGS, "name": "mine"}
    for path, kind in (("/cut", JSON), ("/picture", BYTES), ("/save", JSON)):
        refused = client.post(path, params=query, content=b"", headers=kind | headers)
        assert "only the page of this server is allowed" in refusal(refused, 403)
    refusal(client.get("/", headers=headers), 403)
    assert not desk.saved_in.exists()


def test_the_own_page_may_ask(client: TestClient):
    for host in ("127.0.0.1", "localhost"):
        own = {"host": f"{host}:{PORT}", "origin": f"http://{host}:{PORT}"}
        found = client.post(
            "/cut", content=SETTINGS, headers=JSON | own | {"sec-fetch-site": "same-origin"}
        )
        assert found.status_code == 200
        assert found.json()["settings"]["low_deg"] == 8


def test_bad_positions_are_told_in_one_line(client: TestClient):
    for text, words in (
        (b"\xff", "not readable as JSON"),
        (b"[" * 4000, "not readable as JSON"),
        (b'{"low_deg": 95}', "low_deg: expected degrees"),
        (b'{"keep": 1e400}', "keep: expected a whole number"),
        (b'{"low_deg": ' + b"9" * 400 + b"}", "low_deg: expected a number or null"),
        (b'{"low_deg": -' + b"9" * 400 + b"}", "low_deg: expected a number or null"),
        (b'{"low_deg": 8, "norm_std": ' + b"9" * 400 + b"}", "norm_std: expected a number"),
        (b'{"low_deg": 8, "norm_std": 1e300}', "norm_std: expected a number"),
        (b'{"low_deg": NaN}', "low_deg: expected a number"),
        (b'{"keep": ' + b"9" * 400 + b"}", "keep: expected a whole number"),
        (b'{"keep": ' + b"9" * 4070 + b"}", "keep: expected a whole number"),
        (b'{"rule": {"a": 1}}', "rule: expected one of"),
        (b'{"layer": "fc6"}', "unknown field 'layer'"),
        (b"true", "expected a JSON object"),
    ):
        assert words in refusal(client.post("/cut", content=text, headers=JSON), 400)
    assert "more than the limit of 4096 bytes" in refusal(
        client.post("/cut", content=b" " * 5000, headers=JSON), 413
    )
    assert "expected application/json" in refusal(client.post("/cut", content=SETTINGS), 415)
    for index in ("", "-1", "x", "1" * 30):
        asked = client.get("/unit", params={"settings": SETTINGS, "index": index})
        assert "unit: expected a number" in refusal(asked, 400)
    assert client.get("/unit", params={"settings": SETTINGS, "index": "3"}).json()["index"] == 3


def test_pictures_are_limited_and_asked_of_both(client: TestClient):
    def post(data: bytes | Generator[bytes], **headers: str) -> Any:
        return client.post(
            "/picture", params={"settings": SETTINGS}, content=data, headers=BYTES | headers
        )

    found = post(picture()).json()
    assert found["number"] == 1
    for which in ("before", "after"):
        assert {row["label"] for row in found[which]} == {"across", "down", "plain"}
        assert sum(row["probability"] for row in found[which]) == pytest.approx(1, abs=1e-5)
    moved = client.post("/cut", content='{"low_deg": 8}', headers=JSON).json()
    assert moved["picture"] == {k: v for k, v in found.items() if k != "seen"}
    assert post(picture(kind="TIFF")).json()["number"] == 2
    large = picture(310)
    assert "body: more than the limit" in refusal(post(large), 413)
    assert "body: more than the limit" in refusal(post(part for part in [large]), 413)
    assert "oversized (301 x 301 pixels" in refusal(post(picture(301, "JPEG")), 400)
    assert "picture: zero-byte" in refusal(post(b""), 400)
    assert "picture: truncated" in refusal(post(picture()[:3000]), 400)
    assert "picture: unreadable" in refusal(post(b"<svg></svg>"), 400)
    answer = client.post("/picture", params={"settings": SETTINGS}, content=picture(), headers=JSON)
    assert "expected application/octet-stream" in refusal(answer, 415)


def test_a_picture_that_is_decoded_holds_no_cut_up(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
):
    decoding, go_on = threading.Event(), threading.Event()

    def slow(*given: Any, **options: Any) -> Any:
        decoding.set()
        assert go_on.wait(60)
        return read_picture(*given, **options)

    def post() -> Any:
        return client.post(
            "/picture", params={"settings": SETTINGS}, content=picture(), headers=BYTES
        )

    monkeypatch.setattr("secateurs.explorer.layer_app.read_picture", slow)
    monkeypatch.setattr("secateurs.explorer.layer_app.MAX_PICTURES", 1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post)
        try:
            assert decoding.wait(60)
            assert client.post("/cut", content=SETTINGS, headers=JSON).status_code == 200
            assert "too many images are being read" in refusal(post(), 429)
        finally:
            go_on.set()
        assert waiting.result().json()["number"] == 1
    assert post().json()["number"] == 2


async def _asked(desk: Desk, messages: list[dict[str, Any]], length: bytes = b"9") -> list[Any]:
    """What the application sends to a client whose body arrives so, and then no more of it."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.sleep(60)
        raise AssertionError("waited for the whole body")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", HOST.encode()), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/cut",
        "query_string": b"",
        "headers": [*headers, (b"content-length", length)],
    }
    await make_app(desk, port=PORT)(scope, receive, send)
    return sent


def test_bodies_that_are_slow_cut_off_or_mistold_are_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("secateurs.serve.bodies.BODY_S", 0.05)
    begun = {"type": "http.request", "body": b"{", "more_body": True}
    gone = {"type": "http.disconnect"}
    for messages, length, status, words in (
        ([begun], b"9", 408, b"body: not all of it within 0.05 seconds"),
        ([begun, gone], b"9", 400, b"body: incomplete"),
        ([], b"9" * 5000, 413, b"body: more than the limit"),
        ([], "²".encode("latin-1"), 413, b"body: more than the limit"),
    ):
        # In a thread of its own: another test may have left an event loop in this one.
        with ThreadPoolExecutor(1) as pool:
            start, body = pool.submit(asyncio.run, _asked(desk, messages, length)).result()
        assert start["status"] == status
        assert words in body["body"]


def test_a_cut_is_saved_once_under_a_plain_name(client: TestClient, desk: Desk):
    def save(name: str) -> Any:
        return client.post("/save", params={"settings": SETTINGS, "name": name}, headers=JSON)

    done = save("small").json()
    loaded = load(desk.saved_in / "small")
    shown = client.post("/cut", content=SETTINGS, headers=JSON).json()
    assert done["num_kept"] == shown["num_kept"] == len(loaded.spec.kept["classifier.0"])
    assert done["accuracy"] == shown["accuracy"]
    assert done["num_parameters"] == shown["num_parameters"]
    assert "is there already and not empty" in refusal(save("small"), 400)
    for name in ("", ".", "..", "../up", "a/b", "/etc/x", ".hidden", "a" * 65, "a\n", "ä"):
        assert "name: expected letters" in refusal(save(name), 400)
    assert [path.name for path in desk.saved_in.iterdir()] == ["small"]
    (desk.saved_in / "taken").write_text("a file")
    assert "is there already" in refusal(save("taken"), 400)


def test_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    with listen() as first:
        port = first.getsockname()[1]
        assert first.getsockname()[0] == "127.0.0.1"
        with pytest.raises(InputError, match=f"port {port}: cannot be used"):
            listen(port)
    with pytest.raises(InputError, match="port: expected 0 to 65535, got 70000"):
        listen(70000)
    monkeypatch.setattr("secateurs.extras.find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["secateurs", "explore", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "pip install 'secateurs[explore]'" in capsys.readouterr().err


def test_the_command_as_typed(
    net: Path, flags: Path, net_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    served: list[Any] = []

    def serve(app: Any, listener: socket.socket) -> None:
        port = listener.getsockname()[1]
        with TestClient(app, base_url=f"http://127.0.0.1:{port}") as client:
            served.append((port, client.get("/").text))
        listener.close()

    monkeypatch.setattr("secateurs.serve.run.serve", serve)
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    out = tmp_path / "mine"
    words = [str(net), str(flags), "--layer", "classifier.0", "--cache", str(net_cache)]
    for more in (["--json"], ["--open", "--out", str(out)]):
        monkeypatch.setattr("sys.argv", ["secateurs", "explore", *words, "--quiet", *more])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    first, second = capsys.readouterr().out.splitlines()
    answer = json.loads(first)
    assert '\nlayer = "classifier.0"\n' in answer.pop("config_toml")
    assert answer == {
        "address": f"http://{HOST[:-4]}{served[0][0]}/",
        "port": served[0][0],
    }
    assert second == f"http://127.0.0.1:{served[1][0]}/  (Ctrl-C ends it)"
    assert opened == [f"http://127.0.0.1:{served[1][0]}/"]
    assert "Pruning classifier.0" in served[0][1] and str(net / "cuts") in served[0][1]
    assert str(out) in served[1][1]
