"""Ticks of every axis on every page: no label twice, and whole numbers where things are counted."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from browsing import opened
from example_grid import example_grid
from example_network import example_network
from example_paper import example_paper
from example_results import example_results
from example_search import grid_search, tpe_search

from secateurs.report.grid.page import write_grid_page
from secateurs.report.network.page import write_network_page
from secateurs.report.paper.page import write_paper_page
from secateurs.report.search.page import write_search_page
from secateurs.report.study.page import write_report

pytestmark = pytest.mark.browser

TICKS = """[...document.querySelectorAll('.plot')].flatMap((plot) => ['x', 'y'].map((axis) => [
  `${plot.id} ${axis}`,
  [...plot.querySelectorAll(`.${axis}tick text`)].map((text) => text.textContent),
  plot._fullLayout[`${axis}axis`].title.text ?? "",
]))"""
COUNTED = (
    "epoch",
    "epoch of recovery",
    "images",
    "units removed",
    "units",
    "trial",
    "pairs of units",
)


def check(page: Any) -> None:
    counted = 0
    for place, labels, title in page.evaluate(TICKS):
        known = [label for label in labels if label]
        assert len(known) == len(set(known)), (place, labels)
        if title in COUNTED:
            counted += 1
            for label in known:
                assert "." not in label or label[-1] in "kM", (place, labels)
    assert counted


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_a_study_of_few_epochs(browser: Any, tmp_path: Path, epochs: int) -> None:
    results = example_results(tmp_path)
    for trial in results["trials"]:
        trial["curve"] = trial["curve"][:epochs]
        trial |= {"best_epoch": 0, "epochs_run": epochs}
    results["pruned"]["layers"][0]["angle_deg_histogram"] = {
        "edges": [0, 90, 180], "counts": [epochs, 1],
    }  # fmt: skip
    for side in ("train", "val", "test"):
        results["split"]["per_class"][side] = [1] * 7
    with opened(browser, write_report(results, tmp_path)) as (page, _, complaints):
        check(page)
        assert complaints == []


def test_the_other_pages_with_small_counts(browser: Any, tmp_path: Path) -> None:
    network = example_network()
    network["recovery"]["curve"] = network["recovery"]["curve"][:1]
    with opened(browser, write_network_page(network, tmp_path)) as (page, _, _):
        check(page)
    grid = copy.deepcopy(example_grid())
    for at, cell in enumerate(grid["cells"]):
        cell["num_removed"] = at % 3
    for row in grid["by_angle"]:
        row["num_removed_mean"] = 0.5
    with opened(browser, write_grid_page(grid, tmp_path)) as (page, _, _):
        check(page)
    search = grid_search()
    for row in search["trials"]:
        for run in row["runs"]:
            run["curve"] = run["curve"][:2]
    with opened(browser, write_search_page(search, tmp_path)) as (page, _, _):
        check(page)
    tpe = tpe_search()
    tpe["trials"] = tpe["trials"][:3]
    with opened(browser, write_search_page(tpe, tmp_path)) as (page, _, _):
        check(page)
    with opened(browser, write_paper_page(example_paper(), tmp_path)) as (page, _, _):
        check(page)
