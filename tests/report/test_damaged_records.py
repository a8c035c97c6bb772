"""Records of every kind, damaged in hundreds of ways: the right answer or one clear line."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from example_grid import example_grid
from example_paper import example_paper
from example_search import grid_search, halving_search

from secateurs.errors import InputError
from secateurs.files import write_json
from secateurs.report.common.table_files import csv_text, markdown_text
from secateurs.report.paper.page import load_paper, render_paper
from secateurs.report.study.result_tables import result_tables
from secateurs.report.study.schema import load_results
from secateurs.shape import made_of
from secateurs.study import study
from secateurs.study.paper import run as paper
from secateurs.study.paper.protocol import PaperPlan
from secateurs.study.pruning import saved_grid
from secateurs.study.saved.location import find_location
from secateurs.study.search import run as search
from secateurs.study.setup.config import StudyConfig

ODD: tuple[Any, ...] = (
    *(True, None, -1, 0, 2, 10**30, 10**400, 1e308, -0.5, "", "x", "a\nb", [], {}, [1], {"a": 1}),
    *([[]], [None], "9" * 400),
)
TEXTS = (
    *("true", "NaN", "[]", "{}", "", "null", "[" * 50_000, "9" * 5000, '{"schema": 1e999}'),
    *('{"schema": 1}', '{"schema": true}', '{"schema": [1]}', '{"schema": 1, "config": 3}'),
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything within plain data, itself left out."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    found: list[tuple[Any, ...]] = []
    for key, part in inner:
        found += [(*at, key), *places(part, (*at, key))]
    return found


def damaged(value: Any, count: int) -> list[str]:
    """Texts of files: values of other types, missing fields, and what is no record at all."""
    chance = random.Random(0)
    whole = json.dumps(value)
    by_depth: dict[int, list[tuple[Any, ...]]] = {}
    for path in places(value):
        by_depth.setdefault(len(path), []).append(path)
    texts = list(TEXTS)
    for _ in range(count):
        copied = part = json.loads(whole)
        # Each depth as often as another: most paths are deep in lists of numbers.
        *above, last = chance.choice(by_depth[chance.choice(sorted(by_depth))])
        for key in above:
            part = part[key]
        if chance.random() < 0.25:
            del part[last]
        else:
            part[last] = copy.deepcopy(chance.choice(ODD))
        texts.append(json.dumps(copied))
    for _ in range(count // 4):
        at = chance.randrange(len(whole))
        texts.append(whole[:at] + chance.choice(["", '"', "}", "\ufffd", "0"]) + whole[at + 1 :])
    return texts


def assert_lines(path: Path, value: Any, read: Callable[[], Any], count: int) -> None:
    """Read the file in all these states; the undamaged one must be read."""
    write_json(path, value)
    read()
    lines = 0
    for text in damaged(value, count):
        path.write_text(text)
        try:
            read()
        except InputError as error:
            lines += 1
            assert len(str(error)) < 1000
            assert path.name in str(error) or str(path.parent) in str(error), error
    assert lines >= len(TEXTS) - 3


def test_study_json(tmp_path: Path):
    path, config = tmp_path / "study.json", StudyConfig()
    (tmp_path / "unpruned").mkdir()
    (tmp_path / "unpruned" / "model.json").write_text("{}")
    value = {
        "schema": 1,
        "config": config.to_json(),
        "identity": {"data": "x", "split": "y", "weights": ["a", "b"]},
        "data": str(tmp_path),
    }

    def read() -> None:
        study._check_configuration(tmp_path, config)
        find_location(tmp_path, None)

    assert_lines(path, value, read, 200)


def test_plans_of_searches(tmp_path: Path):
    settings = halving_search()["settings"] | {"method": "tpe", "trials": 9}
    value = {
        "schema": 1,
        "settings": settings,
        "identity": {"data": "x", "weights": {"loaded": []}},
    }
    assert_lines(
        tmp_path / search.PLAN,
        value,
        lambda: search._check_directory(tmp_path, settings, overwrite=False),
        200,
    )


def test_plans_of_the_paper(tmp_path: Path):
    plan = PaperPlan()
    value = {"schema": 1, "plan": plan.to_json(), "identity": {"data": "x"}}
    assert_lines(
        tmp_path / paper.PLAN,
        value,
        lambda: paper._check_directory(tmp_path, plan, overwrite=False),
        200,
    )


def test_grids(tmp_path: Path):
    value = example_grid()

    def read() -> None:
        found = saved_grid._read(tmp_path)
        if found is None:
            raise InputError(f"{tmp_path}: made again")
        saved_grid._check_settings(tmp_path, found, value["settings"])
        saved_grid._check_identity(tmp_path, found, value["identity"])
        saved_grid.csv_text(found["cells"])
        tables(tmp_path)

    assert_lines(tmp_path / "grid.json", value, read, 200)


def tables(directory: Path) -> None:
    for rows in result_tables(directory).values():
        markdown_text(rows)
        csv_text(rows)


@pytest.mark.parametrize("name", ["results", "search", "cells", "paper", "training", "trials/a"])
def test_tables(name: str, tmp_path: Path, results: dict[str, Any]):
    value: Any = {
        "results": results,
        "search": halving_search(),
        "cells": grid_search(),
        "paper": example_paper(),
    }.get(name, results["trials"][0] | {"val": {}})
    name = {"cells": "search"}.get(name, name)
    assert_lines(tmp_path / f"{name}.json", value, lambda: tables(tmp_path), 60)


def test_pages_of_the_paper(tmp_path: Path):
    def read() -> None:
        with made_of(tmp_path / "paper.json"):
            render_paper(load_paper(tmp_path))

    assert_lines(tmp_path / "paper.json", example_paper(), read, 4)


def test_results_are_read(tmp_path: Path, results: dict[str, Any]):
    assert_lines(tmp_path / "results.json", results, lambda: load_results(tmp_path), 200)
