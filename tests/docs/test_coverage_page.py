"""The coverage page holds what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "coverage"))

import real_networks_table
from torchvision_networks_table import END, START, measured_part

ROOT = Path(__file__).parents[2]
MEASURED = json.loads((ROOT / "benchmarks" / "measured" / "coverage.json").read_text())


def test_the_page_is_what_the_measured_file_says() -> None:
    page = (ROOT / "docs" / "coverage.md").read_text()
    part = page.partition(START)[2].partition(END)[0]
    assert part.strip() == measured_part(MEASURED).strip()


def test_a_row_passes_only_with_every_step() -> None:
    steps_of_a_pass = {
        "train",
        *(
            f"{step} ({budget})"
            for budget in ("macs", "params")
            for step in (
                "prune",
                "cost",
                "evaluate --side val",
                "evaluate",
                "predict",
                "export .onnx",
                "export .pt2",
            )
        ),
    }
    passed = [row for row in MEASURED["rows"] if row["passed"]]
    assert passed
    for row in passed:
        assert {step["name"] for step in row["steps"]} == steps_of_a_pass
        assert all(step["code"] == 0 and not step["error"] for step in row["steps"])
        costs = {step["name"]: step["answer"] for step in row["steps"] if "cost" in step["name"]}
        assert costs["cost (macs)"]["macs"] <= 0.5
        assert costs["cost (params)"]["params"] <= 0.3


def test_the_page_is_what_was_measured_of_other_libraries() -> None:
    measured = json.loads((ROOT / "benchmarks" / "measured" / "real_networks.json").read_text())
    page = (ROOT / "docs" / "coverage.md").read_text()
    found = page.partition(real_networks_table.START)[2].partition(real_networks_table.END)[0]
    assert found.strip() == real_networks_table.part(measured).strip()
    for row in measured["rows"]:
        ours = row["secateurs"]
        if real_networks_table.passed(row):
            assert ours["macs"] <= 0.5 and ours["parity"] <= 1e-5 and "error" not in ours
        else:
            assert ours["error"] and ours["step"] in ("build", *real_networks_table.STEPS)
