"""Figures of the README and of the results page are those of the measured files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "benchmarks" / "measured"
README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
RESULTS = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def rows(name: str) -> list[dict[str, Any]]:
    return json.loads((MEASURED / name).read_text(encoding="utf-8"))["rows"]


def interval(values: list[float], *, signed: bool) -> str:
    """A mean and its 95% interval over splits, as the pages print it."""
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
    )
    sign = "+" if signed else ""
    return (
        f"{np.mean(values):{sign}.1f}{'' if signed else '%'} ({low:{sign}.1f} to {high:{sign}.1f})"
    )


def test_the_readme_counts_the_networks_of_the_coverage_table():
    passed = [row for row in rows("coverage.json") if row["passed"]]
    failed = [
        row
        for row in rows("coverage.json")
        if not row["passed"] and not any(one["limit"] for one in row["failures"])
    ]
    found = re.search(r"<!-- coverage -->(\d+)<!-- end --> of torchvision's (\d+)", README)
    assert found is not None
    assert int(found[1]) == len(passed)
    assert f"of {found[2]} networks passed every step" in (ROOT / "docs" / "coverage.md").read_text(
        encoding="utf-8"
    )
    assert ("none has failed" in README) == (not failed)


def test_mobilenet_rows_are_the_measured_ones():
    measured = rows("whole_mobilenet_v2.json")
    unpruned = interval([row["test"] for row in measured], signed=False)
    change = interval([row["test_after"] - row["test"] for row in measured], signed=True)
    for page in (README, RESULTS):
        assert unpruned in page
        assert change in page.replace(" points (", " (")
    validation = [row["val_after"] - row["val"] for row in measured]
    assert interval(validation, signed=True) in RESULTS


def test_recovered_networks_of_every_importance_are_the_measured_ones():
    measured = rows("importances.json")
    shown = {
        "Secateurs": ("ours", True),
        "torch-pruning L2, with our least squares": ("l2", True),
        "torch-pruning L2, as it is": ("l2", False),
        "torch-pruning geometric median, as it is": ("geometric_median", False),
        "torch-pruning Taylor, as it is": ("taylor", False),
        "torch-pruning random, as it is": ("random", False),
    }
    for name, (rule, refitted) in shown.items():
        cells = [
            interval(
                [
                    row["recovered"] - row["unpruned"]
                    for row in measured
                    if (row["rule"], row["refitted"], row["level"]) == (rule, refitted, level)
                    and row["epochs"]
                ],
                signed=True,
            )
            for level in (0.5, 0.25)
        ]
        assert f"| {name} | {cells[0]} | {cells[1]} |" in RESULTS


def test_the_readme_takes_the_best_importance_of_torch_pruning():
    measured = [row for row in rows("importances.json") if row["epochs"] and row["level"] == 0.25]
    changes = {
        rule: [
            row["recovered"] - row["unpruned"]
            for row in measured
            if row["rule"] == rule and not row["refitted"]
        ]
        for rule in ("l2", "geometric_median", "taylor", "random")
    }
    assert max(changes, key=lambda rule: float(np.mean(changes[rule]))) == "l2"
    ours = [
        row["recovered"] - row["unpruned"]
        for row in measured
        if row["rule"] == "ours" and row["refitted"]
    ]
    for values in (ours, changes["l2"]):
        assert interval(values, signed=True) in README.replace(" points (", " (")


def test_the_unet_table_is_the_measured_one():
    measured = rows("unet.json")
    states = ("cut", "norms measured", "trained gently", "trained")
    for level in (0.5, 0.25):
        own = [row for row in measured if row["level"] in (level, 1.0)]
        means: dict[str, list[float]] = {}
        for rule in dict.fromkeys(row["rule"] for row in own):
            of_rule = [row for row in own if row["rule"] == rule]
            assert len({row["seed"] for row in of_rule}) == 5
            values = [[row[state] for row in of_rule] for state in states]
            cells = [interval(each, signed=False).replace("%", "") for each in values]
            macs = float(np.mean([row["macs"] for row in of_rule]))
            assert f"| {macs:.2f} | {' | '.join(cells)} |" in RESULTS
            means[rule] = [float(np.mean(each)) for each in values]
        del means["unpruned"]
        for rule, others in means.items():
            assert all(a >= b for a, b in zip(means["ours"], others, strict=True)), rule


def test_the_readme_counts_the_modules_of_the_zoo():
    row = r"\| (\d+) \| (\d+) \| (\d+) \|"
    found = re.search(rf"\| of (\d+) modules .*?\| Secateurs {row} \| torch-pruning {row}", README)
    assert found is not None
    page = (ROOT / "docs" / "coverage.md").read_text()
    counts = {
        outcome: re.search(rf"\| {outcome} \| (\d+) \| (\d+) \|", page)
        for outcome in ("cut correctly", "cut correctly in part", "wrong result")
    }
    assert all(counts.values())
    ours, theirs = ([match[side] for match in counts.values() if match] for side in (1, 2))
    assert f"{found[1]} modules;" in page
    assert [*found.groups()[1:4]] == ours
    assert [*found.groups()[4:]] == theirs
