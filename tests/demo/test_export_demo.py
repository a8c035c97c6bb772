"""`export --html` as it is typed: its answer, and one line for what cannot be done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secateurs.cli import main
from secateurs.demo import export_demo as module
from secateurs.demo.export_demo import entry_of, titles
from secateurs.errors import InputError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*words: Any) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["secateurs", "export", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def test_the_command_as_typed(net: Path, flags: Path, tmp_path: Path, run: Run, monkeypatch):
    asked: list[Any] = []

    def made(*words: Any, **options: Any) -> dict[str, Any]:
        asked.append((words, options))
        return {
            "path": str(words[2]),
            "num_bytes": 2**20,
            "models": [
                {"title": "large", "max_abs_difference": None},
                {"title": "small", "max_abs_difference": 2e-6},
            ],
            "skipped": ["x.png: truncated"],
            "one_file": True,
            "server": "python3 -m http.server",
            "address": "http://127.0.0.1:8000/demo.html",
        }

    monkeypatch.setattr(module, "export_demo", made)
    page = tmp_path / "demo.html"
    words = (net, flags, "--html", page, "--beside", net, "--runtime", tmp_path)
    code, out, _ = run(*words)
    assert code == 0
    lines = out.splitlines()
    assert lines[:3] == [
        f"{page}: 1.05 MB",
        "small: largest difference from PyTorch 2.0e-06",
        "not used for the check: x.png: truncated",
    ]
    assert "python3 -m http.server" in lines[3] and "demo.html" in lines[3]
    assert json.loads(run(*words, "--json")[1])["num_bytes"] == 2**20
    given, options = asked[0]
    assert given == (net, flags, page)
    assert (options["beside"], options["runtime"]) == (net, tmp_path)


def test_what_cannot_be_done_is_one_line(net: Path, flags: Path, tmp_path: Path, run: Run):
    page = tmp_path / "demo.html"
    program = tmp_path / "small.pt2"
    program.write_bytes(b"a program")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    for words, said in (
        ((net, flags, "--beside", net), "--beside and --runtime are for a page"),
        ((net, flags, "--html", page, "--out", tmp_path / "a.onnx"), "are two exports"),
        ((net, flags, "--html", page, "--runtime", tmp_path / "gone"), "no such file"),
        ((net, flags, "--html", page, "--beside", tmp_path / "gone"), "no such model"),
        ((net, flags, "--html", flags / "plain" / "00_20.png"), "a file"),
        ((program, flags, "--html", page), "a page takes saved models and ONNX files"),
        ((broken, flags, "--html", page), "not readable as ONNX"),
    ):
        code, out, error = run(*words)
        assert (code, out) == (2, ""), words
        assert said in error and error.count("\n") == 1, (words, error)
    assert not page.exists()


def test_models_have_different_titles(tmp_path: Path):
    assert titles([tmp_path / "model" / "model.json"]) == ["model"]
    assert titles([Path("a/x.onnx"), Path("b/x.onnx")]) == ["a/x.onnx", "b/x.onnx"]
    with pytest.raises(InputError, match=r"a page takes saved models"):
        entry_of(Path(__file__), tmp_path, "test")
