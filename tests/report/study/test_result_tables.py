"""Results as tables, read back with csv and PyArrow."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from example_grid import example_grid
from example_results import example_results, example_sweep
from example_search import grid_search, halving_search

from secateurs.cli import main
from secateurs.errors import InputError
from secateurs.report.common.table_files import write_table
from secateurs.report.study.result_tables import choose_table, is_unfinished, result_tables


@pytest.fixture
def results(study_dir: Path) -> dict[str, Any]:
    """The made-up study without its second sweep."""
    study_dir.mkdir()
    return example_results(study_dir) | {"ungrouped": None}


def written(folder: Path, name: str, value: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value), encoding="utf-8")
    return folder


def test_a_study_has_a_row_a_trial_a_depth_an_epoch_and_a_class(
    study_dir: Path, results: dict[str, Any]
):
    written(study_dir, "results.json", results)
    tables = result_tables(study_dir)
    assert next(iter(tables)) == "trials"
    assert [row["key"] for row in tables["trials"]] == [t["key"] for t in results["trials"]]
    for row, trial in zip(tables["trials"], results["trials"], strict=True):
        assert row["val_accuracy"] == trial["val_accuracy"]
        assert row["seconds"] == trial["timing"]["seconds"]
        # From 1, as on the console and in the report; results.json counts from 0.
        assert (row["run"], row["best_epoch"]) == (trial["run"] + 1, trial["best_epoch"] + 1)
        own = [
            epoch
            for epoch in tables["epochs"]
            if epoch["run"] == trial["run"] + 1
            and all(epoch[name] == trial[name] for name in ("depth", "pretrained"))
        ]
        assert [epoch["epoch"] for epoch in own] == [e["epoch"] + 1 for e in trial["curve"]]
        assert [epoch["val_loss"] for epoch in own] == [e["val_loss"] for e in trial["curve"]]
    assert [row["depth"] for row in tables["depths"]] == [r["depth"] for r in results["sweep"]]
    best = [row for row in tables["depths"] if row["is_best"]]
    assert [row["depth"] for row in best] == [
        row["depth"] for row in results["sweep"] if (row.get("to_best") or {}).get("is_best")
    ]
    assert {(row["network"], row["side"]) for row in tables["networks"]} == {
        (network, side) for network in ("unpruned", "pruned") for side in ("val", "test")
    }
    assert len(tables["classes"]) == 4 * len(results["data"]["classes"])
    assert tables["costs"][1]["num_parameters"] == results["cost"]["after"]["num_parameters"]
    assert (
        tables["latency"][0]["before_ms_median"]
        == results["cost"]["latency"][0]["before_ms"]["median"]
    )
    for rows in tables.values():
        for row in rows:
            assert all(
                value is None or isinstance(value, str | int | float) for value in row.values()
            ), row


def test_a_sweep_with_both_splits_names_them(study_dir: Path, results: dict[str, Any]):
    sweep = example_sweep(results)
    other = {key: sweep[key] for key in ("trials", "sweep", "recommendation")}
    sweep["ungrouped"] = other | {"split": sweep["split"] | {"rule": "random, groups ignored"}}
    tables = result_tables(written(study_dir, "results.json", sweep))
    rules = {row["split"] for row in tables["trials"]}
    assert rules == {sweep["split"]["rule"], "random, groups ignored"}
    assert len(tables["trials"]) == 2 * len(sweep["trials"])
    assert "costs" not in tables


def test_searches_grids_and_the_ledger(tmp_path: Path, results: dict[str, Any]):
    search = halving_search()
    tables = result_tables(written(tmp_path / "halving", "search.json", search))
    assert [row["lr"] for row in tables["trials"]] == [
        trial["parameters"]["lr"] for trial in search["trials"]
    ]
    assert len(tables["epochs"]) == sum(
        len(run["curve"]) for trial in search["trials"] for run in trial["runs"]
    )
    search = grid_search()
    tables = result_tables(written(tmp_path / "cells", "search.json", search))
    assert list(tables) == ["cells", "trials", "epochs"]
    assert len(tables["cells"]) == len(search["cells"])
    grid = example_grid()
    tables = result_tables(written(tmp_path / "grid", "grid.json", grid))
    assert tables == {"cells": grid["cells"], "angles": grid["by_angle"]}
    study = written(tmp_path / "study2", "results.json", results)
    (study / "ledger.csv").write_text(
        "layer,unit,action,dead,constant,norm,survivor,angle_deg,span_deg,weight_to\n"
        "fc7,0,removed,1,0,0.5,3,12.25,,survivor\n"
    )
    (row,) = result_tables(study)["units"]
    assert (row["unit"], row["dead"], row["constant"], row["angle_deg"], row["span_deg"]) == (
        *(0, True, False),
        *(12.25, None),
    )


def test_the_papers_numbers_stand_beside_ours(tmp_path: Path):
    row = {"what": "5 frozen layers", "published": 0.48, "ours": 0.47, "verdict": "inside"}
    run = {"depth": 5, "pretrained": True, "runs": [0.5, 0.4], "val_runs": [0.6, 0.7]}
    paper = {
        "table1": [row | run],
        "table2": [row],
        "table3": {"accuracy": [row], "units": [row]},
        "grid": {"ways": {"published": {"cells": [{"low_deg": 15.0}]}}},
    }
    tables = result_tables(written(tmp_path, "paper.json", paper))
    assert [row["table"] for row in tables["published"]] == [
        *("table 1", "table 2"),
        *("table 3, accuracy", "table 3, units"),
    ]
    assert tables["trials"][1]["test_accuracy"] == 0.4
    assert tables["cells"] == [{"way": "published", "low_deg": 15.0}]


def test_a_study_that_has_not_ended_gives_its_trials(tmp_path: Path, results: dict[str, Any]):
    for trial in reversed(results["trials"][:3]):
        written(tmp_path / "trials", f"{trial['key']}.json", trial | {"test": {"accuracy": 1}})
    (tmp_path / "trials" / "x.lock").touch()
    assert is_unfinished(tmp_path)
    tables = result_tables(tmp_path)
    assert len(tables["trials"]) == 3
    assert "test" not in tables["trials"][0]


def test_every_format_holds_the_same_numbers(
    study_dir: Path, results: dict[str, Any], tmp_path: Path
):
    rows = result_tables(written(study_dir, "results.json", results))["depths"]
    read = list(csv.DictReader(io.StringIO(write_table(rows, "csv", None))))
    assert [float(row["val_accuracy_mean"]) for row in read] == [
        row["val_accuracy_mean"] for row in rows
    ]
    assert {row["pretrained"] for row in read} <= {"true", "false"}
    out = tmp_path / "depths.parquet"
    assert write_table(rows, "parquet", out) == ""
    table = pq.read_table(out)
    assert table.to_pylist() == [{name: row[name] for name in table.column_names} for row in rows]
    assert table.schema.field("depth").type == pa.int64()
    assert table.schema.field("pretrained").type == pa.bool_()
    assert table.schema.field("val_accuracy_mean").type == pa.float64()
    lines = write_table(rows, "markdown", None).splitlines()
    assert len({len(line) for line in lines}) == 1  # padded
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == list(rows[0])
    assert [int(line[0]) for line in cells[2:]] == [row["depth"] for row in rows]


def test_columns_of_nulls_and_of_mixed_values_have_a_type(tmp_path: Path):
    rows = [{"a": None, "b": 1, "c": "x", "d": 1}, {"a": None, "b": 2.5, "c": 3, "e": True}]
    write_table(rows, "parquet", tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    assert [str(field.type) for field in table.schema] == [
        *("double", "double", "string", "int64", "bool"),
    ]
    assert table.to_pydict()["c"] == ["x", "3"]
    assert table.to_pydict()["d"] == [1, None]


def run(capsys: pytest.CaptureFixture[str], monkeypatch, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["secateurs", "results", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


def test_the_command_as_typed(
    study_dir: Path, results: dict[str, Any], tmp_path: Path, capsys, monkeypatch
):
    written(study_dir, "results.json", results)
    code, out, err = run(capsys, monkeypatch, str(study_dir))
    assert (code, err) == (0, "")
    assert out.count("\n") == len(results["trials"]) + 2
    assert out.startswith("| depth |")
    code, out, _ = run(capsys, monkeypatch, str(study_dir), "--table", "depths", "--format", "csv")
    assert len(list(csv.DictReader(io.StringIO(out)))) == len(results["sweep"])
    file = tmp_path / "out" / "trials.parquet"
    words = [str(study_dir), "--format", "parquet", "--out", str(file)]
    code, out, _ = run(capsys, monkeypatch, *words)
    assert (code, out.strip()) == (0, str(file))
    assert pq.read_table(file).num_rows == len(results["trials"])
    shutil.rmtree(study_dir)
    written(study_dir / "trials", "a.json", results["trials"][0])
    code, out, err = run(capsys, monkeypatch, str(study_dir))
    assert code == 0
    assert "not finished; these are the trials so far" in err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nowhere"], "nowhere: no such directory"),
        (["."], "give the --out of a study, sweep, search, grid, paper or train"),
        (["study", "--table", "x"], "no table 'x'; there are trials, epochs, depths, networks"),
        (["study", "--format", "xlsx"], "format must be markdown, csv or parquet, got 'xlsx'"),
        (["study", "--format", "parquet"], "format parquet is not text: give --out FILE"),
        (["broken"], "missing key 'settings'; written by another version, or damaged"),
        (["old"], "schema is 0, expected 1"),
    ],
)
def test_bad_input_is_one_line(words: list[str], text: str, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "study", "results.json", example_results(tmp_path / "study"))
    written(tmp_path / "broken", "grid.json", {"schema": 1})
    written(tmp_path / "old", "results.json", {"schema": 0})
    code, out, err = run(capsys, monkeypatch, *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert text in err


def test_the_first_table_is_the_one_shown(tmp_path: Path):
    tables = {"cells": [{"a": 1}], "trials": [{"a": 2}]}
    assert choose_table(tables, None, tmp_path) == [{"a": 1}]
    with pytest.raises(InputError, match="no table 'depths'; there are cells, trials"):
        choose_table(tables, "depths", tmp_path)
