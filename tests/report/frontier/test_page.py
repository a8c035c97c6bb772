from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from example_frontier import example_frontier
from example_probe import example_probe
from example_trust import example_trust

from secateurs.errors import InputError
from secateurs.report.common.table_files import markdown_text
from secateurs.report.frontier import figures
from secateurs.report.frontier.page import render_frontier, write_frontier_report
from secateurs.report.frontier.result_tables import frontier_tables, short_rows
from secateurs.report.frontier.schema import check_frontier

pytestmark = pytest.mark.usefixtures("without_plotly")


@pytest.fixture
def frontier(study_dir: Path) -> dict[str, Any]:
    study_dir.mkdir()
    return example_frontier(study_dir)


def test_the_page_says_the_answer_first(frontier: dict[str, Any], study_dir: Path):
    text = write_frontier_report(frontier, study_dir).read_text()
    name = frontier["answer"]["name"]
    assert name == "mobilenet_v2-macs50"
    head = text[: text.index('<section id="probe"')]
    assert f"{name}: " in head.split("<h1")[1]
    assert "test images correct" in head
    for sentence in frontier["answer"]["sentences"]:
        assert sentence.split(".")[0] in text
    assert "resnet18 was not tried" in head
    assert "Split without --group-by" in head
    assert "mobilenet_v2-mb1 was not made" in head


def test_the_frontier_shows_every_network_with_its_interval(frontier: dict[str, Any]):
    for cost in ("mb", "ms"):
        figure = figures.frontier(frontier, cost)
        marks = [trace for trace in figure.data if trace.error_y.array is not None]
        assert sum(len(trace.x) for trace in marks) == (7 if cost == "mb" else 6)  # int8: MB only
        for trace in marks:
            for up, down in zip(trace.error_y.array, trace.error_y.arrayminus, strict=True):
                assert up > 0 and down > 0
        ring = next(trace for trace in figure.data if trace.name == "recommended")
        point = next(
            row for row in figures.made_points(frontier) if row["name"] == "mobilenet_v2-macs50"
        )
        assert list(ring.x) == [point[cost]]
        assert list(ring.y) == [point["val"]["accuracy"]]


def test_int8_files_are_on_the_page_beside_float32(frontier: dict[str, Any], study_dir: Path):
    text = write_frontier_report(frontier, study_dir).read_text()
    head, section = text.split('<section id="int8"')
    assert frontier["int8"]["sentences"][0] in head
    rows = section.split("</section>")[0]
    assert "mobilenet_v2-macs50, int8" in rows and "98.5%" in rows and "1.2" in rows
    drawn: Any = figures.frontier(frontier, "mb")
    marks = next(trace for trace in drawn.data if trace.name == "int8 file")
    assert list(marks.x) == [1.2]
    table = frontier_tables(check_frontier(frontier), study_dir)["int8"]
    assert [(row["network"], row["side"], row["mb"]) for row in table] == [
        ("mobilenet_v2-macs50", "val", 1.2),
        ("model", "test", 1.3),
    ]
    assert "and its int8 file." in head
    assert "model, int8" in rows and "97.0%" in rows
    frontier["int8"] = None  # made with --no-int8, or by an earlier version
    assert 'id="int8"' not in write_frontier_report(frontier, study_dir).read_text()


def test_what_is_missing_is_named(frontier: dict[str, Any]):
    broken = copy.deepcopy(frontier)
    del broken["answer"]["best"]
    with pytest.raises(InputError, match=r"missing key 'answer.best'"):
        check_frontier(broken)


def test_odd_names_stay_text(frontier: dict[str, Any], study_dir: Path):
    frontier["probe"]["networks"][0]["backbone"] = "<script>alert(1)</script>"
    assert "<script>alert(1)" not in render_frontier(check_frontier(frontier), study_dir)


def test_every_network_is_a_row_of_the_first_table(frontier: dict[str, Any], study_dir: Path):
    tables = frontier_tables(check_frontier(frontier), study_dir / "results.json")
    assert next(iter(tables)) == "networks"
    assert [row["network"] for row in tables["networks"]] == [
        row["name"] for row in frontier["points"] if "reason" not in row
    ]
    assert sum(row["recommended"] for row in tables["networks"]) == 1
    assert len(tables["probe"]) == 15
    assert {row["backbone"] for row in tables["trials"]} == {"mobilenet_v2"}


def test_labels_to_check_are_part_of_the_page(frontier: dict[str, Any], tmp_path: Path):
    assert 'id="labels"' not in render_frontier(frontier, tmp_path)
    frontier["probe"]["labels"] = example_probe()["labels"]
    page = render_frontier(check_frontier(frontier), tmp_path)
    assert 'id="labels"' in page
    assert "improbable, the least probable first" in page


def test_trust_and_mistakes_are_sections_after_the_answer(
    frontier: dict[str, Any], study_dir: Path
):
    assert 'id="trust"' not in render_frontier(check_frontier(frontier), study_dir)
    frontier["trust"] = example_trust()
    page = render_frontier(check_frontier(frontier), study_dir)
    assert page.index('id="panel-frontier"') < page.index('<section id="trust"')
    assert page.index('<section id="trust"') < page.index('<section id="mistakes"')
    for key in ("corruptions", "coverage", "reliability", "rare", "groups"):
        assert f'id="panel-{key}"' in page
    assert "after pruning: expected calibration error" in page.lower()
    assert "In results.json under trust." in page


def _of_one_network(trust: dict[str, Any]) -> dict[str, Any]:
    """What is measured of a network that was not pruned."""
    del trust["networks"]["after"]
    for row in [trust["clean"], *trust["corruptions"], *trust["rare"]]:
        del row["after"]
        row["difference"] = None
    mistakes = trust["mistakes"]
    mistakes["network"] = "before"
    for row in [*mistakes["losses"], *mistakes["confusions"][0]["mistakes"]]:
        del row["answers"]["after"]
    return trust


def test_trust_of_a_network_that_was_not_pruned(frontier: dict[str, Any], study_dir: Path):
    frontier["trust"] = _of_one_network(example_trust())
    page = render_frontier(check_frontier(frontier), study_dir)
    assert "The model: expected calibration error" in page
    assert "after pruning" not in page[page.index('<section id="trust"') :]


def test_networks_out_of_reach_are_named(frontier: dict[str, Any], study_dir: Path):
    frontier["reach"] = {"networks": [], "sentences": ["resnet50 is not fine-tuned: too large"]}
    page = render_frontier(check_frontier(frontier), study_dir)
    assert "Resnet50 is not fine-tuned: too large." in page


def test_a_screen_shows_the_columns_that_fit(frontier: dict[str, Any]):
    rows = short_rows(check_frontier(frontier))
    assert max(len(line) for line in markdown_text(rows).splitlines()) <= 120
    chosen = next(row for row in rows if row["recommended"])
    assert chosen["network"] == frontier["answer"]["name"]
    assert chosen["low"] < chosen["accuracy"] < chosen["high"]
