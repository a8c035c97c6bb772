"""The figures of the tutorials: units of each group before and after, from running the pages.

`python docs/scripts/own_pictures.py` runs the code of each page and writes
docs/pictures/own-NAME-*.svg, with a folder's name there.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from pictures import HERE, INKS, Ink, plt

PAGES = ("unet", "vit", "audio")
MOST_LETTERS = 24


def run_page(name: str) -> Any:
    """What the page's code has pruned: its `small`."""
    text = (Path(__file__).parents[1] / "pruning" / f"own-{name}.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0]
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(code, f"own-{name}.md", "exec"), namespace)
    return namespace["small"]


def draw(report: dict[str, Any], ink: Ink) -> Any:
    """One bar a group, in running order: what stays of its units, and what is gone."""
    groups = report["groups"]
    drawn, panel = plt.subplots(figsize=(8.6, 1.1 + 0.27 * len(groups)))
    drawn.subplots_adjust(
        left=0.2, right=0.97, bottom=0.02, top=1 - 0.75 / (1.1 + 0.27 * len(groups))
    )
    largest = max(group["num_units"] for group in groups)
    for place, group in enumerate(groups):
        kept, whole = group["num_kept"], group["num_units"]
        panel.barh(-place, whole, height=0.62, color=ink.faint)
        panel.barh(-place, kept, height=0.62, color=ink.keep)
        panel.text(
            whole + largest * 0.012,
            -place,
            f"{kept} of {whole}",
            va="center",
            size=9,
            color=ink.text,
        )
        name = group["name"]
        short = name if len(name) <= MOST_LETTERS else f"...{name[-MOST_LETTERS:]}"
        panel.text(-largest * 0.012, -place, short, va="center", ha="right", size=9, color=ink.text)
    panel.set_xlim(0, largest * 1.12)
    panel.set_ylim(-len(groups) + 0.4, 0.6)
    panel.set_axis_off()
    panel.set_title(
        f"Units by group: {report['macs']:.0%} of the multiply-accumulates and "
        f"{report['parameters']:.0%} of the parameters stay",
        color=ink.text,
        fontsize=11,
        pad=8,
    )
    return drawn


def main() -> None:
    """Write every figure in both colours."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    for name in PAGES:
        report = run_page(name).report
        for look, ink in INKS.items():
            with mpl.rc_context({"svg.hashsalt": "secateurs", "font.family": "DejaVu Sans"}):
                drawn = draw(report, ink)
                path = folder / f"own-{name}-{look}.svg"
                drawn.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
                plt.close(drawn)
                print(path)


if __name__ == "__main__":
    main()
