"""The design's one direction of imports, and what must not be imported for `--help`."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import secateurs

ROOT = Path(secateurs.__file__).parent
ORDER = ["data", "nets", "fit", "prune", "ship", "study", "report", "serve", "cli"]
BASE = {"errors", "leftovers", "files", "directories", "limits", "paths", "progress", "shape"}
BASE |= {"stopping"}
BASE |= {"cli_options", "native_stderr"}


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name for name in names if name.startswith("secateurs.")}


def _stage(dotted: str) -> str:
    own = dotted.split(".")[1]
    # A command in a file of its own, `cli_<command>`, belongs to the command line.
    return "cli" if own == "__main__" or (own.startswith("cli_") and own not in BASE) else own


def test_imports_go_one_way():
    wrong: list[str] = []
    for path in sorted(ROOT.rglob("*.py")):
        own = _stage(f"secateurs.{path.relative_to(ROOT).parts[0].removesuffix('.py')}")
        if own == "__init__":
            continue
        for name in _imports(path):
            other = _stage(name)
            if other in BASE:
                continue
            assert other in ORDER, name
            if own in BASE or ORDER.index(other) > ORDER.index(own):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_the_report_knows_no_networks():
    for path in (ROOT / "report").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"^\s*(import|from) torch", text, re.M), path


def test_importing_does_nothing_heavy_and_help_is_quick():
    code = (
        "import sys, secateurs, secateurs.cli;"
        "heavy = {'torch', 'plotly', 'onnx', 'onnxruntime', 'sklearn', 'scipy', 'PIL', 'numpy',"
        " 'starlette'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "secateurs", "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds.append(time.perf_counter() - started)
        assert "study" in done.stdout
    assert min(seconds) < 0.5


def test_everything_exported_can_be_had():
    for name in secateurs.__all__:
        assert callable(getattr(secateurs, name))  # and not a subpackage of the same name
    assert set(secateurs.__all__) <= set(dir(secateurs))
