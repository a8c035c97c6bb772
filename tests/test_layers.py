"""The design's one direction of imports, and what must not be imported for `--help`."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import secateurs

ROOT = Path(secateurs.__file__).parent
REPOSITORY = Path(__file__).parents[1]
ORDER = [
    "data",
    "nets",
    "fit",
    "prune",
    "ship",
    "api",
    "study",
    "report",
    "serve",
    "explorer",
    "demo",
    "cli",
]
BASE = {"errors", "leftovers", "files", "directories", "limits", "paths", "progress", "shape"}
BASE |= {"stopping", "native_stderr", "extras", "wording", "limited_process", "terminal"}
BASE |= {"leases", "memory", "threads", "closures"}
# Rooms inside a package, from what knows least to what knows most. "" is the package's own folder.
ROOMS = {
    "data": ["images", "faces", "", "splits"],
    "fit": ["", "probe"],
    "nets": ["sources", "archives", ""],
    "prune": [
        *("coupling", "similarity", "statistics", "selection"),
        *("surgery", "compensation", "reconstruction", "allocation", ""),
    ],
    "ship": ["", "int8", "targets"],
    "study": [
        *("records", "setup", "trials", "sweep", "probe", "tracking", "saved", "insight"),
        *("pruning", "", "frontier", "search", "paper"),
    ],
    "report": [
        *("common", "probe", "insight", "study", "frontier"),
        *("grid", "search", "network", "paper"),
    ],
    "cli": ["options", "parsing", "insight", ""],
}
MOST_FILES, MOST_LINES = 20, 400
# Modules of one name in several folders, and what the name means in all of them. A command in `cli`
# has the name of what it calls.
SAME_MEANING = {
    "page": "the page of the folder's subject",
    "panels": "panels of that page, or of `--help`",
    "figures": "charts of that page",
    "captions": "what is said under its charts",
    "summary": "its first screen, and the answer in words",
    "tables": "its tables",
    "result_tables": "what `secateurs results` prints of it",
    "schema": "what of its record has to be there",
    "card": "a model card",
    "samples": "example predictions: chosen, and shown",
    "merged_units": "units of a merged group: chosen, and shown",
    "mistakes": "what networks get wrong: found, and shown",
    "labels": "improbable labels: found, and shown",
    "trust": "calibration, corruptions and groups: measured, and shown",
    "views": "augmented views: rendered, and as pictures",
    "int8": "the int8 file of a study: its options, made, and shown",
    "latency": "time of networks: measured, of a frontier, and shown",
    "confidence": "probabilities as answers: computed, and of a saved network",
    "exporting": "exports of any model, and of a saved one",
    "run": "a stage or a server from its beginning to its end",
    "choice": "which of several is best",
    "config": "options of a training, and of a study",
    "options": "options of one function",
    "network": "one network: its options, probed, pruned",
    "layers": "layers with weights: known, and followed",
    "fetching": "files from the web",
    "training": "a training: its options, and saved",
    "pruning": "pruning: its options, of any model, and of the paper",
    "machines": "machines that trials ran on: noted, and shown",
    "executors": "executors: their option, and opened by name",
}


@cache
def _modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in sorted(ROOT.rglob("*.py"))
        if path.name != "__init__.py"
    }


@cache
def _imports(path: Path) -> set[str]:
    """The modules of Secateurs that a file imports, wherever in it, without `secateurs.`."""
    modules = _modules()
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found = {name for name in members if name.removeprefix("secateurs.") in modules}
            names.update(found)
            if len(found) < len(members):
                names.add(node.module)
    own = {name.removeprefix("secateurs.") for name in names if name.startswith("secateurs.")}
    return own & set(modules)


def _stage(module: str) -> str:
    own = module.split(".")[0]
    return "cli" if own == "__main__" else own


def _room(module: str) -> str:
    return module.split(".")[1] if module.count(".") > 1 else ""


def test_imports_go_one_way():
    wrong: list[str] = []
    for module, path in _modules().items():
        own = _stage(module)
        for name in _imports(path):
            other = _stage(name)
            if other in BASE:
                continue
            assert other in ORDER, name
            if own in BASE or ORDER.index(other) > ORDER.index(own):
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_rooms_inside_a_package_go_one_way():
    wrong: list[str] = []
    for module, path in _modules().items():
        package = _stage(module)
        if package not in ROOMS:
            assert _room(module) == "", f"{module}: a new room needs a place in ROOMS"
            continue
        order = ROOMS[package]
        for name in _imports(path):
            if _stage(name) == package and order.index(_room(name)) > order.index(_room(module)):
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others():
    left = {module: _imports(path) for module, path in _modules().items()}
    while True:
        free = {module for module, needs in left.items() if not needs & set(left)}
        if not free:
            break
        left = {module: needs for module, needs in left.items() if module not in free}
    assert left == {}


@pytest.mark.parametrize("top", ["src", "tests", "benchmarks", "examples", "docs"])
def test_folders_are_small_enough_to_search_by_eye(top: str):
    files = [path for path in (REPOSITORY / top).rglob("*.*") if path.suffix in (".py", ".md")]
    counts = Counter(str(path.parent.relative_to(REPOSITORY)) for path in files)
    assert counts
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


@pytest.mark.parametrize("top", ["src", "tests", "benchmarks", "examples", "docs"])
def test_files_are_short_enough_to_read(top: str):
    lines = {
        str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8").count("\n")
        for path in (REPOSITORY / top).rglob("*.py")
    }
    assert {name: number for name, number in lines.items() if number > MOST_LINES} == {}


def test_modules_of_one_name_are_about_one_thing():
    commands = {m for m in _modules() if m.startswith("cli.") and _room(m) in ("", "insight")}
    counts = Counter(module.split(".")[-1] for module in set(_modules()) - commands)
    assert {name for name, count in counts.items() if count > 1} == set(SAME_MEANING)


def test_pruning_knows_modules_and_batches_only():
    for module, path in _modules().items():
        if _stage(module) == "prune":
            known = {_stage(name) for name in _imports(path)} - BASE
            assert known <= {"prune", "nets"}, module


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
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "secateurs", "--help"], capture_output=True, text=True, check=True
    )
    assert "study" in done.stdout
    after = os.times()  # of processor time, which a loaded machine changes little
    used = after.children_user + after.children_system
    assert used - before.children_user - before.children_system < 0.6


def test_everything_exported_can_be_had():
    for name in secateurs.__all__:
        assert callable(getattr(secateurs, name))  # and not a subpackage of the same name
    assert set(secateurs.__all__) <= set(dir(secateurs))


def test_an_audit_starts_without_pytorch():
    code = (
        "import sys, secateurs.study.audit_summary, secateurs.cli.parsing.session;"
        "print(sorted({'torch', 'torchvision', 'scipy'} & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"


def test_modules_that_tests_find_by_their_folder_have_one_name_each():
    """Tests put folders on the path, so that of two modules with one name the first is found."""
    top = REPOSITORY
    folders = {path.parent for path in (top / "tests").rglob("conftest.py")}
    folders |= {top / "tests" / "docs", top / "docs" / "scripts", top / "examples"}
    folders |= {path.parent for path in (top / "benchmarks").rglob("*.py")}
    counts = Counter(
        path.stem
        for folder in folders
        for path in folder.glob("*.py")
        if not path.stem.startswith("test_") and path.stem not in ("conftest", "__main__")
    )
    assert counts["own_networks"] == counts["networks"] == 1
    assert [name for name, count in counts.items() if count > 1] == []
