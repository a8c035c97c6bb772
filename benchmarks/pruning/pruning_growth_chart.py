"""What `pruning_growth.py` measured as a picture, for a light and a dark page.

python benchmarks/pruning/pruning_growth_chart.py FIGURES.json docs/pictures
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.ticker import LogLocator, NullLocator

from pruning_growth import BASE, VALUES
from secateurs.files import read_json

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "scripts"))
from pictures import INKS, Ink, plt

MARKS = {"images": "o", "units": "s", "layers": "^"}
NAMES = {"images": "calibration images", "units": "channels of each layer", "layers": "layers"}
PANELS = {
    "processor_seconds": "Processor time of secateurs.prune, s",
    "added_mib": "Peak of memory above the network and the images, MiB",
}


def draw(rows: list[dict[str, Any]], ink: Ink) -> Any:
    """Two panels: time and memory against how many times the usual number there is."""
    drawn, panels = plt.subplots(1, 2, figsize=(9.6, 3.4))
    colours = {"images": ink.keep, "units": ink.gone, "layers": ink.other}
    base = {name: getattr(BASE, name) for name in VALUES}
    for panel, (key, heading) in zip(panels, PANELS.items(), strict=True):
        for name in VALUES:
            others = {other: value for other, value in base.items() if other != name}
            line = sorted(
                (row[name] / base[name], row[key])
                for row in rows
                if all(row[other] == value for other, value in others.items())
            )
            panel.plot(
                *zip(*line, strict=True),
                marker=MARKS[name],
                color=colours[name],
                label=f"{NAMES[name]} ({base[name]})",
            )
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_facecolor("none")
        panel.tick_params(which="both", colors=ink.text, labelsize=9)
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_minor_locator(NullLocator())
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
        for side, line in panel.spines.items():
            line.set_color(ink.faint)
            line.set_visible(side in ("left", "bottom"))
        panel.set_xlabel("times the number in brackets", color=ink.text, fontsize=9)
        panel.set_title(heading, color=ink.text, fontsize=10)
    panels[0].legend(frameon=False, labelcolor=ink.text, fontsize=9)
    drawn.tight_layout()
    return drawn


def main() -> None:
    """Write the picture in both colours."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("figures", type=Path)
    words.add_argument("folder", type=Path)
    given = words.parse_args()
    rows = read_json(given.figures)["rows"]
    with mpl.rc_context({"svg.hashsalt": "secateurs", "font.family": "DejaVu Sans"}):
        for look, ink in INKS.items():
            drawn = draw(rows, ink)
            path = given.folder / f"growth-{look}.svg"
            drawn.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
            plt.close(drawn)
            print(path)


if __name__ == "__main__":
    main()
