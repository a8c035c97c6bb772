"""What the HTTP service answers, what it refuses, and that 20 hostile clients do not end it."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from secateurs.serve.service import Service, ServiceLimits, make_service
from secateurs.study.saved.prediction import predict_saved
from secateurs.study.saved.prediction_model import Classifier, card_of, open_classifier

BYTES = {"content-type": "application/octet-stream"}
LIMIT = ServiceLimits(max_mb=0.2, max_mp=0.09, max_images=3, max_requests=8, batch=2)


@pytest.fixture(scope="module")
def classifier(net: Path) -> Classifier:
    return open_classifier(net, threshold=0.9)


@pytest.fixture(scope="module")
def service(classifier: Classifier) -> Generator[Service]:
    with Service(classifier, LIMIT) as opened:
        yield opened


@pytest.fixture
def client(service: Service) -> Generator[TestClient]:
    app = make_service(service, card_of(service.classifier), ("localhost", "127.0.0.1"))
    with TestClient(app, base_url="http://localhost:8000") as opened:
        yield opened


@pytest.fixture(scope="module")
def files(flags: Path) -> list[Path]:
    return [sorted((flags / name).iterdir())[0] for name in ("across", "down", "plain")]


def picture(side: int = 60, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, format=kind)
    return packed.getvalue()


def bomb(side: int = 30_000) -> bytes:
    """A PNG of a few kB whose header promises side x side pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10**6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def refusal(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    answer = response.json()
    assert list(answer) == ["error"] and "\n" not in answer["error"]
    return answer["error"]


def test_answers_are_those_of_predict(client: TestClient, net: Path, files: list[Path]):
    expected = predict_saved(net, files)["predictions"]
    form = client.post("/predict", files=[("image", (f.name, f.read_bytes())) for f in files])
    assert form.status_code == 200
    rows = form.json()["predictions"]
    assert [row["name"] for row in rows] == [file.name for file in files]
    for row, wanted, file in zip(rows, expected, files, strict=True):
        [single] = client.post("/predict", content=file.read_bytes(), headers=BYTES).json()[
            "predictions"
        ]
        for found in (row, single):
            assert (found["error"], found["unsure"]) == (None, True)
            assert [a["label"] for a in found["answers"]] == [a["label"] for a in wanted["answers"]]
            for a, b in zip(found["answers"], wanted["answers"], strict=True):
                assert a["probability"] == pytest.approx(b["probability"], abs=1e-5)
        assert single["name"] == ""
    one = client.post(
        "/predict?top=1", content=picture(), headers={"content-type": "image/png; x=y"}
    )
    assert [len(row["answers"]) for row in one.json()["predictions"]] == [1]


def test_bad_images_have_their_status(client: TestClient):
    def post(data: bytes | Iterator[bytes], kind: str = "image/jpeg", **headers: str) -> Any:
        return client.post("/predict", content=data, headers={"content-type": kind, **headers})

    assert "image: unreadable" in refusal(post(b"<svg></svg>"), 400)
    assert "image: zero-byte" in refusal(post(b""), 400)
    assert "image: truncated" in refusal(post(picture()[:3000]), 400)
    assert "image: oversized (301 x 301 pixels" in refusal(post(picture(301, "JPEG")), 413)
    assert "image: oversized (" in refusal(post(bomb()), 413)
    assert "body: more than the limit of 200000 bytes" in refusal(post(bytes(200_001)), 413)
    large = (bytes(50_000) for _ in range(5))  # without a length
    assert "body: more than the limit" in refusal(post(large), 413)
    assert "content-type: expected image/" in refusal(post(picture(), "text/html"), 415)
    assert "content-type: expected image/" in refusal(client.post("/predict"), 415)
    for top, said in (
        ("0", "top is out of range: 0; expected a whole number from 1"),
        ("x", "top: expected a whole number from 1, got 'x'"),
        ("-1", "top: expected a whole number from 1, got '-1'"),
        ("9" * 30, "top: expected a whole number from 1, got '999"),
    ):
        answer = client.post(f"/predict?top={top}", content=picture(), headers=BYTES)
        assert refusal(answer, 400).startswith(said)
    refusal(client.get("/predict"), 405)
    refusal(client.get("/nothing"), 404)


def test_forms(client: TestClient):
    def post(*files: tuple[str, bytes]) -> Any:
        return client.post("/predict", files=[("image", file) for file in files])

    rows = post(("a.png", picture()), ("b.png", b"no image"), ("c.png", picture())).json()
    assert [row["error"] for row in rows["predictions"]][::2] == [None, None]
    assert "unreadable" in rows["predictions"][1]["error"]
    assert rows["predictions"][1]["answers"] == []
    many = [(f"{k}.png", picture(8)) for k in range(4)]
    assert "more than the limit of 3 images" in refusal(post(*many), 413)
    many = [(f"{k}.png", picture(8)) for k in range(9)]
    assert "more than the limit of 3 images" in refusal(post(*many), 413)
    assert "image: unreadable" in refusal(post(("a.png", b"no image")), 400)
    empty = client.post("/predict", files={}, data={"a": "b"}, headers={})
    assert refusal(empty, 415)
    kind = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"--x--", b"", b"--x\r\n\r\n\r\n--x--\r\n", b"\x00\xff" * 20, b"--x\r\na: b"):
        assert "form: " in refusal(client.post("/predict", content=body, headers=kind), 400)
    lost = {"content-type": "multipart/form-data"}
    assert "Missing boundary" in refusal(client.post("/predict", content=b"x", headers=lost), 400)


