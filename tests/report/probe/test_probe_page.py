"""The page of a probe and its heat map."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from example_probe import example_probe

from secateurs.report.common.render import embedded_json
from secateurs.report.probe.page import probe_words, render_probe, write_probe_page
from secateurs.report.probe.panels import grid_of, heat_map, probe_panel


@pytest.fixture
def probe() -> dict[str, Any]:
    return example_probe()


def shown(page: str) -> str:
    """The text of a page, without its scripts and styles."""
    bare = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", bare).split())


@pytest.mark.usefixtures("without_plotly")
def test_the_page_answers_and_holds_every_number(probe: dict[str, Any], tmp_path: Path):
    page = write_probe_page(probe, tmp_path, data="photos").read_text(encoding="utf-8")
    text = shown(page)
    assert "tf_efficientnet_lite0 classifies 82% of the images without any training" in text
    assert "405 training images and 135 validation images in 175 groups" in text
    assert "resnet50 was left out: no pretrained weights for resnet50." in text
    assert "squeezenet1_1: the smallest that is not significantly worse than the best" in text
    assert "-7.2 points against the best, 95% -10.0 to +1.0" in text
    assert "To fine-tune first: freeze up to stage 1 block 2." in text
    assert "sweep photos --backbone tf_efficientnet_lite0 --depths 0,9,20" in text
    for network in probe["networks"]:
        for row in network["depths"]:
            assert f"{100 * row['val_accuracy']:.1f}%" in text
    assert re.search(r"(src|href)=\"(?!#)", page) is None


def test_every_cell_has_its_accuracy_and_interval(probe: dict[str, Any]):
    figure = json.loads(str(heat_map(probe).to_json()))
    cells = figure["data"][0]
    assert cells["z"] == [[0.17, 0.43, 0.751], [0.17, 0.43, 0.823]]
    texts = [text for trace in figure["data"][1:] for text in trace["text"]]
    assert len(texts) == 6
    assert any(text.startswith("82%<br>") and "78–86" in text for text in texts)
    assert cells["customdata"][1][0].startswith("tf_efficientnet_lite0, pixels<br>17.0%")
    names = [one["text"] for one in figure["layout"]["annotations"]]
    assert names == ["squeezenet1_1, 2.94 MB", "tf_efficientnet_lite0, 13.6 MB"]
    assert cells["zmin"] == probe["majority"]["accuracy"]


def test_the_heat_map_has_words_for_those_who_do_not_see_it(probe: dict[str, Any]):
    panel = probe_panel(probe, source="In results.json under probe.")
    assert "squeezenet1_1: 17% at pixels, best 75% at head only" in panel.plots[0].label
    assert "with their group left out" in panel.caption
    assert [len(table.rows) for table in panel.tables] == [6, 2]
    probe["data"]["num_groups"] = None
    probe["networks"][0]["depths"][2]["random_frozen"] = ["fc6"]
    caption = probe_panel(probe).caption
    assert "with their image left out" in caption
    assert "have random weights" in caption


def test_networks_with_fewer_depths_have_each_in_the_nearest_column(probe: dict[str, Any]):
    probe["networks"][0]["depths"].pop(1)
    grid = grid_of(probe["networks"])
    assert grid.shares == (0.0, 0.4, 1.0)
    assert grid.cells[0][1] is None
    crowded = {"depths": [{"share": 0.9}, {"share": 0.95}]}
    assert [cell is None for cell in grid_of([*probe["networks"], crowded]).cells[2]] == [
        True, False, False,
    ]  # fmt: skip


def test_names_are_escaped(probe: dict[str, Any]):
    probe["networks"][0]["backbone"] = probe["suggestions"][1]["backbone"] = "<b>net</b>"
    page = render_probe(probe)
    assert "<b>net" not in page
    assert "&lt;b&gt;net" in str(heat_map(probe).layout.annotations[0].text)
    assert str(embedded_json("<b>")) in page or "\\u0026lt;b" in page


def test_the_answer_on_a_terminal_has_a_line_for_each_depth(probe: dict[str, Any]):
    words = probe_words(probe)
    assert "    40% frozen   43.0% (39–47)  up to stage 1 block 2" in words
    assert "majority class (dog): 14.8%" in words
    assert words.count("frozen  ") == 6


@pytest.mark.usefixtures("without_plotly")
def test_improbable_labels_are_shown_with_pictures(probe: dict[str, Any], tmp_path: Path):
    (tmp_path / "thumbnails").mkdir()
    (tmp_path / "thumbnails/label-0.jpg").write_bytes(b"\xff\xd8\xff picture")
    page = render_probe(probe, tmp_path)
    text = shown(page)
    assert "finds the label of 3 of 540 training and validation images improbable" in text
    assert "dog/0.jpg dog under 1%" in text
    assert "more probable: cat 97%" in text
    assert "1 more image in labels.csv." in text
    assert "Identical: cat/1.jpg (cat) and dog/9.jpg (dog)" in text
    assert "dog 240 3 cat (2)" in text
    assert page.count("data:image/jpeg;base64,") == 1
    assert text.count("thumbnail missing") == 1
    probe["labels"] |= {"num_flagged": 0, "images": [], "duplicates": []}
    assert "of none of the 540 images improbable" in shown(render_probe(probe))
    del probe["labels"]
    assert 'id="labels"' not in render_probe(probe)
