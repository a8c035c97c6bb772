from __future__ import annotations

import html
import re
import shlex
from pathlib import Path

import pytest
from example_grid import example_grid
from example_network import example_network
from example_paper import example_paper
from example_results import example_results, example_sweep
from example_search import grid_search
from typer.main import get_command

from secateurs.cli.app import app
from secateurs.files import write_json
from secateurs.report.common.next_steps import configuration_of, shown_data, shown_path, step
from secateurs.report.grid.page import render_grid
from secateurs.report.network.page import render_network
from secateurs.report.paper.page import render_paper
from secateurs.report.search.page import render_search
from secateurs.report.study.page import render
from secateurs.report.study.schema import check_results


def commands(page: str) -> list[list[str]]:
    """The commands of a page's next steps as words."""
    steps = page[page.index('id="next"') : page.index('id="record"')]
    found = re.findall(r"<code>(.*?)</code>", steps)
    return [shlex.split(html.unescape(text)) for text in found]


def test_every_command_exists_with_its_options_and_names_the_page_s_paths(tmp_path: Path) -> None:
    study = tmp_path / "my study"
    study.mkdir()
    images = tmp_path / "my images"
    images.mkdir()
    write_json(study / "study.json", {"data": str(images)})
    results = example_results(study)
    places = {"model": study / "unpruned", "data": str(images)}
    pages = {
        "study": render(check_results(results), study),
        "sweep": render(check_results(example_sweep(results)), study),
        "grid": render_grid(example_grid(), study, **places),
        "network": render_network(example_network() | {"recovery": None}, study, **places),
        "search": render_search(grid_search(), study, data=str(images)),
        "paper": render_paper(example_paper(), study, data=str(images)),
    }
    known = get_command(app).commands  # type: ignore[attr-defined]
    for name, page in pages.items():
        found = commands(page)
        assert len(found) >= 2, name
        assert any(str(images) in words for words in found), name
        assert any(word.startswith(str(study)) for words in found for word in words), name
        for program, command, *words in found:
            assert program == "secateurs"
            options = {name for one in known[command].params for name in one.opts}
            asked = {word for word in words if word.startswith("--")}
            assert asked <= options, (name, command)


def test_paths_are_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "a b") == "a b"
    assert shown_path("../x") == "../x"
    assert shown_data("faces") == "faces"
    assert shown_data(None) == "DATA"
    assert step("x", "predict", Path("it's")).command == """secateurs predict 'it'"'"'s'"""


def test_the_configuration_is_shown_where_there_is_one(tmp_path: Path) -> None:
    network = example_network()
    assert 'id="configuration"' not in render_network(network, tmp_path)
    (tmp_path / "config.toml").write_text("macs = 0.5\nname = '<b>'\n")
    page = render_network(network, tmp_path)
    assert "macs = 0.5\nname = &#39;&lt;b&gt;&#39;\n</code>" in page
    page = render_network(network | {"config_toml": "macs = 0.25\n"}, tmp_path)
    assert "macs = 0.25" in page and "macs = 0.5" not in page


def test_a_configuration_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    assert configuration_of({}, tmp_path) == ""
    (tmp_path / "config.toml").write_text("#" * 200_000)
    assert configuration_of({}, tmp_path) == ""
