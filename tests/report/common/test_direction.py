from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from example_grid import example_grid
from example_network import example_network
from example_paper import example_paper
from example_results import CLASSES, example_results
from example_search import grid_search
from hypothesis import given
from hypothesis import strategies as st

from secateurs.report.common.direction import (
    END,
    ISOLATE,
    isolate_names,
    isolated,
    isolated_words,
    not_isolated,
    with_bdi,
)
from secateurs.report.common.formatting import shorten
from secateurs.report.common.markdown import literal
from secateurs.report.common.table_files import markdown_text
from secateurs.report.grid.page import render_grid
from secateurs.report.network.page import render_network
from secateurs.report.paper.page import render_paper
from secateurs.report.search.page import render_search
from secateurs.report.study.card import render_card
from secateurs.report.study.page import render
from secateurs.report.study.schema import check_results

CAT = "قطة"
ARABIC = re.compile("[\u0600-\u06ff]+")


def in_arabic(record: dict[str, Any], *names: str) -> dict[str, Any]:
    """The record with Arabic names for these."""
    text = json.dumps(record, ensure_ascii=False)
    for name in names:
        text = text.replace(f'"{name}"', f'"{CAT}"').replace(f'"{name}/', f'"{CAT}/')
    return json.loads(text)


def outside(page: str) -> list[str]:
    """Right-to-left words outside of bdi elements and isolates."""
    page = re.sub(r"<bdi>[^<]*</bdi>", "", page)
    page = re.sub(f"{ISOLATE}[^{ISOLATE}{END}]*{END}", "", page)
    escaped = page.encode("utf-8").decode("utf-8")
    escaped = re.sub(r"\\u2068(?:\\u06..|[^\\])*\\u2069", "", escaped)
    return ARABIC.findall(escaped) + re.findall(r"\\u06[0-9a-f]{2}", escaped)


def test_a_right_to_left_name_is_isolated_on_every_page_and_in_the_card(tmp_path: Path) -> None:
    results = in_arabic(example_results(tmp_path), CLASSES[0], "faces")
    results["data"]["findings"] = [f"1 file cannot be used: {CAT}/x.jpg, is truncated."]
    checked = check_results(results)
    pages = {
        "study": render(checked, tmp_path),
        "card": render_card(checked),
        "grid": render_grid(in_arabic(example_grid(), "photos", "fc7")),
        "search": render_search(in_arabic(grid_search(), "photos")),
        "network": render_network(in_arabic(example_network(), "conv1", "alexnet")),
        "paper": render_paper(in_arabic(example_paper(sfew=False), "photos", "Angry")),
    }
    for name, page in pages.items():
        assert CAT in page, name
        assert outside(page) == [], name
        if name != "card":
            assert f"<bdi>{CAT}</bdi>" in page, name


def test_the_digits_after_a_name_are_outside_its_isolate() -> None:
    assert with_bdi(f"<p>{isolated(CAT)} 28%</p>") == f"<p><bdi>{CAT}</bdi> 28%</p>"
    assert with_bdi(f'<p title="{isolated(CAT)}">x</p>') == f'<p title="{ISOLATE}{CAT}{END}">x</p>'
    assert with_bdi(f"<script>{isolated(CAT)}</script>") == f"<script>{isolated(CAT)}</script>"


def test_paths_keep_their_order() -> None:
    assert isolated(f"{CAT}/a.png") == f"{ISOLATE}{CAT}{END}/a.png"
    assert isolated_words(f"of {CAT} {CAT}, 3") == f"of {ISOLATE}{CAT} {CAT}{END}, 3"


def test_names_are_cut_inside_their_isolate() -> None:
    text = shorten(isolated(CAT * 10), 8)
    assert text == f"{ISOLATE}{(CAT * 10)[:7]}…{END}"


def test_markdown_keeps_isolates_and_escapes_the_name() -> None:
    assert literal(f"{isolated(CAT + '|x')} *") == f"{ISOLATE}{CAT}\\|x{END} \\*"
    assert isolated(CAT) in markdown_text([{"class": CAT, "images": 3}])


@given(st.text(alphabet=st.sampled_from([*"ab /.<", "ق", "\u202e", ISOLATE, END]), max_size=12))
def test_no_name_ends_an_isolate_early(name: str) -> None:
    found = isolated(name)
    depth = 0
    for character in found:
        depth += (character == ISOLATE) - (character == END)
        assert depth in (0, 1)
    assert depth == 0
    if not {"\u202e", ISOLATE, END} & set(name):
        assert not_isolated(found) == name


def test_paths_and_commands_of_a_record_stay_as_they_are() -> None:
    record = {
        "thumbnail": f"{CAT}.jpg", "files": {"page": CAT}, "command": CAT, "class": CAT,
        "numbers": [1, None, True],
    }  # fmt: skip
    assert isolate_names(record) == record | {"class": isolated(CAT)}


@pytest.mark.parametrize("name", ["cat", "a b", "-5", "Katze (klein)"])
def test_left_to_right_names_are_not_changed(name: str) -> None:
    assert isolated(name) == name
