"""The part of docs/coverage.md on small modules, from the file that `zoo.py` writes.

python benchmarks/coverage/zoo_table.py benchmarks/measured/zoo.json --into docs/coverage.md
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from shared.page_part import write_part

Row = dict[str, Any]

START, END = "<!-- zoo -->\n", "<!-- end of zoo -->\n"
TOOLS = {"secateurs": "Secateurs", "torch_pruning": "torch-pruning"}
OUTCOMES = ("cut correctly", "wrong result", "raises", "cuts nothing")
PARTLY = "cut correctly in part"


def outcome(found: Row) -> str:
    """The outcome of one tool; correct in part where a group that can be cut was not."""
    correct = found["outcome"] == OUTCOMES[0]
    return PARTLY if correct and found["uncut"] else found["outcome"]


def cell(found: Row) -> str:
    """The outcome, and the share of the parameters that a correct cut removes."""
    text = outcome(found)
    return f"{text}, {found['removed']:.0%}" if text.startswith(OUTCOMES[0]) else text


def counts(rows: list[Row]) -> str:
    """How often each tool came to each outcome."""
    lines = [f"| outcome | {' | '.join(TOOLS.values())} |", "|---|---|---|"]
    found = {tool: Counter(outcome(row[tool]) for row in rows) for tool in TOOLS}
    for word in (OUTCOMES[0], PARTLY, *OUTCOMES[1:]):
        lines.append(f"| {word} | {' | '.join(str(found[tool][word]) for tool in TOOLS)} |")
    return "\n".join(lines)


def behind(rows: list[Row]) -> list[str]:
    """Modules that torch-pruning cuts correctly, and Secateurs not or less of what can be cut."""
    order = (OUTCOMES[0], PARTLY)
    return [
        row["name"]
        for row in rows
        if outcome(row["torch_pruning"]) in order
        and outcome(row["secateurs"]) != OUTCOMES[0]
        and (
            outcome(row["secateurs"]) not in order
            or set(row["secateurs"]["uncut"]) - set(row["torch_pruning"]["uncut"])
        )
    ]


def table(rows: list[Row]) -> str:
    """One row for each module."""
    lines = [f"| kind | module | {' | '.join(TOOLS.values())} |", "|---|---|---|---|"]
    for row in rows:
        cells = [row["kind"].replace("_", " "), row["name"], *(cell(row[tool]) for tool in TOOLS)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measured_part(measured: Row) -> str:
    """Counts, the machine, where torch-pruning is ahead, and the table."""
    rows, here = measured["rows"], measured["machine"]
    names = behind(rows)
    ahead = f"{len(names)} ({', '.join(names)})" if names else "none"
    versions = [f"{name} {number}" for name, number in here["versions"].items()]
    parts = [
        f"{len(rows)} modules; {here['date']}, {here['processor']}; {'; '.join(versions)}.",
        "",
        counts(rows),
        "",
        f"Modules of which torch-pruning cuts correctly what Secateurs does not cut: {ahead}.",
        "",
        table(rows),
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    write_part(__doc__, (START, END), measured_part)
