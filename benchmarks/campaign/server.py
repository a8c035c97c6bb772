"""Malformed, huge and slow requests to `secateurs explore` in parallel, on the loopback address."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from broken_images import broken, samples
from compare import leftovers
from kills import LONGEST_S, Tally, World, fresh
from mutations import SECONDS, mutate
from tiny import spawn, wait

SETTINGS = b'{"low_deg": 15}'
BODIES = (
    b"", b"{", b"[]", b"null", b"true", b"NaN", b'{"low_deg": NaN}', b'{"low_deg": 1e999}',
    b'{"low_deg": ' + b"9" * 400 + b"}", b'{"low_deg": -1}', b'{"low_deg": "x"}',
    b'{"low_deg": ' + b"9" * 5000 + b"}", b'{"keep": 1e300}', b'{"keep": ' + b"9" * 3000 + b"}",
    b'{"low_deg": 15, "low_deg": 16}', b'{"low_deg": 15, "keep": 0}', b"[" * 4000, b"[" * 100_000,
    b'{"rule": "no"}', b'{"rule": {"a": 1}}', b'{"layer": "../../etc"}', b"\xff\xfe\x00",
    b"{" + b'"a":1,' * 5000, b"x" * 20_000_000, SETTINGS,
)  # fmt: skip
NAMES = ("a", "..", "../x", "", "a" * 64, "a" * 65, "CON", "a/b", "\x00", "\u202e", ".hidden")
KINDS = (
    "application/json",
    "application/octet-stream",
    "image/png",
    "text/plain",
    "x/" + "y" * 200,
)
CLIENTS, SLOW = 8, 20


@contextmanager
def running(world: World, place: Path) -> Generator[tuple[int, int]]:
    """A server as (process, port), ended in the end."""
    log = world.root / "log"
    log.write_text("")
    process = spawn(_line(world, place), log)
    try:
        yield process, _port(log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)


def _line(world: World, place: Path) -> list[str]:
    line = ["explore", str(world.model), str(world.data), "--layer", "fc7", "--json"]
    return [*line, "--cache", str(place / "cache"), "--out", str(place / "out")]


def _port(log: Path) -> int:
    for _ in range(LONGEST_S * 10):
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("{") and "port" in line:
                return int(json.loads(line)["port"])
        time.sleep(0.1)
    raise RuntimeError(f"explore did not start: {log.read_text()[-500:]}")


def requests(count: int, world: World, chance: random.Random) -> Tally:
    """Send damaged requests: an answer below 500 in time, and a server that still answers."""
    tally = Tally()
    place, made = fresh(world.root / "trial"), samples()
    with running(world, place) as (process, port):
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(SLOW)]
        for one in slow:
            one.sendall(b"POST /cut HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{")
        asked = [_request(number, chance, made) for number in range(count)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            for trouble in pool.map(lambda one: _send(port, *one), asked):
                tally.add(trouble)
        for one in slow:
            one.close()
        for path, body in (("/", b""), ("/cut", SETTINGS)):
            status, _ = _status(port, "POST" if body else "GET", path, body)
            tally.add(None if status == 200 else f"afterwards {path} has status {status}")
        os.kill(process, signal.SIGTERM)
        code = wait(process, seconds=60)
    if code not in (0, -signal.SIGTERM, 143):
        tally.wrong.append(f"the server ended with {code}")
    if "Traceback" in (world.root / "log").read_text(errors="replace"):
        tally.wrong.append("a traceback in the server's log")
    left = leftovers(place)
    if left:
        tally.wrong.append(f"left behind {left[:3]}")
    return tally


def started(world: World, chance: random.Random) -> str | None:
    """Kill a server while it starts or answers; the next one has to answer as ever."""
    place, log = fresh(world.root / "trial"), world.root / "log"
    log.write_text("")
    begun = time.monotonic()
    with running(world, place) as (process, port):
        assert _status(port, "POST", "/cut", SETTINGS)[0] == 200
        usual = time.monotonic() - begun
        os.kill(process, signal.SIGTERM)
        wait(process, seconds=60)
    place = fresh(world.root / "trial")
    process = spawn(_line(world, place), log)
    moment = chance.uniform(0, 1.2 * usual)
    time.sleep(moment)
    os.kill(process, signal.SIGKILL)
    wait(process)
    what = f"explore, killed after {moment:.1f} s"
    with running(world, place) as (process, port):
        status, answer = _status(port, "POST", "/cut", SETTINGS)
        os.kill(process, signal.SIGTERM)
        code = wait(process, seconds=60)
    if status != 200 or b"num_kept" not in answer:
        return f"{what}: then status {status}, {answer[:80]!r}"
    if code not in (0, 143, -signal.SIGTERM):
        return f"{what}: then exit code {code}"
    left = leftovers(place)
    return f"{what}: left behind {left[:3]}" if left else None


def _status(
    port: int, method: str, path: str, body: bytes, kind: str = "application/json"
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        headers = {"Content-Type": kind, "Origin": f"http://127.0.0.1:{port}"}
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _request(
    number: int, chance: random.Random, made: list[tuple[str, bytes]]
) -> tuple[str, str, str, bytes, str]:
    """A request as (what it is, method, path, body, type), half of them well addressed."""
    settings = chance.choice([SETTINGS, SETTINGS, *BODIES[:-2], mutate(SETTINGS, chance)])
    text = quote(settings[:5000])
    kind = chance.choice(KINDS)
    method, path, body, kind = chance.choice(
        [
            ("POST", "/cut", settings, "application/json"),
            ("POST", "/cut", chance.choice(BODIES), kind),
            (
                "GET",
                f"/unit?settings={text}&index={chance.choice(['0', '-1', '9' * 500, 'x'])}",
                b"",
                "",
            ),
            (
                "POST",
                f"/picture?settings={text}",
                broken(made, chance)[1],
                "application/octet-stream",
            ),
            ("POST", f"/picture?settings={quote(SETTINGS)}", chance.choice(BODIES), kind),
            (
                "POST",
                f"/save?settings={text}&name={quote(chance.choice(NAMES))}",
                b"",
                "application/json",
            ),
            ("PUT", "/cut", b"{}", kind),
            ("GET", "/" + "n" * chance.choice([1, 100, 60_000]), b"", kind),
        ]
    )
    what = f"request {number}: {method} {path[:60]} with {len(body)} bytes ({body[:20]!r})"
    return what, method, path, body, kind or "application/json"


def _send(port: int, what: str, method: str, path: str, body: bytes, kind: str) -> str | None:
    begun = time.monotonic()
    try:
        status, _ = _status(port, method, path, body, kind)
    except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
        return None  # refused before the body was read
    except OSError as error:
        return f"{what}: {type(error).__name__} after {time.monotonic() - begun:.1f} s"
    return f"{what}: status {status}" if status >= 500 else None
