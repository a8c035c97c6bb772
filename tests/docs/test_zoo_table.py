"""The table of small modules on the coverage page is what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "coverage"))
sys.path.insert(0, str(Path(__file__).parents[1] / "prune" / "zoo"))

from shapes.zoo import ZOO

from zoo_table import END, OUTCOMES, PARTLY, START, behind, measured_part, outcome

ROOT = Path(__file__).parents[2]
MEASURED = json.loads((ROOT / "benchmarks" / "measured" / "zoo.json").read_text())


def test_the_page_is_what_the_measured_file_says() -> None:
    page = (ROOT / "docs" / "coverage.md").read_text()
    part = page.partition(START)[2].partition(END)[0]
    assert part.strip() == measured_part(MEASURED).strip()


def test_every_module_of_the_zoo_was_measured() -> None:
    assert {row["name"] for row in MEASURED["rows"]} == ZOO.keys()


def test_secateurs_has_no_wrong_result() -> None:
    assert MEASURED["rows"]
    assert all(row["secateurs"]["outcome"] != OUTCOMES[1] for row in MEASURED["rows"])


def test_a_cut_in_part_is_behind_one_of_everything() -> None:
    whole = {"outcome": OUTCOMES[0], "removed": 0.6, "uncut": []}
    part = {"outcome": OUTCOMES[0], "removed": 0.3, "uncut": ["a"]}
    wrong = {"outcome": OUTCOMES[1], "removed": 0.6, "uncut": []}
    assert [outcome(found) for found in (whole, part, wrong)] == [OUTCOMES[0], PARTLY, OUTCOMES[1]]
    pairs = {"a": (part, whole), "b": (whole, part), "c": (part, wrong), "d": (part, part)}
    rows = [
        {"name": name, "secateurs": ours, "torch_pruning": theirs}
        for name, (ours, theirs) in pairs.items()
    ]
    assert behind(rows) == ["a"]
