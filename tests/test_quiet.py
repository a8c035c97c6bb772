"""What reaches stderr: under --quiet nothing, under --progress json nothing but JSON lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Libraries that speak: while they are loaded, by Python's ways and by C's, and while torn down.
NOISE = """
import atexit, ctypes, logging, os, sys, warnings
def speak():
    print("print", file=sys.stderr)
    warnings.warn("warning")
    logging.getLogger("a.library").error("logging")
    os.write(2, b"C\\n")
    ctypes.CDLL(None).puts  # loaded
    handler = logging.StreamHandler()
    handler.emit(logging.LogRecord("x", 40, "x", 1, "handler", (), None))
atexit.register(speak)
import secateurs.data.audit as module
speak()
first = module.audit
def audit(*args, **options):
    speak()
    return first(*args, **options)
module.audit = audit
import secateurs.study.audit_summary as checks
checks.audit = audit
"""
MAIN = """
import sys
class Loud:
    def find_spec(self, name, path=None, target=None):
        if name == "secateurs.study.audit_summary":
            sys.meta_path.remove(self)
            exec(NOISE, {})
sys.meta_path.insert(0, Loud())
from secateurs.cli import main
main()
"""


def run(words: list[str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    code = f"NOISE = {NOISE!r}\n{MAIN}"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "always", "SECATEURS_CACHE": str(tmp_path / "cache")},
    )


def test_the_noise_is_heard_without_these_options(flags: Path, tmp_path: Path):
    done = run(["audit", str(flags), "--json", "--progress", "plain"], tmp_path)
    assert done.returncode == 0
    for word in ("print", "warning", "logging", "handler", "C\n"):
        assert word in done.stderr


@pytest.mark.parametrize("words", [["--quiet"], ["--progress=json"]])
def test_nothing_of_any_library_is_printed(words: list[str], flags: Path, tmp_path: Path):
    done = run(["audit", str(flags), "--json", *words], tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout)["num_images"] == 48
    lines = done.stderr.splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert set(events) <= {"start", "progress", "end", "note"}
    assert bool(events) == ("--progress=json" in words)


def test_an_error_is_one_line_of_the_same_kind(tmp_path: Path):
    done = run(["audit", "photos", "--progress", "json"], tmp_path)
    (event,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, event["event"]) == (2, "error")
    assert "photos" in event["text"]
    done = run(["audit", "photos", "--quiet"], tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: photos")
    assert done.stderr.count("\n") == 1


def test_a_mistake_of_ours_is_seen(flags: Path, tmp_path: Path):
    code = f"NOISE = '1 / 0'\n{MAIN}"
    done = subprocess.run(
        [sys.executable, "-c", code, "audit", str(flags), "--quiet"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
