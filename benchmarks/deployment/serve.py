"""Throughput and latency of `secateurs serve` against a plain FastAPI + PyTorch server.

    python benchmarks/deployment/serve.py MODEL IMAGES [--onnx FILE ...] [--clients 1 8 32]
        [--seconds 8] [--rounds 3] [--json serve.json]

MODEL is a saved model; each FILE is an export of it that is served as well. All servers run at the
same time, each in a process of its own, and one of them is under load at a time, in alternating
order. The clients are threads of this process: they send image files over kept connections, the
next one as soon as the answer is there, and answers other than 200 are counted apart. The plain
server is the usual one: an endpoint in a thread that decodes, transforms, and runs the network on
one image; it gets the same network and the same preprocessing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np

from secateurs.data.folders import image_files

PLAIN = "FastAPI + PyTorch"
PLAIN_SERVER = """
import io, sys
from pathlib import Path
import torch, uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image, ImageOps
from torchvision.transforms import functional as F
from secateurs.ship.checkpoint import load
loaded = load(Path(sys.argv[1]))
model, spec, needs = loaded.model.eval(), loaded.spec, loaded.spec.preprocessing
app = FastAPI()

@app.get("/health")
def health():
    return {"status": "ok"}

@app.post("/predict")
def predict(image: UploadFile):
    pixels = ImageOps.exif_transpose(Image.open(io.BytesIO(image.file.read()))).convert("RGB")
    x = F.to_tensor(needs.pixels(pixels).copy())
    with torch.inference_mode():
        odds = model(F.normalize(x, needs.mean, needs.std)[None])[0].softmax(0)
    best = odds.topk(min(3, len(odds)))
    return [{"label": spec.classes[k], "probability": p}
            for p, k in zip(best.values.tolist(), best.indices.tolist())]

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
"""


@dataclass
class Arm:
    """A server under test: its port and what was measured, by number of clients."""

    name: str
    port: int
    rates: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    latencies_ms: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    num_failed: dict[int, int] = field(default_factory=dict[int, int])


def form_of(path: Path) -> bytes:
    """An image file as the body of a form."""
    head = f'--x\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n'
    return (
        head.encode() + b"Content-Type: image/jpeg\r\n\r\n" + path.read_bytes() + b"\r\n--x--\r\n"
    )


def started(command: list[str], port: int, stack: ExitStack) -> int:
    """Start a server, end it with the stack, and wait until it answers; its port."""
    process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    stack.callback(process.terminate)
    for _ in range(1200):
        if process.poll() is not None:
            raise SystemExit(f"a server ended with {process.returncode}: {command[:4]}")
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            connection.getresponse().read()
            return port
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"a server did not answer: {command[:4]}")


def free_port() -> int:
    """A port that nothing listens at now."""
    from secateurs.serve.run import listen

    with listen() as listener:
        return int(listener.getsockname()[1])


def load(port: int, bodies: list[bytes], num_clients: int, seconds: float) -> tuple[Any, int]:
    """Latencies in milliseconds of all answers within `seconds`, and the number of failures."""
    latencies: list[list[float]] = [[] for _ in range(num_clients)]
    failed = [0] * num_clients
    begin = threading.Barrier(num_clients)

    def client(number: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=120)
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        begin.wait()
        end = time.perf_counter() + seconds
        place = number
        while (start := time.perf_counter()) < end:
            connection.request("POST", "/predict", bodies[place % len(bodies)], headers)
            answer = connection.getresponse()
            answer.read()
            place += num_clients
            if answer.status == 200:
                latencies[number].append(1000 * (time.perf_counter() - start))
            else:
                failed[number] += 1

    threads = [threading.Thread(target=client, args=(k,)) for k in range(num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.concatenate([np.array(row) for row in latencies]), sum(failed)


def measure(given: argparse.Namespace, bodies: list[bytes], stack: ExitStack) -> list[Arm]:
    """All servers under each number of clients, in alternating order."""
    with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as script:
        script.write(PLAIN_SERVER)
    stack.callback(os.unlink, script.name)
    arms = [Arm(PLAIN, port := free_port())]
    started([sys.executable, script.name, str(given.model), str(port)], port, stack)
    for path in [given.model, *given.onnx]:
        port = free_port()
        words = [sys.executable, "-m", "secateurs", "serve", str(path), "--quiet"]
        started([*words, "--port", str(port), "--max-requests", "256"], port, stack)
        arms.append(Arm(f"secateurs serve, {path.name}", port))
    for arm in arms:
        load(arm.port, bodies, 2, min(2.0, given.seconds))  # warm
    for turn in range(given.rounds):
        for clients in given.clients:
            for arm in arms if turn % 2 == 0 else reversed(arms):
                found, num_failed = load(arm.port, bodies, clients, given.seconds)
                arm.rates.setdefault(clients, []).append(len(found) / given.seconds)
                arm.latencies_ms.setdefault(clients, []).extend(found.tolist())
                arm.num_failed[clients] = arm.num_failed.get(clients, 0) + num_failed
    return arms


def rows_of(arms: list[Arm], clients: list[int]) -> list[dict[str, Any]]:
    """One record per server and number of clients; `ratio` is to the plain server's rate."""
    rows: list[dict[str, Any]] = []
    for number in clients:
        plain = arms[0].rates[number]
        for arm in arms:
            p50, p95, p99 = np.percentile(arm.latencies_ms[number], [50, 95, 99])
            ratios = [a / b for a, b in zip(arm.rates[number], plain, strict=True)]
            rows.append(
                {
                    "server": arm.name,
                    "clients": number,
                    "images_per_s": float(np.mean(arm.rates[number])),
                    "ratio": float(np.mean(ratios)),
                    "ratio_low": min(ratios),
                    "ratio_high": max(ratios),
                    "p50_ms": float(p50),
                    "p95_ms": float(p95),
                    "p99_ms": float(p99),
                    "failed": arm.num_failed[number],
                }
            )
    return rows


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--onnx", type=Path, nargs="*", default=[])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    folders = [given.images, *sorted(path for path in given.images.iterdir() if path.is_dir())]
    files = (
        [path for folder in folders for path in image_files(folder).paths][:64]
        if (given.images.is_dir())
        else [given.images]
    )
    with ExitStack() as stack:
        arms = measure(given, [form_of(path) for path in files], stack)
    rows = rows_of(arms, given.clients)
    print(
        "| server | clients | images/s | ratio (lowest to highest) | p50 ms | p95 | p99 | failed |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            "| {server} | {clients} | {images_per_s:.1f} | {ratio:.2f} ({ratio_low:.2f} to "
            "{ratio_high:.2f}) | {p50_ms:.0f} | {p95_ms:.0f} | {p99_ms:.0f} | {failed} |".format(
                **row
            )
        )
    if given.json:
        about = {"machine": platform.machine(), "cores": os.cpu_count(), "images": len(files)}
        given.json.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
