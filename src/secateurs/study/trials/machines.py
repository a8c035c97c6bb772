"""Where trials ran, and what they cost there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from secateurs.study.trials.task import Record

HOUR_S = 3600.0


def machine_rows(records: Iterable[Record], pruned: Iterable[Record] = ()) -> list[dict[str, Any]]:
    """One row per machine of trials that an executor ran, in the order of their names.

    `pruned` are rows of networks that were pruned there.

    Core- and card-hours are those of the attempts that gave a record; `lost_hours` are what
    attempts took that were lost. Trials of this process itself are in none.

    >>> timing = {"seconds": 1800.0, "node": "a", "cpus": 2, "gpus": 0.5, "attempts": 2}
    >>> machine_rows([{"timing": timing | {"lost_seconds": 360.0}}, {"timing": {"seconds": 9.0}}])
    [{'node': 'a', 'num_trials': 1, 'num_pruned': 0, 'core_hours': 1.0, 'card_hours': 0.25, \
'num_lost': 1, 'lost_hours': 0.1}]
    """
    rows: dict[str, dict[str, Any]] = {}

    kinds = [("num_trials", one) for one in records] + [("num_pruned", one) for one in pruned]
    for kind, record in kinds:
        timing = record["timing"]
        if "node" not in timing:
            continue
        empty = {"num_trials": 0, "num_pruned": 0, "core_hours": 0.0, "card_hours": 0.0}
        empty |= {"num_lost": 0, "lost_hours": 0.0}
        row = rows.setdefault(timing["node"], {"node": timing["node"], **empty})
        hours = timing["seconds"] / HOUR_S
        row[kind] += 1
        row["core_hours"] += hours * timing["cpus"]
        row["card_hours"] += hours * timing["gpus"]
        row["num_lost"] += timing["attempts"] - 1
        row["lost_hours"] += timing["lost_seconds"] / HOUR_S
    return [rows[name] for name in sorted(rows)]


def machine_totals(*parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of several experiments as one per machine.

    >>> row = {"node": "a", "num_trials": 1, "core_hours": 0.5}
    >>> machine_totals([row], [row, row | {"node": "b"}])
    [{'node': 'a', 'num_trials': 2, 'core_hours': 1.0}, {'node': 'b', 'num_trials': 1, \
'core_hours': 0.5}]
    """
    total: dict[str, dict[str, Any]] = {}
    for row in (row for part in parts for row in part):
        before = total.get(row["node"], {})
        total[row["node"]] = {
            name: value if name == "node" else before.get(name, 0) + value
            for name, value in row.items()
        }
    return [total[name] for name in sorted(total)]
