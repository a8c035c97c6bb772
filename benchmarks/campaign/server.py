"""Malformed, huge and slow requests to `secateurs explore`, on the loopback address."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import time
from pathlib import Path

from kills import Tally, World, fresh
from tiny import spawn, wait

BODIES = (
    b"", b"{", b"[]", b"null", b"true", b"NaN", b'{"low_deg": NaN}', b'{"low_deg": 1e999}',
    b'{"low_deg": ' + b"9" * 400 + b"}", b'{"low_deg": -1}', b'{"low_deg": "x"}',
    b'{"keep": 1e300}', b'{"keep": ' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"rule": "no"}',
    b'{"rule": {"a": 1}}', b'{"layer": "../../etc"}', b"\xff\xfe\x00", b"{" + b'"a":1,' * 5000,
    b"x" * 20_000_000,
)  # fmt: skip
PATHS = ("/cut", "/picture", "/save", "/unit", "/unit?unit=-1", "/unit?unit=" + "9" * 500, "/none")


def requests(count: int, world: World, chance: random.Random) -> Tally:
    """Send damaged requests: an answer below 500 in time, and a server that still answers."""
    tally = Tally()
    place = fresh(world.root / "trial")
    line = ["explore", str(world.model), str(world.data), "--layer", "fc7", "--json"]
    line += ["--cache", str(place / "cache"), "--out", str(place / "cuts")]
    process = spawn(line, place / "log")
    try:
        port = _port(place / "log")
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for one in slow:
            one.sendall(b"POST /cut HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{")
        for number in range(count):
            tally.add(_request(port, number, chance))
        for one in slow:
            one.close()
        tally.add(None if _status(port, "GET", "/", b"")[0] == 200 else "the page is gone")
    finally:
        os.kill(process, signal.SIGTERM)
        code = wait(process)
    if code not in (0, -signal.SIGTERM, 143):
        tally.wrong.append(f"the server ended with {code}")
    if "Traceback" in (place / "log").read_text(errors="replace"):
        tally.wrong.append("a traceback in the server's log")
    return tally


def _port(log: Path) -> int:
    for _ in range(1200):
        for line in log.read_text(errors="replace").splitlines() if log.exists() else []:
            if line.startswith("{") and "port" in line:
                return int(json.loads(line)["port"])
        time.sleep(0.1)
    raise RuntimeError(f"explore did not start: {log.read_text()[-500:]}")


def _status(port: int, method: str, path: str, body: bytes, kind: str = "application/json"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"Content-Type": kind, "Origin": f"http://127.0.0.1:{port}"}
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _request(port: int, number: int, chance: random.Random) -> str | None:
    path, body = chance.choice(PATHS), chance.choice(BODIES)
    method = chance.choice(["POST", "POST", "GET", "PUT"])
    kind = chance.choice(["application/json", "image/png", "text/plain", "x/" + "y" * 200])
    what = f"request {number}: {method} {path[:30]} with {len(body)} bytes ({body[:20]!r})"
    started = time.monotonic()
    try:
        status, _ = _status(port, method, path, body, kind)
    except (BrokenPipeError, ConnectionResetError):
        return None  # refused before the body was read
    except OSError as error:
        return f"{what}: {type(error).__name__} after {time.monotonic() - started:.1f} s"
    return f"{what}: status {status}" if status >= 500 else None