def test_too_many_requests_at_a_time(service: Service, client: TestClient, monkeypatch):
    decoding, go_on = threading.Event(), threading.Event()
    real = service.classifier.spec.preprocessing.pixels

    def slow(self: Any, image: Any) -> Any:
        decoding.set()
        assert go_on.wait(60)
        return real(image)

    monkeypatch.setattr("secateurs.ship.spec.ImageInput.pixels", slow)
    monkeypatch.setattr(service, "num_busy", LIMIT.max_requests - 1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/predict", content=picture(), headers=BYTES)
        try:
            assert decoding.wait(60)
            second = client.post("/predict", content=picture(), headers=BYTES)
            assert "busy: more than 8 requests at a time" in refusal(second, 503)
            assert second.headers["retry-after"] == "1"
            assert client.get("/health").json()["requests"] == LIMIT.max_requests
        finally:
            go_on.set()
        assert first.result().status_code == 200
    assert service.num_busy == LIMIT.max_requests - 1


def test_a_request_that_the_end_of_the_server_cuts_off_is_answered(service: Service):
    """uvicorn cancels what takes too long to finish; a traceback would say nothing new."""
    app = make_service(service, {}, ("localhost",))
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(3600)  # a body that never arrives

    async def send(message: Any) -> None:
        sent.append(message)

    async def cut_off() -> None:
        headers = [(b"host", b"localhost"), (b"content-type", b"image/png")]
        path = {"path": "/predict", "query_string": b"", "root_path": ""}
        scope = {"type": "http", "method": "POST", "headers": headers, **path}
        task = asyncio.create_task(app(scope, receive, send))
        while service.num_busy == 0:
            await asyncio.sleep(0.01)
        task.cancel()
        await task

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, cut_off()).result()
    assert sent[0]["status"] == 503
    assert json.loads(sent[1]["body"]) == {"error": "stopping: the server ends"}
    assert service.num_busy == 0


def test_a_failure_inside_is_one_line_without_secrets(service: Service, monkeypatch):
    def broken(self: Any, pixels: Any, sharing: int) -> Any:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr("secateurs.serve.service.Service._run", broken)
    with Service(service.classifier, LIMIT) as other:
        app = make_service(other, {}, ("localhost",))
        with TestClient(
            app, base_url="http://localhost:8000", raise_server_exceptions=False
        ) as client:
            answer = client.post("/predict", content=picture(), headers=BYTES)
            assert refusal(answer, 500) == "the server failed; its log says why"
            assert other.num_busy == 0


