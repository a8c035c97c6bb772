"""The page of a run of the paper: what it says, and what it refuses."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from example_paper import example_paper

from secateurs.cli import main
from secateurs.errors import InputError
from secateurs.files import write_json
from secateurs.report.paper import beyond as paper_beyond
from secateurs.report.paper import panels as paper_panels
from secateurs.report.paper.page import (
    headline,
    load_paper,
    paper_words,
    render_paper,
    write_paper_page,
)


class Text(HTMLParser):
    """Visible words, ids, and what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.ids, self.links, self.loads = [], [], [], []
        self._hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._hidden = tag in ("script", "style")
        self.ids += [found["id"]] if found.get("id") else []
        self.links += [found["href"]] if tag == "a" and found.get("href") else []
        self.loads += [found[key] for key in ("src", "srcset") if found.get(key)]

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def read(page: str) -> tuple[str, Text]:
    parser = Text()
    parser.feed(page)
    return " ".join(" ".join(parser.words).split()), parser


def test_the_page_answers_and_loads_nothing():
    answer = example_paper()
    text, parser = read(render_paper(answer))
    inside = answer["counted"]["inside"]
    assert inside > 60
    assert f"{inside} of the published numbers are inside our intervals" in text
    assert (
        "5 runs of 50 full-batch epochs at each depth on 392 training images; 149 validation and"
        in text
    )
    assert "97% of the test images share a film" in text
    assert "7 of 8 layers pretrained" in text
    for told in (
        "the published one 46.9% with 4",
        "the paper used 50 epochs at 0.001",
        "published: 50.0% on 134 test images, with 6",
        "published: 292, at 12.5° and 1.5",
        "Without the norm filter, 17.5° removes 4,085 of 4,096 units",
        "Freeze 5 layers: 27.9% mean validation accuracy",
        "4, 5 and 6 frozen layers are not significantly different on validation",
        "Choosing on test makes the accuracy",
        "The whole network keeps 3.1% of its parameters",
        "the text: (tp + tn) of all, mean over classes 85.7%",
        "active in every epoch 45.5% (43–48)",
    ):
        assert told in text, told
    assert parser.loads == []
    assert len(set(parser.ids)) == len(parser.ids)
    assert {link[1:] for link in parser.links if link.startswith("#")} <= set(parser.ids)
    assert {"search/search.html", "apart/report.html"} <= set(parser.links)
    assert "nan" not in text.lower().split()


def test_other_images_are_told_and_compare_nothing():
    answer = example_paper(sfew=False)
    text, parser = read(render_paper(answer))
    assert "The paper's protocol reaches 50.0% on the test images of photos" in text
    assert "These are not the images of the paper" in text
    assert "Not run: every file name starts with another word." in text
    assert "share a film" not in text
    assert not [link for link in parser.links if link.startswith(("search/", "apart/"))]
    assert answer["counted"]["inside"] == answer["counted"]["outside"] == 0
    assert "pruned from the one chosen on validation" in text


def test_each_published_number_is_beside_ours_with_a_verdict():
    answer = example_paper()
    for panel, expected in (
        (paper_panels.table1(answer).tables[0], 9),
        (paper_panels.table2(answer).tables[0], 22),
        (paper_panels.table3(answer).tables[0], 5),
        (paper_panels.table3(answer).tables[1], 5),
        (paper_panels.grid(answer).tables[0], 45),
    ):
        assert len(panel.rows) == expected
        at = panel.columns.index("verdict")
        assert {row[at] for row in panel.rows} <= {"inside", "outside", "not comparable"}
        assert all(row[1] not in ("", "–") for row in panel.rows)
    first = paper_panels.grid(answer).tables[0].rows[0]
    assert first[0] == "7.5 degrees, 1 deviations"
    assert first[5] == "9"


def test_figures_hold_both_series():
    answer = example_paper()
    figure = paper_panels.table1(answer).plots[0].figure
    series = {trace.name: trace for trace in figure.data}
    assert list(series["published mean"].y) == pytest.approx(
        [row["published"] for row in answer["table1"]]
    )
    assert len(series["our runs"].x) == len(answer["table1"]) * 5
    assert len(series["published runs"].x) == 8 * 5
    assert list(figure.layout.xaxis.ticktext) == [*"01234567", "scratch"]
    low, high = figure.layout.yaxis.range
    for trace in figure.data:
        assert all(low <= value <= high for value in trace.y)
    plots = paper_beyond.compensation(answer).plots
    assert {trace.name for trace in plots[0].figure.data} == {
        *("angles, refitted", "angles, added", "random, refitted", "random, dropped"),
        "unpruned",
    }


def test_a_cell_without_units_and_a_single_run_are_drawn():
    answer = example_paper()
    for way in answer["grid"]["ways"].values():
        way["cells"][4] |= dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high"))
    answer["cells"][4] |= {"ours": None, "low": None, "high": None, "verdict": "not comparable"}
    for row in answer["table1"]:
        row |= {"runs": row["runs"][:1], "low": None, "high": None}
    row = answer["grid"]["unfiltered"][-1]
    row |= {"num_kept": 0, "random_refitted": None, "random_dropped": None}
    for name in ("refitted", "added"):
        row[name] = dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high"))
    text, _ = read(render_paper(answer))
    assert "7.5 degrees, 1 deviations" in text
    assert "removes 4,085" not in text  # nothing is left there to compare


def test_the_text_for_terminals_has_each_depth_and_the_further_experiments():
    lines = paper_words(example_paper()).splitlines()
    assert lines[0] == headline(example_paper())
    assert sum(bool(re.match(r"  \d frozen layers", line)) for line in lines) == 8
    assert any("the whole network" in line and "3.1%" in line for line in lines)
    assert any(line.startswith("split by film: test") for line in lines)


def test_a_page_is_written_again_from_its_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    write_json(tmp_path / "paper.json", example_paper())
    monkeypatch.setattr("sys.argv", ["secateurs", "report", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "paper.html")
    assert (tmp_path / "paper.html").read_text() == render_paper(load_paper(tmp_path), tmp_path)


def test_old_schemas_and_what_is_no_run_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="schema is 0, expected 1"):
        write_paper_page(example_paper() | {"schema": 0}, tmp_path)
    with pytest.raises(InputError, match=r"no paper\.json here"):
        load_paper(tmp_path)
    (tmp_path / "paper.json").write_text("[]")
    with pytest.raises(InputError, match=r"paper\.json: not a run of the paper"):
        load_paper(tmp_path)
    (tmp_path / "paper.json").write_text(json.dumps({"schema": 7}))
    with pytest.raises(InputError, match="schema is 7, expected 1; run secateurs paper again"):
        load_paper(tmp_path)
    (tmp_path / "paper.json").write_text(json.dumps({"schema": 1, "plan": {}}))
    with pytest.raises(InputError, match=r"paper\.json: lacks best, beyond, cells"):
        load_paper(tmp_path)
    assert not (tmp_path / "paper.html").exists()
