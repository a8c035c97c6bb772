"""The campaign's figures as the table in docs/reliability.md.

python benchmarks/campaign/table.py benchmarks/measured/campaign.json docs/reliability.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

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


def main() -> None:
    """Put the table between its marks."""
    source, page = Path(sys.argv[1]), Path(sys.argv[2])
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    found = table(json.loads(source.read_text(encoding="utf-8")))
    page.write_text(f"{before}{START}\n{found}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
