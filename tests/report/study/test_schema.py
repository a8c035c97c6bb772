from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from secateurs.errors import InputError
from secateurs.report.study.page import load_results
from secateurs.report.study.schema import SCHEMA, check_results
from secateurs.study import stages


def write(study_dir: Path, text: str) -> None:
    (study_dir / "results.json").write_text(text, encoding="utf-8")


def test_results_are_read_back(results: dict[str, Any], study_dir: Path) -> None:
    write(study_dir, json.dumps(results))
    loaded = load_results(study_dir)
    assert loaded == check_results(results)
    assert loaded["pruned"]["layers"][0]["num_kept"] == 120


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no results\.json here; give the --out directory"):
        load_results(tmp_path)
    with pytest.raises(InputError, match=r"no results\.json here"):
        load_results(tmp_path / "missing")


def test_broken_json_names_the_file(study_dir: Path) -> None:
    study_dir.mkdir()
    write(study_dir, '{"schema": 1,')
    with pytest.raises(InputError, match=r"results\.json: not readable as JSON"):
        load_results(study_dir)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            9,
            r"schema 9 is none .*reads \(up to 2, and 3 of a study over several.*upgrade secateurs",
        ),
        (0, "schema is 0, expected 1 to 2"),
        ("1", "schema is '1', expected 1 to 2"),
        (True, "schema is True, expected 1 to 2"),
        (None, "no key 'schema'"),
    ],
)
def test_other_schemas(results: dict[str, Any], value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_results(results | {"schema": value})


def test_not_an_object() -> None:
    with pytest.raises(InputError, match="expected an object of results, got a list"):
        check_results([])


def drop(results: dict[str, Any], path: str) -> dict[str, Any]:
    broken = copy.deepcopy(results)
    *parents, last = path.split(".")
    at: Any = broken
    for name in parents:
        at = at[int(name)] if isinstance(at, list) else at[name]
    del at[last]
    return broken


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("trials", "trials"),
        ("chosen", "chosen"),
        ("data.classes", "data.classes"),
        ("split.leakage.num_test", "split.leakage.num_test"),
        ("trials.1.curve", r"trials\[1\]\.curve"),
        ("chosen.test.confusion", r"chosen\.test\.confusion"),
        ("cost.before.num_parameters", r"cost\.before\.num_parameters"),
    ],
)
def test_a_missing_key_is_named(results: dict[str, Any], path: str, named: str) -> None:
    with pytest.raises(InputError, match=f"^results: missing key '{named}'; .*run it again"):
        check_results(drop(results, path))


@pytest.mark.parametrize("key", ["pruned", "cost", "samples", "merged", "files", "timing"])
def test_parts_that_may_be_absent_are_null(results: dict[str, Any], key: str) -> None:
    assert check_results(drop(results, key))[key] is None


def test_wrong_kinds_are_named(results: dict[str, Any]) -> None:
    results["data"]["num_images"] = "675"
    with pytest.raises(InputError, match=r"data\.num_images should be a whole number, got text"):
        check_results(results)
    results["data"]["num_images"] = True
    with pytest.raises(InputError, match=r"data\.num_images should be a whole number, got true"):
        check_results(results)


def test_shapes_must_agree_with_the_classes(results: dict[str, Any]) -> None:
    broken = copy.deepcopy(results)
    broken["pruned"]["test"]["confusion"].pop()
    with pytest.raises(InputError, match=r"pruned\.test\.confusion should be 7 x 7"):
        check_results(broken)
    broken = copy.deepcopy(results)
    broken["split"]["per_class"]["val"].pop()
    with pytest.raises(InputError, match=r"split\.per_class\.val has 6 entries, expected 7"):
        check_results(broken)
    broken = copy.deepcopy(results)
    broken["pruned"]["layers"][0]["angle_deg_histogram"]["edges"].pop()
    with pytest.raises(InputError, match=r"angle_deg_histogram has 36 edges, expected 37"):
        check_results(broken)


def test_the_given_results_are_not_changed(results: dict[str, Any]) -> None:
    del results["pruned"]
    before = copy.deepcopy(results)
    check_results(results)
    assert results == before


def test_results_of_the_schema_before_are_read(results: dict[str, Any]) -> None:
    del results["merged"]
    assert check_results(results | {"schema": 1})["merged"] is None


def test_the_study_writes_the_newest_schema() -> None:
    assert stages.SCHEMA == SCHEMA


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"pictures": [20], "activations": [1.0]},
            r"groups\[1\]: unit 100 names a picture.* 20 of",
        ),
        ({"pictures": [-1], "activations": [1.0]}, r"unit 100 names a picture that is not among"),
        ({"pictures": [1, 2], "activations": [1.0]}, r"unit 100 has 1 activations, expected 2"),
    ],
)
def test_units_name_pictures_that_are_there(
    results: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    results["merged"]["layers"][0]["groups"][1]["units"][0] |= change
    with pytest.raises(InputError, match=message):
        check_results(results)


def test_a_group_has_a_survivor(results: dict[str, Any]) -> None:
    results["merged"]["layers"][0]["groups"][2]["units"] = []
    with pytest.raises(InputError, match=r"layers\[0\]\.groups\[2\]\.units is empty"):
        check_results(results)
