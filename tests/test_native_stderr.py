from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secateurs.data.images.decode import silence_libtiff
from secateurs.native_stderr import leave_stderr_to_us

PRINT = """
import os, sys, warnings
from secateurs.cli.parsing.session import session_of
from secateurs.native_stderr import give_stderr_back, own_stderr
session_of(None, quiet={quiet}, progress={mode!r})
os.write(2, b"library\\n")
warnings.warn("a warning")
print("Python's", file=sys.stderr)
print("ours", file=own_stderr())
give_stderr_back()
os.write(2, b"after\\n")
print("ours again", file=sys.stderr)
1 / 0
"""


def python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(("quiet", "mode"), [(True, "auto"), (False, "json")])
def test_only_our_own_lines_reach_stderr(quiet: bool, mode: str):
    done = python(PRINT.format(quiet=quiet, mode=mode))
    assert done.stderr.startswith("ours\nafter\nours again\nTraceback")
    assert "ZeroDivisionError" in done.stderr


def test_other_modes_leave_stderr_as_it_is():
    found = python(PRINT.format(quiet=False, mode="plain")).stderr
    assert found.startswith("library\n")
    assert "a warning" in found
    assert "Python's\nours\nafter\nours again\n" in found


def test_a_replaced_stderr_is_left_alone():
    before = sys.stderr
    leave_stderr_to_us()
    assert sys.stderr is before


def broken_tiffs(folder: Path) -> None:
    """Files for which libtiff prints errors: compressed data that end early or make no sense."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for kind in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        path = folder / f"{kind}.tiff"
        Image.fromarray(pixels).save(path, compression=kind)
        data = bytearray(path.read_bytes())
        data[40:2000] = bytes(range(7, 255)) * 7 + bytes(224)
        path.write_bytes(data)


def test_libtiff_prints_nothing(tmp_path: Path):
    broken_tiffs(tmp_path)
    code = """
import sys
from pathlib import Path
from PIL import Image
from secateurs.data.images.decode import DecodeError, decode
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        if len(sys.argv) > 2:
            Image.open(path).load()
        else:
            decode(path)
    except (DecodeError, OSError):
        print(path.name)
"""
    done = python(code, str(tmp_path))
    assert len(done.stdout.splitlines()) >= 2
    if silence_libtiff():
        assert done.stderr == ""
        assert "ZIPDecode" in python(code, str(tmp_path), "by Pillow alone").stderr


def test_the_audit_of_broken_files_prints_json_lines_only(tmp_path: Path):
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        Image.new("RGB", (70, 70), "red").save(tmp_path / "data" / label / "x.png")
    broken_tiffs(tmp_path / "data" / "a")
    command = [sys.executable, "-m", "secateurs", "audit", str(tmp_path / "data"), "--json"]
    done = subprocess.run(
        [*command, "--cache", str(tmp_path / "cache"), "--progress", "json"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONWARNINGS": "always"},
    )
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["bad"]) >= 2
    events = [json.loads(line)["event"] for line in done.stderr.splitlines()]
    assert {"start", "end"} <= set(events) <= {"start", "progress", "end"}
