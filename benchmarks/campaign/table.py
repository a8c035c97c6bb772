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
    lines = ["| what | planned | tried | wrong |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {part['planned']} | {part['tried']} | {part['wrong']} |"
        for name, part in figures["parts"].items()
    ]
    return "\n".join([f"Measured on {figures['date']}, {figures['machine']}.", "", *lines])


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
