"""The architecture page names folders, files and functions that are there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "secateurs"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^\| .+ \| `(\w+)` \| `([\w/]+\.py)` \|$", PAGE, re.MULTILINE)


def test_the_page_follows_two_ways_through_the_code():
    assert len(STEPS) >= 30
    assert {file.split("/")[0] for _, file in STEPS} >= {"data", "fit", "prune", "study", "report"}


@pytest.mark.parametrize(("name", "file"), STEPS, ids=lambda value: str(value))
def test_each_step_is_defined_in_its_file(name: str, file: str):
    text = (SOURCE / file).read_text(encoding="utf-8")
    assert re.search(rf"^(def|class) {name}\b", text, re.MULTILINE), f"{file} defines no {name}"


def test_the_picture_shows_the_folders_of_the_source(monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location(
        "docs_pictures", ROOT / "docs" / "scripts" / "pictures.py"
    )
    assert spec is not None
    assert spec.loader is not None
    pictures = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, pictures)
    spec.loader.exec_module(pictures)
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert set(pictures.ROOMS) == packages
    for package, rooms in pictures.ROOMS.items():
        assert set(rooms) == {path.parent.name for path in SOURCE.glob(f"{package}/*/__init__.py")}
        assert f"`{package}`" in PAGE
