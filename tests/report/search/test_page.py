from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from example_search import EPOCHS, LRS, SEARCHES, grid_search, halving_search, tpe_search, trial

from secateurs.errors import InputError
from secateurs.report.common.canvas import AFTER
from secateurs.report.search import figures as search_figures
from secateurs.report.search import grid_figures as search_grid_figures
from secateurs.report.search import parallel, summary
from secateurs.report.search.page import render_search, write_search_page
from secateurs.report.search.tables import rungs_table


def shown(page: str) -> str:
    """The text of a page, without its scripts and styles."""
    bare = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", bare).split())


@pytest.mark.usefixtures("without_plotly")
def test_a_grids_page_answers_and_holds_every_number(tmp_path: Path) -> None:
    search = grid_search()
    path = write_search_page(search, tmp_path)
    assert path == tmp_path / "search.html"
    page = path.read_text(encoding="utf-8")
    text = shown(page)
    assert "72.6% on validation with learning rate 0.005 for 6 epochs" in text
    assert "12 cells, 4 learning rates by 3 numbers of epochs, from 4 trainings" in text
    assert "the search took 20 epochs instead of 48." in text
    assert "2 of 3" in text  # not significantly different from the best
    assert f"secateurs train DATA --out {tmp_path}-model --depth 5 --lr 0.005 --epochs 4" in text
    assert "The best of 12 was chosen by its accuracy on these 135 images" in text
    assert "1 training of 4 diverged" in text
    assert "2 cells without a value" in text
    assert "at the largest number of epochs; more may be better" in text
    assert "Learning rate explains the largest share, 75%." in text
    for cell in search["cells"]:
        if cell["val_accuracy_mean"] is not None:
            assert f"{100 * cell['val_accuracy_mean']:.1f}%" in text
    assert page.count('role="img"') == 6
    assert page.count('<th scope="row">') == 2 * 12 + 3
    assert re.search(r"(src|href)=\"(?!#)", page) is None


@pytest.mark.usefixtures("without_plotly")
def test_a_halvings_page_says_who_was_dropped() -> None:
    text = shown(render_search(halving_search()))
    assert "9 for 2 epochs, 3 for 6 epochs and 1 for 10 epochs" in text
    assert "13 trainings, 46 epochs; training all of them for the maximum would take 90" in text
    assert "one that was dropped after few epochs may be better after many" in text
    assert "Squared rank correlation of each parameter alone" in text
    assert "Not significantly different" not in text  # nothing to compare the best with


@pytest.mark.usefixtures("without_plotly")
def test_tpes_page_says_what_was_random() -> None:
    text = shown(render_search(tpe_search()))
    assert "The first 10 are random, the other 4 are proposed by Optuna’s TPE sampler." in text
    assert "The best trial is 14 of 14." in text
    assert "functional analysis of variance on a random forest (Optuna)" in text
    assert "1 training that diverged left out" in text
    assert "batch size 32, weight decay 1e-5 and label smoothing" in text


def test_cells_are_drawn_where_they_belong_and_the_best_is_framed() -> None:
    search = grid_search()
    figure = search_grid_figures.cell_map(search, "val_accuracy_mean")
    for k, cell in enumerate(search["cells"]):
        at, column = divmod(k, len(EPOCHS))
        assert figure.data[0].z[at][column] == cell["val_accuracy_mean"]
    texts = [text for trace in figure.data[1:] for text in trace.text]
    assert sorted(texts) == sorted(
        "–" if c["val_accuracy_mean"] is None else f"{100 * c['val_accuracy_mean']:.1f}%"
        for c in search["cells"]
    )
    assert figure.layout.yaxis.ticktext == tuple(map(str, LRS))
    (frame,) = figure.layout.shapes
    assert (round(frame.x0 + 0.49), round(frame.y0 + 0.48), frame.line.color) == (2, 1, AFTER)
    last = search_grid_figures.cell_map(search, "last_epoch_accuracy_mean")
    assert (last.data[0].zmin, last.data[0].zmax) == (figure.data[0].zmin, figure.data[0].zmax)


def test_a_curve_ends_where_it_diverged_and_marks_cells_only() -> None:
    figure = search_grid_figures.curves(grid_search(), "val_accuracy")
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    marks = [trace for trace in figure.data if trace.mode == "markers"]
    assert [len(trace.x) for trace in lines] == [6, 6, 6, 2]
    assert [list(trace.x) for trace in marks] == [[2, 4, 6]] * 3 + [[2]]
    assert len({trace.marker.symbol for trace in marks}) == 4


def test_single_runs_wait_behind_a_switch() -> None:
    search = grid_search()
    search["settings"]["runs"] = 2
    for row in search["trials"]:
        row["runs"].append(row["runs"][0] | {"run": 1})
    figure = search_grid_figures.curves(search, "val_loss")
    hidden = [trace for trace in figure.data if trace.meta == "other"]
    assert len(hidden) == 8 and not any(trace.visible for trace in hidden)
    assert "Show single runs" in shown(render_search(search))
    assert "Cells are means over 2 runs." in shown(render_search(search))


def test_a_loss_that_explodes_is_drawn_by_its_logarithm() -> None:
    search = grid_search()
    assert search_grid_figures.curves(search, "val_loss").layout.yaxis.type is None
    search["trials"][3]["runs"][0]["curve"][0]["val_loss"] = 40.0
    assert search_grid_figures.curves(search, "val_loss").layout.yaxis.type == "log"
    assert search_grid_figures.curves(search, "val_accuracy").layout.yaxis.type is None


