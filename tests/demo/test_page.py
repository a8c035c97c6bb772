"""The page as text: everything is in it, nothing is asked for, and bad models are refused."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from secateurs.demo.page import DemoModel, server_line, write_demo
from secateurs.demo.runtime import Runtime
from secateurs.errors import InputError

RUNTIME = Runtime("globalThis.ort={};", b"\0asm" + bytes(range(256)))
NEEDS = {
    "size": 32,
    "resize": "crop",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.2, 0.2],
    "interpolation": "bilinear",
    "crop_share": 0.875,
}
MODEL = DemoModel("small", bytes(1000), ("a", "<b>", "c"), NEEDS, 1.5, 0.7, {"Parameters": "12"})


def test_one_file_holds_everything_and_may_ask_for_nothing(tmp_path: Path):
    out = tmp_path / "sub" / "demo.html"
    num_bytes = write_demo([MODEL], out, RUNTIME)
    text = out.read_text(encoding="utf-8")
    assert num_bytes == out.stat().st_size
    for name, content in (("runtime.wasm", RUNTIME.wasm), ("model-1.onnx", MODEL.onnx)):
        [packed] = re.findall(rf'id="file-{re.escape(name)}">([^<]*)</script>', text)
        assert gzip.decompress(base64.b64decode(packed)) == content
    [rules] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    rules = rules.replace("&#39;", "'")
    for rule in ("default-src 'none'", "connect-src 'none'", "'wasm-unsafe-eval'"):
        assert rule in rules
    assert "'unsafe-eval'" not in rules
    scripts = re.findall(r'<script type="module">(.*?)</script>', text, re.S)
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules
    assert not re.search(r'(src|href)="(?!data:,|#)', text)
    assert "&lt;b&gt;" in text and "<b>" not in text.split("<script")[0]
    before = out.read_bytes()
    write_demo([MODEL], out, RUNTIME)
    assert out.read_bytes() == before


def test_a_folder_holds_the_parts_and_may_ask_its_own_server(tmp_path: Path):
    out = tmp_path / "demo"
    other = replace(MODEL, title="large", classes=("c", "a", "<b>"), threshold=None)
    num_bytes = write_demo([other, MODEL], out, RUNTIME, title="Clothes")
    names = sorted(path.name for path in out.iterdir())
    assert names == ["index.html", "model-1.onnx", "model-2.onnx", "runtime.wasm"]
    assert num_bytes == sum(path.stat().st_size for path in out.iterdir())
    text = (out / "index.html").read_text(encoding="utf-8").replace("&#39;", "'")
    assert "only fetches its own files" in text
    assert "connect-src 'self'" in text and "<title>Clothes</title>" in text
    assert "answers always" in text and "70.0%" in text
    assert server_line(out)[0] in text
    with pytest.raises(InputError, match="there already and not an empty folder"):
        write_demo([MODEL], out, RUNTIME)


def test_models_that_cannot_stand_on_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = tmp_path / "demo.html"
    other = replace(MODEL, classes=("a", "<b>", "d"))
    with pytest.raises(InputError, match="the models have different classes \\('c'"):
        write_demo([MODEL, other], page, RUNTIME)
    with pytest.raises(InputError, match="one or two models, got 3"):
        write_demo([MODEL] * 3, page, RUNTIME)
    monkeypatch.setattr("secateurs.demo.page.MAX_PAGE_MB", 0.0005)
    with pytest.raises(InputError, match=r"too large for one file .* give a folder"):
        write_demo([MODEL], page, RUNTIME)
    assert not page.exists()
    assert write_demo([MODEL], tmp_path / "folder", RUNTIME) > 0


def test_the_line_that_serves_a_page_names_its_folder():
    line, address = server_line(Path("my pages/demo.html"))
    assert line == "python3 -m http.server 8000 --bind 127.0.0.1 --directory 'my pages'"
    assert address == "http://127.0.0.1:8000/demo.html"
    assert server_line(Path("demo")) == (
        "python3 -m http.server 8000 --bind 127.0.0.1 --directory demo",
        "http://127.0.0.1:8000/",
    )
