"""Where trials ran and what they cost, in words."""

from __future__ import annotations

from typing import Any

from secateurs.wording import counted


def machine_words(rows: list[dict[str, Any]] | None) -> dict[str, str]:
    """What each machine did, and all of them together; nothing for trials of one process.

    >>> row = {"node": "a", "num_trials": 3, "core_hours": 1.26, "card_hours": 0.0}
    >>> machine_words([row | {"num_lost": 1, "lost_hours": 0.25}])
    {'a': '3 trials, 1.3 core-hours, 1 attempt lost (0.25 h)'}
    >>> row = row | {"num_pruned": 2, "num_lost": 0, "lost_hours": 0.0}
    >>> machine_words([row, row | {"node": "b"}])["all machines"]
    '6 trials, 4 pruned networks, 2.5 core-hours'
    """
    found = {row["node"]: _words(row) for row in rows or []}
    if len(found) > 1:
        names = ("num_trials", "num_pruned", "core_hours", "card_hours", "num_lost", "lost_hours")
        total = {name: sum(row.get(name, 0) for row in rows or []) for name in names}
        found = {"all machines": _words(total), **found}
    return found


def _words(row: dict[str, Any]) -> str:
    parts = [counted(row["num_trials"], "trial")]
    if row.get("num_pruned"):
        parts.append(counted(row["num_pruned"], "pruned network"))
    parts += [f"{row['core_hours']:.2g} core-hours"]
    if row["card_hours"]:
        parts.append(f"{row['card_hours']:.2g} card-hours")
    if row["num_lost"]:
        parts.append(f"{counted(row['num_lost'], 'attempt')} lost ({row['lost_hours']:.2g} h)")
    return ", ".join(parts)