def test_lines_between_rungs_are_dropped_kept_and_best() -> None:
    dropped, kept, best = search_figures.rungs(halving_search()).data
    assert (dropped.name, kept.name, best.name) == ("dropped", "trained to the end", "best")
    assert sum(y is not None for y in dropped.y) == 6 + 2 * 2
    assert not kept.visible  # one configuration only was trained to the end
    assert [round(x) for x in best.x if x is not None] == [0, 1, 2]
    table = rungs_table(halving_search())
    assert [row[1:4] for row in table.rows] == [("2", "9", "3"), ("6", "3", "1"), ("10", "1", "0")]


def test_the_best_so_far_never_falls() -> None:
    search = tpe_search()
    line, random, chosen = search_figures.history(search).data
    values = [t["val_accuracy_mean"] for t in search["trials"] if t["val_accuracy_mean"]]
    assert list(line.y) == [max(values[: k + 1]) for k in range(len(values))]
    assert (len(random.x), list(chosen.x)) == (9, [11, 12, 13, 14])


@pytest.mark.parametrize("method", SEARCHES)
def test_parallel_lines_cross_every_axis_within_it(method: str) -> None:
    search = SEARCHES[method]()
    axes = parallel.axes_of(search)
    assert axes[-1].name == "val_accuracy"
    figure = parallel.parallel(search)
    places = [y for trace in figure.data for y in trace.y if y is not None]
    assert min(places) >= -1e-9 and max(places) <= 1 + 1e-9
    best = next(trace for trace in figure.data if trace.name == "best")
    assert [y is not None for y in best.y] == [True] * len(axes) + [False]
    assert best.y[len(axes) - 1] == pytest.approx(1.0)
    numbers = [sum(y is None for y in trace.y) for trace in figure.data]
    assert sum(numbers) == len(parallel.lines_of(search))
    assert len({trace.line.width for trace in figure.data if trace.visible}) >= 3
    for axis in axes:
        assert all(-1e-9 <= axis.place(value) <= 1 + 1e-9 for value, _ in axis.ticks)
        assert 2 <= len(axis.ticks) <= 6


def test_a_configuration_is_drawn_with_its_longest_training_but_the_best_with_its_best() -> None:
    search = halving_search()
    found = {row["number"]: row["epochs"] for row, _ in parallel.lines_of(search)}
    assert found == {0: 2, 1: 2, 2: 6, 3: 2, 4: 2, 5: 10, 6: 2, 7: 6, 8: 2}
    search["best"] |= {"number": 2, "epochs": 2}
    found = {row["number"]: row["epochs"] for row, _ in parallel.lines_of(search)}
    assert found[2] == 2


def test_a_best_value_at_the_end_of_its_range_is_said() -> None:
    search = tpe_search()
    for lr, words in ((1.2e-5, "near the lower end"), (9e-3, "near the upper end"), (1e-3, None)):
        search["best"]["parameters"]["lr"] = lr
        text = " ".join(summary.cautions(search))
        assert (words is None and "end of the range" not in text) or words in text
    grid = grid_search()
    grid["best"]["parameters"]["lr"] = 0.001
    assert "the smallest one tried; a smaller one" in " ".join(summary.cautions(grid))


@pytest.mark.usefixtures("without_plotly")
@pytest.mark.parametrize("method", SEARCHES)
def test_importance_that_could_not_be_computed_is_said(method: str) -> None:
    search: dict[str, Any] = SEARCHES[method]()
    search["importance"] |= {"parts": [], "reason": "fewer than 8 trials say nothing of it"}
    assert "Not computed: fewer than 8 trials say nothing of it." in shown(render_search(search))


@pytest.mark.usefixtures("without_plotly")
def test_one_cell_and_one_trial_are_searches_too() -> None:
    search = grid_search()
    search["settings"] |= {"lr": [0.001], "epochs": [2]}
    search["trials"], search["cells"] = search["trials"][:1], search["cells"][:1]
    search["best"] |= {"parameters": {"lr": 0.001}, "epochs": 2, "number": 0}
    search["best"] |= {k: v for k, v in search["cells"][0].items() if k.startswith("val_")}
    search["cost"] |= {"num_cells": 1, "num_trainings": 1}
    text = shown(render_search(search))
    assert "1 cell, 1 learning rate by 1 number of epochs, from 1 training" in text
    tpe = tpe_search()
    only = trial(0, {"lr": 0.001}, 4, 60, 4)
    tpe |= {"trials": [only], "space": tpe["space"][:1]}
    tpe["settings"]["trials"] = 1
    tpe["best"] |= {"parameters": only["parameters"], "number": 0}
    assert "All are random." in shown(render_search(tpe))


@pytest.mark.usefixtures("without_plotly")
def test_names_are_text_and_nothing_else() -> None:
    search = grid_search()
    search["data"]["name"] = search["settings"]["weights"] = "</script><script>alert(1)</script>"
    assert "<script>alert" not in render_search(search)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    search = grid_search()
    with pytest.raises(InputError, match="search: schema is 2, expected 1"):
        write_search_page(search | {"schema": 2}, tmp_path)
    assert json.loads(json.dumps(search)) == search
    assert list(tmp_path.iterdir()) == []
