"""The part of docs/coverage.md on networks of other libraries, from what `real_networks.py` wrote.

python benchmarks/coverage/real_networks_table.py MEASURED --into docs/coverage.md

with benchmarks/measured/real_networks.json for MEASURED.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from shared.page_part import write_part

Row = dict[str, Any]

START, END = "<!-- real networks -->\n", "<!-- end of real networks -->\n"
STEPS = ("inspect", "prune", "train", "save", "load", "export")
COLUMNS = (
    "network",
    "groups",
    "MACs left",
    "parameters left",
    "seconds",
    "peak MiB",
    "ONNX difference",
    "end to end",
    "torch-pruning",
)
EQUAL = 1e-5  # of the effect of zeroing


def passed(row: Row) -> bool:
    """Whether every step of a network passed."""
    return row["secateurs"].get("step") == "done"


def theirs(row: Row) -> str:
    """What became of torch-pruning on the network, in a few words."""
    found = row["torch_pruning"]
    if "error" in found:
        return "no answer in 60 s" if found["error"] == "time limit" else "raises"
    difference = found["difference"]
    if difference is None:
        return "gives outputs of another shape"
    if difference <= EQUAL:
        return f"equals zeroing, {found['macs']:.0%} of the MACs left"
    return "differs from zeroing"


def cells(row: Row) -> list[str]:
    """The row of the table."""
    ours = row["secateurs"]

    def shown(key: str, form: str) -> str:
        return format(ours[key], form) if key in ours else ""

    return [
        row["network"],
        shown("groups", "d"),
        shown("macs", ".1%"),
        shown("params", ".1%"),
        shown("prune_s", ".0f"),
        shown("prune_mib", ".0f"),
        shown("export_difference", ".0e"),
        "yes" if passed(row) else f"no: {ours['step']}",
        theirs(row),
    ]


def failures(rows: list[Row]) -> list[str]:
    """One row for each network that did not go the whole way."""
    lines = ["| network | step | reason |", "|---|---|---|"]
    for row in rows:
        reason = row["secateurs"]["error"].replace("|", "/")
        lines.append(f"| {row['network']} | {row['secateurs']['step']} | {reason} |")
    return lines


def reasons(rows: list[Row]) -> list[str]:
    """Why groups were not pruned, the most frequent reasons first."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row["secateurs"].get("reasons", {}))
    lines = ["| groups | reason |", "|---|---|"]
    return lines + [f"| {number} | {reason} |" for reason, number in counts.most_common(12)]


def part(measured: Row) -> str:
    """Counts, the machine, the table, and what failed."""
    rows, here = measured["rows"], measured["machine"]
    good = [row for row in rows if passed(row)]
    equal = [row for row in rows if theirs(row).startswith("equals")]
    days = [min(row["when"] for row in rows)[:10], max(row["when"] for row in rows)[:10]]
    about = [
        " to ".join(dict.fromkeys(days)),
        f"{here['cores']} cores, {here['processor']}",
        f"one network at a time on {here['threads']} thread, other programs on the machine",
        f"{here['time_limit_s']:g} s and {here['memory_gib']:g} GiB for a network",
        *(f"{name} {number}" for name, number in here["versions"].items()),
    ]
    lines = [
        f"**{len(good)} of {len(rows)} networks go the whole way. torch-pruning's result equals "
        f"zeroing on {len(equal)}.**",
        "",
        "; ".join(about) + ".",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|" + "---|" * len(COLUMNS),
        *(f"| {' | '.join(cells(row))} |" for row in rows),
    ]
    if len(good) < len(rows):
        lines += ["", "### Not the whole way", ""]
        lines += failures([row for row in rows if not passed(row)])
    lines += ["", "### Groups that are not pruned", "", *reasons(rows)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_part(__doc__, (START, END), part)