@pytest.mark.parametrize("host", ["example.org", "example.org:8000", "10.0.0.1:8000", "", ":80"])
def test_foreign_hosts_and_pages_are_refused(client: TestClient, host: str):
    assert "host: expected" in refusal(client.get("/health", headers={"host": host}), 403)
    for headers in (
        {"origin": "http://example.org"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ):
        answer = client.post("/predict", content=picture(), headers=BYTES | headers)
        assert "only the page of this server" in refusal(answer, 403)
    own = {"host": "127.0.0.1:9", "origin": "http://127.0.0.1:9"}
    assert client.post("/predict", content=picture(), headers=BYTES | own).status_code == 200


def test_hosts_that_are_allowed(service: Service):
    app = make_service(service, {}, ("localhost", "classifier.lan"))
    with TestClient(app, base_url="http://classifier.lan") as client:
        assert client.get("/health").json()["status"] == "ok"
        refusal(client.get("/health", headers={"host": "other.lan"}), 403)
    app = make_service(service, {}, ("localhost", "[::1]"))
    with TestClient(app, base_url="http://localhost") as client:
        for host in ("[::1]", "[::1]:8000"):
            assert client.get("/health", headers={"host": host}).status_code == 200
        for host in ("[::2]:8000", "::1", "[::1"):
            refusal(client.get("/health", headers={"host": host}), 403)
    app = make_service(service, {}, ("localhost", "*"))
    with TestClient(app, base_url="http://anything:81") as client:
        assert client.get("/health").status_code == 200


def test_the_card_says_what_the_model_is(client: TestClient):
    card = client.get("/card").json()
    assert card["format"] == "Secateurs"
    assert card["classes"] == ["across", "down", "plain"]
    assert card["confidence"] == {"temperature": 1.0, "threshold": 0.9}
    assert card["preprocessing"]["size"] == 224
    assert card["card"]["depth"] == 53


def test_the_document_is_openapi_and_holds_for_the_answers(client: TestClient):
    document = client.get("/openapi.json").json()
    models = pytest.importorskip("fastapi.openapi.models")
    parsed = models.OpenAPI.model_validate(document)
    assert set(parsed.paths) == {"/predict", "/health", "/card"}
    schemas = document["components"]["schemas"]
    answer = client.post("/predict", content=picture(), headers=BYTES).json()
    for value, name in (
        (answer, "Predictions"),
        (answer["predictions"][0], "Prediction"),
        (answer["predictions"][0]["answers"][0], "Answer"),
        (client.get("/health").json(), "Health"),
        (client.get("/card").json(), "Card"),
        (client.get("/nothing").json(), "Refusal"),
    ):
        assert set(schemas[name]["required"]) <= set(value)
        assert name == "Card" or set(value) <= set(schemas[name]["properties"])
    codes = document["paths"]["/predict"]["post"]["responses"]
    assert {"200", "400", "403", "408", "413", "415", "503"} == set(codes)
    for path in client.get("/").json()["links"]:
        assert client.get(path).status_code == 200


SERVER = """
import sys
from secateurs.cli import main
sys.argv = ["secateurs", "serve", *sys.argv[1:]]
main()
"""


@pytest.fixture(scope="module")
def running(net: Path) -> Generator[tuple[subprocess.Popen[str], int]]:
    words = [str(net), "--port", "0", "--json", "--max-mb", "1", "--max-mp", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, *words, "--max-requests", "12"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["port"]
    finally:
        process.kill()
        process.communicate()


def hostile(port: int, number: int, good: bytes) -> list[tuple[str, int]]:
    """What one client sends, and the status of each answer; 0 where the server hung up."""

    def ask(body: Any, kind: str = "image/png", **headers: str) -> int:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("POST", "/predict", body, {"Content-Type": kind, **headers})
            return connection.getresponse().status
        except (ConnectionError, BrokenPipeError):
            return 0  # refused before all was sent
        finally:
            connection.close()

    chance = np.random.default_rng(number)
    noise = chance.integers(0, 256, 5000, dtype=np.uint8).tobytes()
    flipped = bytearray(good)
    for place in chance.integers(0, len(good), 20):
        flipped[place] ^= 0xFF
    found = [
        ("noise", ask(noise)),
        ("flipped", ask(bytes(flipped))),
        ("cut off", ask(good[: len(good) // 2])),
        ("bomb", ask(bomb())),
        ("huge", ask(bytes(3 * 10**6))),
        ("endless", ask(iter([bytes(10**5)] * 40))),
        ("form", ask(noise, "multipart/form-data; boundary=x")),
        ("type", ask(good, "text/plain")),
        ("good", ask(good)),
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as caller:
        caller.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nabc"
        )  # and never the rest
    with socket.create_connection(("127.0.0.1", port), timeout=60) as caller:
        caller.sendall(noise[:400] + b"\r\n\r\n")
        caller.recv(100)
    return found


@pytest.mark.slow
def test_twenty_hostile_clients_do_not_end_it(
    running: tuple[subprocess.Popen[str], int], net: Path, files: list[Path]
):
    process, port = running
    good = files[0].read_bytes()
    with ThreadPoolExecutor(20) as pool:
        answers = [
            pair
            for pairs in pool.map(lambda number: hostile(port, number, good), range(20))
            for pair in pairs
        ]
    assert process.poll() is None
    allowed = {
        "noise": {400},
        "flipped": {200, 400, 413},
        "cut off": {400},
        "bomb": {413},
        "huge": {413, 0},
        "endless": {413, 0},
        "form": {400},
        "type": {415},
        "good": {200},
    }
    for name, status in answers:
        assert status in allowed[name] | {503}, (name, status)
    assert {name for name, status in answers if status not in (0, 503)} >= {"noise", "good"}
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/predict", good, {"Content-Type": "image/png"})
    [row] = json.loads(connection.getresponse().read())["predictions"]
    [wanted] = predict_saved(net, [files[0]])["predictions"]
    for a, b in zip(row["answers"], wanted["answers"], strict=True):
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-5)
    connection.close()
    process.send_signal(signal.SIGTERM)
    out, complaints = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in complaints
