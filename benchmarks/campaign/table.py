"""The campaign's figures as the table in docs/reliability.md.

python benchmarks/campaign/table.py benchmarks/measured/campaign.json --into docs/reliability.md
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from shared.page_part import write_part

START, END = "<!-- campaign: start -->", "<!-- campaign: end -->"


def table(figures: dict) -> str:
    """One row for each part that was run."""
    rows = [
        (name, part["planned"], part["tried"], part["wrong"], _more(part), part["date"])
        for name, part in figures["parts"].items()
    ]
    lines = [
        f"Machine: {figures['machine']}.",
        "",
        "| what | planned | tried | wrong | also measured | date |",
        "|---|---|---|---|---|---|",
        *(
            "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in row) + " |"
            for row in rows
        ),
    ]
    return "\n".join(lines)


def _more(part: dict) -> str:
    words = {
        "calls": "{:.0f} calls",
        "slowest_s": "slowest {:.2f} s",
        "peak_mib": "most memory {:.0f} MiB",
    }
    return ", ".join(text.format(part[key]) for key, text in words.items() if key in part)


if __name__ == "__main__":
    write_part(__doc__, (START, END), table)
