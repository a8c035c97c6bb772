"""The table of times of `secateurs.prune`, from what `pruning_time.py` measured.

    python benchmarks/pruning_time_table.py benchmarks/measured/pruning_time.json \\
        --into docs/benchmarks.md
"""

from __future__ import annotations

from typing import Any

from page_part import write_part

START, END = "<!-- pruning time -->", "<!-- end of pruning time -->"
GOALS = {"resnet50": 60, "vit_b_16": 180}  # seconds on two idle cores


def measured_part(found: dict[str, Any]) -> str:
    """One row per network and state of the source."""
    lines = [
        "| network | source | MACs left | processor time | wall clock | added memory | goal |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(found["rows"], key=lambda row: (row["network"], row["code"] == "now")):
        processor, seconds = row["processor_seconds"], row["seconds"]
        load = f", load {row['load']:.0f}" if "load" in row else ""
        lines.append(
            f"| {row['network']} | {row['code']} | {row['macs']:.1%} | {processor:.0f} s | "
            f"{seconds:.0f} s{load} | {row['added_mib'] / 1024:.1f} GiB | "
            f"{GOALS[row['network']]} s, 2 GB |"
        )
    machine = found["rows"][-1]["machine"] if found["rows"] else ""
    return "\n".join([*lines, "", f"{machine}.", ""])


if __name__ == "__main__":
    write_part(__doc__, (START, END), measured_part)
