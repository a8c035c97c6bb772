"""The measured part of docs/coverage.md, from the file that `torchvision_networks.py` writes.

    python benchmarks/coverage/torchvision_networks_table.py benchmarks/measured/coverage.json \\
        --into docs/coverage.md
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from torchvision_networks import BUDGETS, order

sys.path.insert(0, str(Path(__file__).parents[1]))

from shared.page_part import write_part

Row = dict[str, Any]

START, END = "<!-- measured -->\n", "<!-- end of measured -->\n"

COLUMNS = (
    "network",
    "groups",
    "MACs left, `--macs 0.5`",
    "parameters left, `--params 0.3`",
    "ONNX difference",
    "seconds",
    "peak GiB",
    "passed",
)


def answers(row: Row, name: str) -> Row:
    """What a step of a row answered, empty where it did not run."""
    return next((step["answer"] for step in row["steps"] if step["name"] == name), {})


def share(row: Row, word: str) -> str:
    value = answers(row, f"cost ({word})").get(word)
    return "" if value is None else f"{value:.1%}"


def finished(row: Row) -> bool:
    """False where a limit of time or memory ended a step."""
    return not any(one["limit"] for one in row["failures"])


def cells(row: Row) -> list[str]:
    """The row of the table."""
    found = [answers(row, f"prune ({word})").get("groups") for word in BUDGETS]
    gaps = [answers(row, f"export .onnx ({word})").get("max_abs_difference") for word in BUDGETS]
    known = [gap for gap in gaps if gap is not None]
    groups = next((str(number) for number in found if number), "")
    return [
        row["network"],
        groups,
        *(share(row, word) for word in BUDGETS),
        f"{max(known):.0e}" if known else "",
        f"{row['seconds']:.0f}",
        f"{row['peak_gib']:.1f}",
        "yes" if row["passed"] else "no" if finished(row) else "not finished",
    ]


def table(rows: list[Row]) -> str:
    """All rows."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def failures(rows: list[Row]) -> str:
    """One row for each failing step: which, why and where."""
    lines = ["| network | step | reason |", "|---|---|---|"]
    for row in rows:
        for one in row["failures"]:
            where = f" ({one['where']})" if one["where"] else ""
            reason = one["reason"].replace("|", "/")
            lines.append(f"| {row['network']} | {one['step']} | {reason}{where} |")
    return "\n".join(lines)


def measured_part(measured: Row) -> str:
    """Counts, the machine, the table, and what failed or was not run."""
    rows, here = measured["rows"], measured["machine"]
    missing = [name for name in order() if name not in {row["network"] for row in rows}]
    ended = [row for row in rows if not finished(row)]
    failed = [row for row in rows if finished(row) and not row["passed"]]
    passed, left = sum(row["passed"] for row in rows), len(missing) + len(ended)
    text = f"**{passed} of {len(order())} networks passed every step, {len(failed)} failed"
    text += f", and {left} were not run to the end.**" if left else ".**"
    days = [min(row["when"] for row in rows)[:10], max(row["when"] for row in rows)[:10]]
    about = [
        f"{' to '.join(dict.fromkeys(days))}, {here['cores']} cores, {here['processor']}",
        f"one network at a time on {here['threads']} thread, other programs on the machine",
        f"{here['time_limit_s']:g} s for a network and {here['memory_gib']:g} GiB for a command",
        *(f"{name} {number}" for name, number in here["versions"].items()),
    ]
    parts = [text, "", "; ".join(about) + ".", "", table(rows)]
    if failed:
        counts = Counter(row["failures"][0]["step"].split()[0] for row in failed)
        said = ", ".join(f"{number} in {step}" for step, number in counts.most_common())
        parts += ["", "## Failures", "", f"By the first step that failed: {said}."]
        parts += ["", failures(failed)]
    if left:
        parts += ["", "## Not run to the end", ""]
        if ended:
            parts += ["Ended by a limit:", "", failures(ended), ""]
        if missing:
            parts.append(f"Not started, for lack of time: {', '.join(missing)}.")
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    write_part(__doc__, (START, END), measured_part)
