"""Every benchmark answers `--help`, and pages and docstrings name scripts that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
FILES = sorted(path.relative_to(ROOT).as_posix() for path in BENCHMARKS.rglob("*.py"))
MENTION = re.compile(r"benchmarks/[\w/]+(?:\.py|\.json)?")
BARE = re.compile(r"`(\w+\.py)`")

# Each file is run in a process forked from one that has the libraries: scripts with `--help`, as
# Python runs them, and modules as they are imported. Then what their functions import of
# `benchmarks/` is imported as well.
RUN = """
import ast, contextlib, importlib, io, json, os, runpy, sys
from pathlib import Path
import torch, torchvision, scipy.stats
import secateurs.prune.to_budget, secateurs.report.common.render, secateurs.study.study

def run(path):
    parents = [str(path.parent)]
    script = path.name == "__main__.py" or '__name__ == "__main__"' in path.read_text()
    if not script:
        parents += [str(path.parents[1]), sys.argv[1]]
    sys.path[:0], sys.argv = parents, [str(path), "--help"]
    code, error, printed = None, "", io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            runpy.run_path(str(path), run_name="__main__" if script else path.stem)
    except SystemExit as stopped:
        code = stopped.code
    except BaseException as raised:
        error = repr(raised)
    try:
        import_own(path) if script else None
    except ImportError as raised:
        error = error or repr(raised)
    return {"script": script, "code": code, "error": error, "printed": printed.getvalue()}

def import_own(path, seen=set()):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if name.split(".")[-1] in OWN and name not in seen:
                seen.add(name)
                import_own(Path(importlib.import_module(name).__file__))

OWN = {Path(name).stem for name in json.loads(sys.argv[2])}
for name in json.loads(sys.argv[2]):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        print(json.dumps({"file": name} | run(Path(sys.argv[1]).parent / name)), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""


@cache
def answers() -> dict[str, dict[str, Any]]:
    """What each file of `benchmarks/` gives."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(BENCHMARKS), json.dumps(FILES)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {answer.pop("file"): answer for answer in found}


@pytest.mark.timeout(600)
def test_every_script_answers_help_and_every_module_is_imported():
    found = answers()
    assert sorted(found) == FILES
    assert {name: each["error"] for name, each in found.items() if each["error"]} == {}
    scripts = {name: each for name, each in found.items() if each["script"]}
    assert len(scripts) > 40
    for name, each in scripts.items():
        assert (name, each["code"]) == (name, 0)
        assert "usage: " in each["printed"], name
    for name in sorted(set(found) - set(scripts)):
        assert (name, found[name]["code"]) == (name, None)


def _texts() -> list[Path]:
    """All texts that name scripts."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *BENCHMARKS.rglob("*.py")]
    return [*pages, ROOT / "Makefile", ROOT / ".ci" / "run"]


def test_every_benchmark_that_is_named_exists():
    missing: list[str] = []
    for path in _texts():
        for name in MENTION.findall(path.read_text(encoding="utf-8")):
            target = ROOT / name
            if not (target.is_file() or (target / "__main__.py").is_file() or target.is_dir()):
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert missing == []


def test_a_script_named_without_its_folder_is_in_the_same_folder():
    """In docstrings of benchmarks."""
    missing: list[str] = []
    for path in BENCHMARKS.rglob("*.py"):
        for name in BARE.findall(path.read_text(encoding="utf-8")):
            if not (path.parent / name).is_file():
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert missing == []
