"""Rows and trials of a sweep over depths, as `results.json` and `paper.json` hold them."""

from __future__ import annotations

from typing import Any

Record = dict[str, Any]


def is_scratch(row: Record) -> bool:
    """Whether a trial or a row of the sweep is the baseline: random weights, nothing frozen."""
    return not row["pretrained"] and row["depth"] == 0


def scratch_row(results: Record) -> Record | None:
    """The sweep's row of the baseline from random weights, if it was run."""
    return next((row for row in results["sweep"] if is_scratch(row)), None)


def depth_rows(results: Record) -> list[Record]:
    """The sweep's rows without the baseline, smallest depth first."""
    rows = [row for row in results["sweep"] if not is_scratch(row)]
    return sorted(rows, key=lambda row: row["depth"])


def random_frozen(results: Record, row: Record) -> list[str]:
    """The layers that a row of the sweep freezes although they have random weights."""
    if not row["pretrained"]:
        return []
    if row.get("random_frozen") is not None:
        return row["random_frozen"]
    # Not recorded by older versions: correct where the loaded layers are the first ones.
    weights = results["weights"]
    return weights["fresh"][: max(0, row["depth"] - len(weights["loaded"]))]


def trial_name(trial: Record) -> str:
    """The name of a trial in legends and tables.

    >>> trial_name({"depth": 5, "run": 0, "pretrained": True})
    'depth 5, run 1'
    """
    start = "scratch" if is_scratch(trial) else f"depth {trial['depth']}"
    return f"{start}, run {trial['run'] + 1}"
