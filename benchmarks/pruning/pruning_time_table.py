"""The table of times of `secateurs.prune`, from what `pruning_time.py` measured.

    python benchmarks/pruning/pruning_time_table.py benchmarks/measured/pruning_time.json \\
        --into docs/benchmarks.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from shared.page_part import write_part

START, END = "<!-- pruning time -->", "<!-- end of pruning time -->"
GOALS = {  # seconds on idle cores
    ("resnet18", 60): "15 s on one core without reconstruction",
    ("resnet50", 256): "60 s on two, 2 GB",
    ("vit_b_16", 256): "180 s on two, 2 GB",
}
RECONSTRUCTION = "reconstructing blocks"


def measured_part(found: dict[str, Any]) -> str:
    """One row per network and state of the source."""
    lines = [
        "| network | images | source | MACs left | processor time | of it reconstruction | "
        "wall clock | added memory | goal |",
        "|---" * 9 + "|",
    ]

    def place(row: dict[str, Any]) -> tuple[str, int, bool]:
        return row["network"], row["images"], row["code"] == "now"

    for row in sorted(found["rows"], key=place):
        load = f", load {row['load']:.0f}" if "load" in row else ""
        phases = row.get("phases")
        tuned = "" if phases is None else f"{phases.get(RECONSTRUCTION, 0):.0f} s"
        lines.append(
            f"| {row['network']} | {row['images']} | {row['code']} | {row['macs']:.1%} | "
            f"{row['processor_seconds']:.0f} s | {tuned} | {row['seconds']:.0f} s{load} | "
            f"{row['added_mib'] / 1024:.1f} GiB | "
            f"{GOALS.get((row['network'], row['images']), '')} |"
        )
    lines += _by_phase([row for row in found["rows"] if "phases" in row])
    machine = found["rows"][-1]["machine"] if found["rows"] else ""
    return "\n".join([*lines, "", f"{machine}.", ""])


def _by_phase(rows: list[dict[str, Any]]) -> list[str]:
    """Processor time by phase, one column per run."""
    if not rows:
        return []
    names = dict.fromkeys(name for row in rows for name in row["phases"])
    heads = [f"{row['network']}, {row['images']} images, {row['code']}" for row in rows]
    lines = ["", "| phase | " + " | ".join(heads) + " |", "|---" * (1 + len(rows)) + "|"]
    for name in names:
        cells = [f"{row['phases'].get(name, 0):.1f} s" for row in rows]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    write_part(__doc__, (START, END), measured_part)
