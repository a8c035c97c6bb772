"""What the site fills in by itself: the page of commands, doctests as code, the drawings."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.main import get_command

import secateurs
from secateurs.cli.app import app

ROOT = Path(__file__).parents[2]


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"docs_{name}", ROOT / "docs" / "scripts" / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, spec.name, loaded)
        spec.loader.exec_module(loaded)
    return loaded


def _page(uri: str) -> SimpleNamespace:
    return SimpleNamespace(file=SimpleNamespace(src_uri=uri))


def test_the_page_of_commands_has_every_command_and_option():
    hook = module("hook")
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    filled = hook.on_page_markdown(page, page=_page("commands.md"))
    assert hook.MARK not in filled
    commands: dict[str, Any] = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    parts = dict(re.findall(r"^## secateurs (\S+)\n(.*?)(?=^## |\Z)", filled, re.M | re.S))
    assert set(parts) == set(commands)
    for name, command in commands.items():
        for param in command.params:
            for word in (
                (*param.opts, *param.secondary_opts) if param.param_type_name == "option" else ()
            ):
                assert word in parts[name], f"{name} {word}"
    assert "| <code>--epochs</code> <code>N</code> | Epochs. | 20; 30 in full |" in parts["study"]
    assert "secateurs study DATA [OPTIONS]" in parts["study"]
    # A bar within a cell would end it.
    rows = [line for line in filled.splitlines() if line.startswith("| <code>")]
    assert {line.count("|") for line in rows} == {4}


def test_links_out_of_the_site_become_words():
    hook = module("hook")
    text = "in [examples](../examples) and [there](benchmarks.md)"
    filled = hook.on_page_markdown(text, page=_page("index.md"))
    assert filled == "in examples and [there](benchmarks.md)"
    text = "in [examples](../../examples) and [there](../benchmarks.md#angles)"
    filled = hook.on_page_markdown(text, page=_page("deployment/saved.md"))
    assert filled == "in examples and [there](../benchmarks.md#angles)"


def test_pages_that_are_not_written_are_left_out_of_the_navigation(tmp_path: Path):
    hook = module("hook")
    (tmp_path / "a.md").touch()
    nav = [{"Home": "index.md"}, {"Guide": [{"A": "a.md"}, {"B": "b.md"}]}]
    config = hook.on_config({"docs_dir": str(tmp_path), "nav": nav})
    assert config["nav"] == [{"Home": "index.md"}, {"Guide": [{"A": "a.md"}]}]


def test_the_python_page_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    shown = {line.rsplit(".", 1)[1] for line in page.splitlines() if line.startswith("::: ")}
    assert shown == set(secateurs.__all__)


def test_doctests_are_fenced():
    fenced = module("doctests").fenced
    assert fenced("Text.\n\n>>> 1\n1\n\nMore.\n\n>>> [2]['0']\n") == (
        "Text.\n\n```pycon\n>>> 1\n1\n```\n\nMore.\n\n```pycon\n>>> [2]['0']\n```"
    )


def test_the_drawings_are_those_that_the_script_draws(tmp_path: Path):
    pictures = module("pictures")
    drawn = {path.name for path in pictures.draw(tmp_path)}
    kept = {path.name for path in (ROOT / "docs" / "pictures").glob("*-*.svg")}
    assert drawn <= kept
    for name in drawn:
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert 'href="http' not in text.replace('xlink:href="#', "")
        assert len(text) > 5000
    used = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    for name in drawn:
        assert f"pictures/{name}#only-" in used, f"{name} is on no page"


def test_the_charts_show_the_figures_of_the_results_page():
    pictures = module("pictures")
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for depth, (mean, low, high) in pictures.DEPTHS.items():
        assert f"| {depth} | {mean}% ({low} to {high}) |" in page
    for name, hours in pictures.HOURS.items():
        assert re.search(rf"^\| {re.escape(name)} \| {hours:.2f} \|", page, re.MULTILINE), name
